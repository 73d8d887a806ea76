"""Of a large body only so much is made as may be needed; what is too much is refused before."""

from __future__ import annotations

import msgspec
import pytest

from broker.api.calls.quotes import QuoteWanted
from broker.api.large_bodies import (
    LARGE_BYTES,
    read_draft,
    read_offer,
    require_parts,
    require_terms,
)
from broker.errors import RequestMalformed
from provider_sdk.protocol import Heartbeat, HeartbeatBatch, LoadReport
from provider_sdk.signing import sign
from tests.integration.catalog.offers import endpoint_offer, offer

TEXT = b'{"tokenizer_json":"%b"}' % (rb"{\"a\":[[]]},{}," * 200_000)


def offered(endpoints: bytes, more: bytes = b"") -> bytes:
    return b'{"name":"a","endpoints":[%b]%b}' % (endpoints, more)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (offered(b",".join([b"{}"] * 400_000)), "at most length 1000"),
        (offered(TEXT + b",{}" * 1_000), "at most length 1000"),
        (offered(b'{"domains":{%b}}' % b",".join([b'"a":1'] * 400_000)), "beside its tokenizers"),
        (offered(b'{"tokenizer_json":[%b0]}' % (b"{}," * 800_000)), "beside its tokenizers"),
        (offered(TEXT, b',"x":[%b0]' % (b"{}," * 800_000)), "beside its tokenizers"),
        (offered(b"{}" + b",{}" * 800_000, b',"endpoints":[{}]'), "at most length 1000"),
        (b'{"endpoints":' + b" " * LARGE_BYTES, "truncated"),
    ],
)
def test_an_offer_made_of_next_to_nothing_is_refused_before_it_is_made(
    body: bytes, why: str
) -> None:
    with pytest.raises(RequestMalformed, match=why):
        require_terms(body)


def test_an_offer_may_bring_long_tokenizers_whatever_is_in_them() -> None:
    require_terms(offered(b",".join([TEXT] * 3) + b",{},null" * 400))


def test_an_offer_is_made_of_what_an_offer_has() -> None:
    body = msgspec.json.encode(offer(endpoints=[endpoint_offer(domains={"law": 0.9})] * 400))
    assert msgspec.json.encode(read_offer(body)) == body
    for more in (b'"x":[%b0]', b'"region":[%b0]'):
        with pytest.raises(RequestMalformed, match=r"x: there is no such field|region: must be"):
            read_offer(b"{%b,%b" % (more % (b"[]," * 100_000), body[1:]))


def test_a_batch_of_marks_is_refused_before_it_is_made() -> None:
    for things in (b"{}", b"0", b"[[]]", b'""'):
        with pytest.raises(RequestMalformed, match="more parts"):
            require_parts(b'{"heartbeats":[%b]}' % b",".join([things] * 700_000))


def test_the_largest_batch_of_heartbeats_passes() -> None:
    beat = Heartbeat(
        deployment_id="01936d8e-0000-7000-8000-000000000000",
        sequence=2**62,
        sent_at_ms=2**40,
        status="draining",
        load=LoadReport(running=10**9, waiting=10**9, kv_usage=0.123456789),
    )
    batch = HeartbeatBatch(heartbeats=[sign(beat, "00" * 32)] * 10_000)
    body = msgspec.json.encode(batch)
    assert len(body) > LARGE_BYTES
    require_parts(body)


def test_of_a_long_draft_the_request_stays_as_it_is_written() -> None:
    request = b'{"model":"auto", "prompt":"%b","n":[{},{}]}' % (b"x" * LARGE_BYTES)
    read = read_draft(b'{"ttl_s":9,"request":%b}' % request)
    assert read == {"ttl_s": 9, "request": (msgspec.Raw(request), {"prompt"})}


def test_a_long_draft_has_the_members_of_a_short_one() -> None:
    for name in QuoteWanted.__struct_fields__:
        told = b"{}" if name == "request" else b"1"
        assert list(read_draft(b'{"%b":%b}' % (name.encode(), told))) == [name]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"broker":{"x":"%b"},"request":{}}' % (b"x" * LARGE_BYTES), "beside the request"),
        (b'{"request":"%b"}' % (b"x" * LARGE_BYTES), "must be an object"),
        (b'{"requets":{},%b"x":1}' % (b'"a":1,' * 200_000), "unknown field"),
        (b'{"request":%b' % (b"[" * LARGE_BYTES), "request: "),
        (b'{"request":{"prompt":"%b' % (b"x" * LARGE_BYTES), "truncated"),
    ],
)
def test_a_long_draft_that_is_none_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(RequestMalformed, match=why):
        read_draft(body)
