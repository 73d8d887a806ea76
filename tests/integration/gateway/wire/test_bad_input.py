"""Bad input of every kind: each is answered in the door's own shape, and costs nothing."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from broker.cli.local import OPERATOR
from broker.flows.access.issue_key import revoke_key
from broker.store.access.accounts import Role
from tests.integration.gateway.house import BODY_BYTES_MAX, Consumer, House, Stall
from tests.plain import TRUSTS_NOBODY
from tests.waiting import until

CHAT = "/v1/chat/completions"
INFER = "/v2/models/tensors/infer"
MESSAGES = [{"role": "user", "content": "hello"}]
GOOD: dict[str, Any] = {"model": "small", "messages": MESSAGES}
TENSOR = {"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1], "data": [0.5]}]}
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module", autouse=True)
async def providers(house: House) -> None:
    await house.enrol(
        Stall(name="acme/small", endpoint={"context_length_tokens": 8_192}),
        Stall(name="acme/tensors", kind="kserve", model="tensors"),
    )


@pytest.fixture(autouse=True)
async def nothing_lost(house: House, shop: Consumer) -> AsyncIterator[None]:
    """After each test: no charge, no open hold, no call at a provider, and the broker serves."""
    before = (await shop.http.get("/api/balance")).json()["available_usd"]
    for provider in house.providers.values():
        provider.calls = 0
    yield
    await house.let_go()
    assert (await shop.http.get("/api/balance")).json()["available_usd"] == before
    assert [provider.calls for provider in house.providers.values()] == [0, 0]
    assert (await shop.http.get("/v1/models")).status_code == 200


def _openai_error(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error of an answer, which must have OpenAI's shape and no innards."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, Any] = answer.json()["error"]
    assert {"message", "type", "param", "code"} <= set(error)
    assert error["message"]
    _no_innards(answer.text)
    return error


def _triton_error(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    error: str = answer.json()["error"]
    assert isinstance(error, str)
    _no_innards(answer.text)
    return error


def _no_innards(text: str) -> None:
    assert not re.search(r"Traceback|File \"|\.py\b|msgspec|asyncpg|0x[0-9a-f]{6}", text), text


BAD_BODIES: dict[str, bytes] = {
    "empty": b"",
    "only spaces": b"  \n ",
    "no JSON": b"hello",
    "cut off": b'{"model": "small", "messages": [',
    "a list": b"[]",
    "a string": b'"small"',
    "a number": b"17",
    "null": b"null",
    "two objects": json.dumps(GOOD).encode() * 2,
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
    "UTF-16": json.dumps(GOOD).encode("utf-16"),
    "broken UTF-8": b'{"model":"small","messages":[{"role":"user","content":"\xff\xfe"}]}',
    "lone continuation": b'{"model":"small","messages":[{"role":"user","content":"\x80"}]}',
    "a raw NUL": b'{"model":"small","messages":[{"role":"user","content":"a\x00b"}]}',
    "NULs alone": b"\x00" * 64,
    "NaN": b'{"model":"small","messages":[{"role":"user","content":"a"}],"temperature":NaN}',
    "a key without quotes": b'{model:"small"}',
    "a trailing comma": b'{"model":"small","messages":[1],}',
    "deep lists": b"[" * 100_000,
    "a deep member": b'{"model":"small","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a deep object": b'{"model":"small","messages":[1],"x":' + b'{"a":' * 50_000 + b"}" * 50_000,
    "deep wishes": b'{"model":"small","messages":[1],"broker":'
    + b"[" * 50_000
    + b"]" * 50_000
    + b"}",
}


@pytest.mark.parametrize("kind", BAD_BODIES)
async def test_a_body_that_is_no_json_object_is_refused(shop: Consumer, kind: str) -> None:
    error = _openai_error(await shop.http.post(CHAT, content=BAD_BODIES[kind], headers=JSON), 400)
    assert error["code"] == "request_malformed"
    assert error["type"] == "invalid_request_error"


BAD_MEMBERS: dict[str, dict[str, Any]] = {
    "'model'": {"model": None},
    "'model' ": {"model": 17},
    "'model'  ": {"model": ""},
    "'model'   ": {"model": "x" * 201},
    "'messages'": {"messages": None},
    "'messages' ": {"messages": "hello"},
    "'messages'  ": {"messages": []},
    "'messages'   ": {"messages": {"role": "user"}},
    "'max_tokens'": {"max_tokens": -1},
    "'max_tokens' ": {"max_tokens": 0},
    "'max_tokens'  ": {"max_tokens": 10**8},
    "'max_tokens'   ": {"max_tokens": 10**30},
    "'max_tokens'    ": {"max_tokens": "many"},
    "'max_tokens'     ": {"max_tokens": 1.5},
    "'max_completion_tokens'": {"max_completion_tokens": -5},
    "'n'": {"n": 0},
    "'n' ": {"n": 10**6},
    "'n'  ": {"n": "two"},
    "'stream'": {"stream": "yes"},
    "'stream_options'": {"stream": True, "stream_options": 1},
    "'max_prise'": {"broker": {"max_prise": 1}},
    "'onlyy'": {"broker": {"providers": {"onlyy": ["a"]}}},
    "broker": {"broker": 17},
    "max_price": {"broker": {"max_price": "cheap"}},
    "max_price ": {"broker": {"max_price": -1}},
    "max_price  ": {"broker": {"max_price": "1e999999999"}},
    "max_cost": {"broker": {"max_cost": "NaN"}},
    "max_cost ": {"broker": {"max_cost": 10**40}},
    "quality_min": {"broker": {"quality_min": 2}},
    "latency_ms_max": {"broker": {"latency_ms_max": 0}},
    "deadline_s": {"broker": {"deadline_s": -1}},
    "data_policy": {"broker": {"data_policy": "maybe"}},
    "region": {"broker": {"region": 5}},
    "weights": {"broker": {"weights": {"quality": -1}}},
    "weights ": {"broker": {"weights": "best"}},
    "labels": {"broker": {"labels": {"a": 1}}},
    "session_id": {"broker": {"session_id": "x" * 500}},
}


@pytest.mark.parametrize("named", BAD_MEMBERS)
async def test_a_member_of_a_wrong_kind_is_refused_by_name(shop: Consumer, named: str) -> None:
    body = {name: value for name, value in (GOOD | BAD_MEMBERS[named]).items() if value is not None}
    error = _openai_error(await shop.http.post(CHAT, json=body), 400)
    assert named.strip() in error["message"]
    assert error["code"] in ("request_malformed", "unknown_field")


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/v1/completions", {"model": "small"}, "'prompt'"),
        ("/v1/completions", {"model": "small", "prompt": {"a": 1}}, "'prompt'"),
        ("/v1/completions", {"model": "small", "prompt": "a", "best_of": -1}, "'best_of'"),
        ("/v1/embeddings", {"model": "small"}, "'input'"),
        ("/v1/embeddings", {"input": "text"}, "'model'"),
    ],
)
async def test_the_other_doors_name_what_is_missing_or_wrong(
    shop: Consumer, path: str, body: dict[str, Any], named: str
) -> None:
    assert named in _openai_error(await shop.http.post(path, json=body), 400)["message"]


async def test_an_unknown_model_is_not_found_at_either_door(shop: Consumer) -> None:
    error = _openai_error(await shop.http.post(CHAT, json=GOOD | {"model": "gpt-17"}), 404)
    assert error["code"] == "model_not_found"
    for path in ("/v2/models/gpt-17/infer", "/v2/models/a/b/versions/9/infer"):
        assert "model_not_found" in _triton_error(await shop.http.post(path, json=TENSOR), 404)
    # There is such a model, but it has another task.
    error = _openai_error(await shop.http.post(CHAT, json=GOOD | {"model": "tensors"}), 404)
    assert error["code"] == "model_not_found"


@pytest.mark.parametrize(
    "broker", [{"task": "a\0"}, {"session_id": "\0"}, {"domain": "a\0b"}, {"labels": {"a\0": "b"}}]
)
async def test_a_nul_is_refused_for_no_database_would_keep_the_call(
    shop: Consumer, broker: dict[str, object]
) -> None:
    before = (await shop.http.get("/api/balance")).json()
    _openai_error(await shop.http.post(CHAT, json=GOOD | {"broker": broker}), 400)
    _openai_error(await shop.http.post(CHAT, json=GOOD | {"model": "a\0b"}), 400)
    _triton_error(await shop.http.post("/v2/models/a%00b/infer", content=b"{}"), 404)
    assert (await shop.http.get("/api/balance")).json() == before


async def test_a_prompt_beyond_every_context_is_refused(shop: Consumer) -> None:
    long = [{"role": "user", "content": "word " * 20_000}]
    error = _openai_error(await shop.http.post(CHAT, json=GOOD | {"messages": long}), 400)
    assert error["code"] == "context_length_exceeded"
    assert error["broker"]["rejected"][0]["reason"] == "context_too_short"


async def _endless() -> AsyncIterator[bytes]:
    for _ in range(BODY_BYTES_MAX // 65_536 + 2):
        yield b" " * 65_536


@pytest.mark.parametrize("path", [CHAT, INFER])
async def test_a_body_that_is_too_large_is_refused_announced_or_not(
    shop: Consumer, path: str
) -> None:
    read = _openai_error if path == CHAT else _triton_error
    for content in (b" " * (BODY_BYTES_MAX + 1), _endless()):
        answer = await shop.http.post(path, content=content, headers=JSON)
        assert str(BODY_BYTES_MAX) in str(read(answer, 413))


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_a_wrong_method_is_refused(shop: Consumer, method: str) -> None:
    error = _openai_error(await shop.http.request(method, CHAT), 405)
    assert error["code"] == "method_not_allowed"
    assert "POST" in error["message"]
    refused = await shop.http.request(method, INFER)
    assert "POST" in _triton_error(refused, 405)
    assert refused.headers["allow"] == "POST"
    if method != "GET":
        _openai_error(await shop.http.request(method, "/v1/models"), 405)
        _triton_error(await shop.http.request(method, "/v2"), 405)


async def test_an_unknown_path_is_not_found_in_the_doors_shape(shop: Consumer) -> None:
    for path in ("/v1/", "/v1/audio/speech", "/v1/chat", "/v1/%00", "/responses", "/api/v1/models"):
        _openai_error(await shop.http.post(path, json=GOOD), 404)
    for path in ("/v2/nothing", "/v2/models", "/v2/models/", "/v2x", "/v2/models/a/b/c/d"):
        _triton_error(await shop.http.get(path), 404)
    for path in ("/v2/models/tensors/%2e%2e/x", "/v2/models/..%2f..%2frepository/index"):
        assert (await shop.http.get(path)).status_code in (403, 404)


KEYS = {
    "none": None,
    "empty": "",
    "no scheme": "bk_abc_def",
    "another scheme": "Digest bk_abc_def",
    "no key": "Bearer",
    "malformed": "Bearer sk-abcdef",
    "too many parts": "Bearer bk_a_b_c",
    "unknown": "Bearer bk_abcdefghijkm_" + "x" * 43,
    "not ASCII": "Bearer bk_äöü_ß",
    "basic without a key": "Basic dXNlcjpwYXNz",
    "basic, broken": "Basic !!!",
    "very long": "Bearer bk_" + "a" * 5_000 + "_b",
}


@pytest.mark.parametrize("kind", KEYS)
async def test_a_key_that_opens_nothing_is_a_401_at_either_door(house: House, kind: str) -> None:
    value = KEYS[kind]
    headers = {} if value is None else {b"authorization": value.encode("latin-1")}
    async with httpx.AsyncClient(base_url=house.url, timeout=20.0, verify=TRUSTS_NOBODY) as http:
        answer = await http.post(CHAT, json=GOOD, headers=headers)
        error = _openai_error(answer, 401)
        assert (error["code"], error["type"]) == ("invalid_api_key", "authentication_error")
        assert answer.headers["www-authenticate"] == "Bearer"
        given = (value or "").partition(" ")[2]
        assert not given or given not in answer.text
        for path in (INFER, "/v2/models/tensors"):
            method = "POST" if path == INFER else "GET"
            refused = await http.request(method, path, headers=headers)
            assert "invalid_api_key" in _triton_error(refused, 401)
        _openai_error(await http.get("/v1/models", headers=headers), 401)


async def test_a_wrong_secret_a_revoked_and_an_expired_key_open_nothing(
    house: House, shop: Consumer
) -> None:
    wrong = house.client(shop.key[:-1] + ("a" if shop.key[-1] != "a" else "b"))
    _openai_error(await wrong.post(CHAT, json=GOOD), 401)

    revoked = await house.consumer("fired")
    await revoke_key(house.engine, OPERATOR, revoked.key.split("_")[1], datetime.now(UTC))
    await until(lambda: _is_refused(revoked.http))
    assert "revoked" in _openai_error(await revoked.http.post(CHAT, json=GOOD), 401)["message"]

    expired = await _expired(house)
    assert "expired" in _openai_error(await expired.post(CHAT, json=GOOD), 401)["message"]


async def _expired(house: House) -> httpx.AsyncClient:
    """One whose key the broker has known, and that has expired since."""
    lasts_s = 0.3
    while True:
        soon = datetime.now(UTC) + timedelta(seconds=lasts_s)
        http = house.client(await house.key("guest", Role.CONSUMER, expires_at=soon))
        with contextlib.suppress(TimeoutError):
            await until(lambda client=http: _is_let_in(client), lasts_s)
            await until(lambda expiry=soon: datetime.now(UTC) > expiry)
            return http
        lasts_s *= 2  # on a slow machine it may have expired before it was known


async def _is_let_in(http: httpx.AsyncClient) -> bool:
    return (await http.get("/v1/models")).status_code == 200


async def _is_refused(http: httpx.AsyncClient) -> bool:
    return (await http.get("/v1/models")).status_code == 401


BAD_INFERENCES: dict[str, tuple[dict[str, str], bytes]] = {
    "a header length beyond the body": ({"inference-header-content-length": "999"}, b"{}"),
    "a negative header length": ({"inference-header-content-length": "-1"}, b"{}"),
    "a header length in words": ({"inference-header-content-length": "ten"}, b"{}"),
    "an unknown encoding": ({"content-encoding": "br"}, b"{}"),
    "not what it is encoded with": ({"content-encoding": "gzip"}, b"plain"),
    "an unknown wish": ({"x-broker-max-prise": "1"}, b"{}"),
    "a wish of a wrong kind": ({"x-broker-quality-min": "high"}, b"{}"),
    "an unreadable price": ({"x-broker-max-cost": "1e999999999"}, b"{}"),
}


@pytest.mark.parametrize("kind", BAD_INFERENCES)
async def test_a_bad_inference_is_refused_in_tritons_shape(shop: Consumer, kind: str) -> None:
    headers, body = BAD_INFERENCES[kind]
    error = _triton_error(await shop.http.post(INFER, content=body, headers=headers), 400)
    assert ("unknown_field" if kind == "an unknown wish" else "request_malformed") in error
