"""The front answers the proof itself and passes calls through, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from provider_sdk.exchange import Exchange
from provider_sdk.front import Front
from provider_sdk.listener import Listener
from provider_sdk.protocol import WELL_KNOWN_PATH
from provider_sdk.testing.scripted import Script, ScriptedProvider, answer_text, chat_prompt
from tests.waiting import until

MESSAGES = [{"role": "user", "content": "Name a tree"}]
CHAT = {"model": "scripted", "messages": MESSAGES}
STREAM = {**CHAT, "stream": True}


@asynccontextmanager
async def front_of(server: str, **more: Any) -> AsyncIterator[tuple[Front, str]]:
    front = Front(server, **more)
    front.open()
    try:
        yield front, f"http://127.0.0.1:{front.port}"
    finally:
        await front.close()


async def test_the_nonce_is_answered_by_the_front_itself(http: httpx.AsyncClient) -> None:
    async with front_of("http://127.0.0.1:9", prefix="/llm") as (front, url):
        assert (await http.get(url + WELL_KNOWN_PATH)).status_code == 404
        front.nonce = "n-42"
        for path in (WELL_KNOWN_PATH, "/llm" + WELL_KNOWN_PATH):
            answer = await http.get(url + path)
            assert (answer.status_code, answer.text) == (200, "n-42")
            assert answer.headers["content-type"] == "text/plain"


async def test_a_call_passes_with_its_body_and_headers(
    provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    async with front_of(provider.url, prefix="/llm") as (_front, url):
        headers = {"x-request-id": "r1", "authorization": "Bearer mine"}
        path = "/llm/v1/chat/completions?verbose=1"
        answer = await http.post(url + path, json=CHAT, headers=headers)
        text = answer.json()["choices"][0]["message"]["content"]
        assert text == answer_text(chat_prompt(MESSAGES))
        received = provider.received[-1]
        assert received.path == "/v1/chat/completions"
        assert received.json == CHAT
        assert received.headers["x-request-id"] == "r1"
        assert received.headers["authorization"] == "Bearer mine"
        assert received.headers["host"] == f"127.0.0.1:{provider.port}"


async def test_a_stream_arrives_piece_by_piece(
    provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    """The provider holds back after three chunks: what came before must be here by then."""
    provider.script = Script(stall_after_chunks=3)
    async with front_of(provider.url) as (front, url):
        async with http.stream("POST", f"{url}/v1/chat/completions", json=STREAM) as answer:
            got = b""
            async for data in answer.aiter_raw():
                got += data
                if got.count(b"data: ") == 3:
                    break
        await until(lambda: provider.cancelled == 1)
        await until(lambda: front.in_flight == 0)


async def test_a_request_body_streams_too(http: httpx.AsyncClient) -> None:
    first_came = asyncio.Event()

    async def server(exchange: Exchange) -> None:
        parts = []
        async for data in exchange.chunks():
            parts.append(data)
            first_came.set()
        await exchange.answer(200, b"".join(parts), "text/plain")

    async def slowly() -> AsyncIterator[bytes]:
        yield b"first "
        await asyncio.wait_for(first_came.wait(), 5)
        yield b"second"

    async with (
        Listener(server) as listener,
        front_of(f"http://127.0.0.1:{listener.port}") as (_front, url),
    ):
        answer = await http.post(f"{url}/v1/files", content=slowly())
        assert answer.content == b"first second"


async def test_encodings_pass_untouched(http: httpx.AsyncClient) -> None:
    async def server(exchange: Exchange) -> None:
        body = await exchange.body()
        kept = [(n, v) for n, v in exchange.headers if n in (b"content-encoding", b"x-length")]
        await exchange.answer(200, body, "application/octet-stream", headers=kept)

    packed = gzip.compress(b"tensor" * 100)
    headers = {"content-encoding": "gzip", "x-length": "7", "accept-encoding": "gzip"}
    async with (
        Listener(server) as listener,
        front_of(f"http://127.0.0.1:{listener.port}") as (_front, url),
    ):
        path = f"{url}/v2/models/m/infer"
        async with http.stream("POST", path, content=packed, headers=headers) as answer:
            raw = b"".join([data async for data in answer.aiter_raw()])
        assert raw == packed
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["content-length"] == str(len(packed))


async def test_a_body_in_chunks_goes_on_without_a_length_that_another_server_might_believe() -> (
    None
):
    seen: list[list[bytes]] = []

    async def server(exchange: Exchange) -> None:
        seen.append([name for name, _value in exchange.headers])
        await exchange.answer(200, await exchange.body())

    async with (
        Listener(server) as listener,
        front_of(f"http://127.0.0.1:{listener.port}") as (front, _url),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(
            b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        )
        answered = await reader.read()
        writer.close()
    assert answered.endswith(b"hello")
    assert b"transfer-encoding" in seen[0]
    assert b"content-length" not in seen[0]


async def test_connections_to_the_front_are_kept(provider: ScriptedProvider) -> None:
    provider.script = Script(close_after_answer=True)
    async with front_of(provider.url) as (front, url):
        async with httpx.AsyncClient(trust_env=False) as http:
            statuses = [
                (await http.post(f"{url}/v1/chat/completions", json=body)).status_code
                for body in (CHAT, STREAM, CHAT, STREAM)
            ]
            assert len(front._listener.connections) == 1
        assert statuses == [200] * 4


@pytest.mark.parametrize(
    "path", ["/metrics", "/slots", "/v2/repository/index", "/v1/../metrics", "/"]
)
async def test_other_paths_never_reach_the_server(provider: ScriptedProvider, path: str) -> None:
    async with front_of(provider.url) as (front, _url):
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 404")
        writer.close()
        await writer.wait_closed()
        assert not provider.received


async def test_callers_show_one_credential_and_the_server_is_shown_another(
    provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    provider.script = Script(api_key="inner")
    more = {"credential": "outer", "server_credential": "inner"}
    async with front_of(provider.url, **more) as (_front, url):
        path = f"{url}/v1/chat/completions"
        for wrong in (b"", b"Bearer inner", "Bearer é".encode(), b"outer"):
            headers = {b"authorization": wrong}
            assert (await http.post(path, json=CHAT, headers=headers)).status_code == 401
        assert provider.calls == 0
        right = {"authorization": "Bearer outer"}
        assert (await http.post(path, json=CHAT, headers=right)).status_code == 200
        assert (await http.get(f"{url}/health")).status_code == 200


async def test_an_absent_server_is_a_502_in_the_shape_of_the_path(
    http: httpx.AsyncClient,
) -> None:
    async with front_of("http://127.0.0.1:9") as (_front, url):
        openai = await http.post(f"{url}/v1/chat/completions", json=CHAT)
        assert openai.status_code == 502
        assert openai.json()["error"]["message"] == "the inference server did not answer"
        kserve = await http.get(f"{url}/v2/health/live")
        assert kserve.json() == {"error": "the inference server did not answer"}


@pytest.mark.parametrize("script", [Script(reset=True), Script(cut_after_chunks=2)])
async def test_a_broken_answer_never_looks_whole(
    provider: ScriptedProvider, http: httpx.AsyncClient, script: Script
) -> None:
    provider.script = script
    async with front_of(provider.url) as (_front, url):
        path = f"{url}/v1/chat/completions"
        if script.reset:
            assert (await http.post(path, json=STREAM)).status_code == 502
        else:
            with pytest.raises(httpx.TransportError):
                await http.post(path, json=STREAM)


async def test_a_caller_who_leaves_ends_the_call_upstream(
    provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    provider.script = Script(stall=True)
    async with front_of(provider.url) as (front, url):
        call = asyncio.create_task(http.post(f"{url}/v1/chat/completions", json=CHAT))
        await until(lambda: provider.in_flight == 1)
        call.cancel()
        await until(lambda: provider.cancelled == 1 and front.in_flight == 0)
        await asyncio.gather(call, return_exceptions=True)


async def test_a_server_that_answers_early_is_heard(http: httpx.AsyncClient) -> None:
    async def server(exchange: Exchange) -> None:
        await exchange.answer(413, b'{"error":"too large"}')

    async with (
        Listener(server) as listener,
        front_of(f"http://127.0.0.1:{listener.port}") as (_front, url),
    ):
        big = json.dumps({"x": "y" * 30_000}).encode()
        answer = await http.post(f"{url}/v1/chat/completions", content=big)
        assert answer.status_code == 413


async def test_a_malformed_body_ends_the_call(provider: ScriptedProvider) -> None:
    async with front_of(provider.url) as (front, _url):
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head.encode() + b"5\r\nhello\r\nZZZ\r\n")
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(reader.readexactly(1), 5)
        writer.close()
        await until(lambda: front.in_flight == 0)


async def test_calls_under_way_may_end_when_the_front_closes(
    provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    provider.script = Script(tokens_per_s=200)
    front = Front(provider.url)
    front.open()
    url = f"http://127.0.0.1:{front.port}"
    call = asyncio.create_task(http.post(f"{url}/v1/chat/completions", json=CHAT))
    await until(lambda: front.in_flight == 1)
    await front.close(grace_s=5)
    assert (await call).status_code == 200
    with pytest.raises(httpx.ConnectError):
        await http.get(f"{url}/health")
