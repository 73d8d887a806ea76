"""What is told of a call that passed the front: counts as the answer gives them, bytes else."""

from __future__ import annotations

import h11
import msgspec
import pytest

from provider_sdk.exchange import Exchange
from provider_sdk.served import JSON_BYTES_MAX, TAIL_BYTES, Served, Watch

CALL = "01980000-0000-7000-8000-000000000001"
JSON = [(b"content-type", b"application/json; charset=utf-8")]
STREAM = [(b"content-type", b"text/event-stream")]
ANSWER = {"model": "lawyer", "usage": {"prompt_tokens": 5, "completion_tokens": 7}}


def exchange(**headers: str) -> Exchange:
    told = {"x_request_id": CALL, "x_broker_attempt": "2"} | headers
    sent = [(name.replace("_", "-"), value.encode()) for name, value in told.items()]
    request = h11.Request(method="POST", target="/", headers=[("host", "x"), *sent])
    return Exchange(None, request)  # type: ignore[arg-type]  # nothing is answered here


def served(
    *pieces: bytes,
    headers: list[tuple[bytes, bytes]] | None = None,
    status: int = 200,
    path: str = "/v1/chat/completions",
) -> Served:
    watch = Watch(exchange(), path)
    watch.asked(b"12345")
    watch.answered(status, JSON if headers is None else headers)
    for piece in pieces:
        watch.passed(piece)
    watch.finished()
    return watch.end()


def sse(*chunks: object) -> bytes:
    return b"".join(b"data: " + msgspec.json.encode(each) + b"\n\n" for each in chunks)


def test_a_json_answer_is_counted_by_its_usage_however_it_was_cut() -> None:
    body = msgspec.json.encode(ANSWER)
    told = served(body[:9], body[9:])
    assert (told.call_id, told.attempt, told.model) == (CALL, 2, "lawyer")
    assert (told.tokens_in, told.tokens_out) == (5, 7)
    assert (told.bytes_in, told.bytes_out) == (5, len(body))
    assert (told.status, told.whole) == (200, True)
    assert told.first_byte_at_ms is not None
    assert told.started_at_ms <= told.first_byte_at_ms <= told.ended_at_ms


def test_a_stream_is_counted_by_its_last_usage() -> None:
    early = {"model": "lawyer", "usage": {"prompt_tokens": 5, "completion_tokens": 1}}
    last = {"choices": [], **ANSWER}
    told = served(sse(early, {"usage": None}, last) + b"data: [DONE]\n\n", headers=STREAM)
    assert (told.model, told.tokens_in, told.tokens_out) == ("lawyer", 5, 7)


def test_a_stream_of_any_length_is_kept_by_its_tail_only() -> None:
    chunk = sse({"model": "lawyer", "choices": [{"delta": {"content": "x" * 1_000}}]})
    watch = Watch(exchange(), "/v1/chat/completions")
    watch.answered(200, STREAM)
    for _ in range(400):
        watch.passed(chunk)
        assert len(watch._kept) <= 2 * TAIL_BYTES + len(chunk)
    watch.passed(sse(ANSWER))
    told = watch.end()
    assert (told.tokens_out, told.bytes_out) == (7, 400 * len(chunk) + len(sse(ANSWER)))
    assert not told.whole


def test_a_stream_that_counts_nothing_is_known_by_its_bytes() -> None:
    told = served(sse({"model": "lawyer"}), headers=STREAM)
    assert (told.model, told.tokens_in, told.tokens_out) == ("lawyer", None, None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[" * 200_000,
        b'{"usage": 7, "model": 9}',
        b'{"usage": {"prompt_tokens": -1, "completion_tokens": true}}',
        b'{"usage": {"prompt_tokens": 1e300, "completion_tokens": "7"}}',
        b'{"usage": {"prompt_tokens": 99999999999999999999}}',
        b'{"choices":[]}' + b" " * JSON_BYTES_MAX,
    ],
)
def test_what_makes_no_sense_counts_nothing(body: bytes) -> None:
    told = served(body)
    assert (told.model, told.tokens_in, told.tokens_out) == ("", None, None)
    assert told.bytes_out == len(body)


def test_what_is_packed_is_known_by_its_bytes() -> None:
    packed = [*JSON, (b"content-encoding", b"gzip")]
    assert served(msgspec.json.encode(ANSWER), headers=packed).tokens_out is None


def test_a_tensor_model_is_named_by_its_path() -> None:
    octets = [(b"content-type", b"application/octet-stream")]
    told = served(b"\0\1", headers=octets, path="/v2/models/text%2Dkind/versions/1/infer")
    assert (told.model, told.tokens_in, told.bytes_out) == ("text-kind", None, 2)


def test_an_embedding_counts_what_came_in_only() -> None:
    told = served(b'{"data":[],"usage":{"prompt_tokens":3,"total_tokens":3}}')
    assert (told.tokens_in, told.tokens_out) == (3, None)


@pytest.mark.parametrize(
    "headers",
    [
        {"x_request_id": "r1"},
        {"x_request_id": ""},
        {"x_broker_attempt": ""},
        {"x_broker_attempt": "-1"},
        {"x_broker_attempt": "²"},
        {"x_broker_attempt": "99999"},
    ],
)
def test_a_call_that_no_broker_sent_is_nobodys(headers: dict[str, str]) -> None:
    watch = Watch(exchange(**headers), "/")
    watch.answered(200, JSON)
    watch.passed(b"{}")
    assert not watch.is_brokered
    assert not watch._kept
