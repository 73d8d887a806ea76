"""Clients that are slow, hasty, old-fashioned or rude on the wire, spoken to byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from provider_sdk.testing.scripted import Script, ScriptedProvider, answer_text, chat_prompt
from tests.integration.gateway.house import BODY_BYTES_MAX, Consumer, House, Stall
from tests.waiting import until

PATH = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hello"}]
BODY = json.dumps({"model": "small", "messages": MESSAGES}).encode()
ANSWER = answer_text(chat_prompt(MESSAGES))
LIMIT_S = 15.0


@pytest.fixture(scope="module")
async def provider(house: House) -> ScriptedProvider:
    await house.enrol(Stall(name="acme/small"))
    return house.providers["acme/small"]


@pytest.fixture(autouse=True)
async def calm(house: House, provider: ScriptedProvider) -> AsyncIterator[None]:
    """A provider that is well; afterwards nobody is being served and nothing is held."""
    provider.script = Script(models=("upstream-name",))
    provider.calls = provider.cancelled = 0
    yield
    await until(lambda: provider.in_flight == 0)
    await house.let_go()


class Wire:
    """A connection to the broker without a client library."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.head = head
        """The lines that every request here begins with, but the first and the length."""

    def request(self, body: bytes = BODY, *, more: bytes = b"", method: bytes = b"POST") -> bytes:
        """A whole request with its length."""
        first = b"%s %s HTTP/1.1\r\n" % (method, PATH.encode())
        return first + self.head + more + b"content-length: %d\r\n\r\n" % len(body) + body

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        async with asyncio.timeout(LIMIT_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            if headers.get("transfer-encoding") == "chunked":
                return int(head[0].split()[1]), headers, await self._chunks()
            length = int(headers.get("content-length", "0"))
            return int(head[0].split()[1]), headers, await self.reader.readexactly(length)

    async def _chunks(self) -> bytes:
        body = b""
        while size := int((await self.reader.readline()).strip(), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readline()
        return body


@pytest.fixture
async def wire(house: House, shop: Consumer) -> AsyncIterator[Wire]:
    host, port = house.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    yield Wire(reader, writer, f"host: x\r\nauthorization: Bearer {shop.key}\r\n".encode())
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def _text(body: bytes) -> str:
    text: str = json.loads(body)["choices"][0]["message"]["content"]
    return text


async def test_requests_sent_ahead_are_answered_in_their_order(wire: Wire) -> None:
    prompts = [[{"role": "user", "content": f"number {n}"}] for n in range(5)]
    bodies = [json.dumps({"model": "small", "messages": each}).encode() for each in prompts]
    await wire.send(b"".join(map(wire.request, bodies)))
    for prompt in prompts:
        status, _, body = await wire.answer()
        assert (status, _text(body)) == (200, answer_text(chat_prompt(prompt)))


async def test_bad_and_streamed_requests_among_those_sent_ahead_do_not_disturb_the_others(
    wire: Wire,
) -> None:
    stream = BODY[:-1] + b',"stream":true}'
    await wire.send(
        wire.request(b"{") + wire.request(stream) + wire.request(BODY) + wire.request(b"[]")
    )
    assert (await wire.answer())[0] == 400
    status, _, streamed = await wire.answer()
    assert status == 200
    assert streamed.endswith(b"data: [DONE]\n\n")
    status, _, body = await wire.answer()
    assert (status, _text(body)) == (200, ANSWER)
    assert (await wire.answer())[0] == 400


async def test_a_request_that_trickles_in_is_served(wire: Wire) -> None:
    request = wire.request()
    for at in range(0, len(request), 7):
        await wire.send(request[at : at + 7])
        await asyncio.sleep(0)
    status, _, body = await wire.answer()
    assert (status, _text(body)) == (200, ANSWER)


async def test_a_body_in_chunks_is_served(wire: Wire) -> None:
    first = f"POST {PATH} HTTP/1.1\r\n".encode()
    await wire.send(first + wire.head + b"transfer-encoding: chunked\r\n\r\n")
    for at in range(0, len(BODY), 20):
        part = BODY[at : at + 20]
        await wire.send(b"%x\r\n%s\r\n" % (len(part), part))
    await wire.send(b"0\r\n\r\n")
    status, _, body = await wire.answer()
    assert (status, _text(body)) == (200, ANSWER)


async def test_a_client_that_waits_to_be_told_to_continue_is_told(wire: Wire) -> None:
    request = wire.request(more=b"expect: 100-continue\r\n")
    await wire.send(request[: -len(BODY)])
    assert (await wire.answer())[0] == 100
    await wire.send(BODY)
    assert (await wire.answer())[0] == 200


async def test_a_client_of_http_1_0_is_served_and_let_go(wire: Wire) -> None:
    await wire.send(wire.request().replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    status, _, body = await wire.answer()
    assert (status, _text(body)) == (200, ANSWER)
    async with asyncio.timeout(LIMIT_S):
        assert await wire.reader.read() == b""


async def test_a_stream_to_a_client_of_http_1_0_ends_with_the_connection(wire: Wire) -> None:
    request = wire.request(BODY[:-1] + b',"stream":true}')
    await wire.send(request.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    async with asyncio.timeout(LIMIT_S):
        assert b"data: [DONE]" in await wire.reader.read()


@pytest.mark.parametrize(
    "content_type",
    [b"text/plain", b"application/x-www-form-urlencoded", b"application/json; charset=utf-8", b""],
)
async def test_any_content_type_is_tolerated(wire: Wire, content_type: bytes) -> None:
    await wire.send(wire.request(more=b"content-type: " + content_type + b"\r\n"))
    assert (await wire.answer())[0] == 200


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET / HTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"POST /v1/chat/completions HTTP/1.1\r\nna me: x\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_a_400_and_the_end_of_the_connection(
    wire: Wire, request_head: bytes
) -> None:
    await wire.send(request_head)
    async with asyncio.timeout(LIMIT_S):
        answer = await wire.reader.read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"Traceback" not in answer


async def test_a_length_beyond_the_limit_is_refused_before_the_body_comes(wire: Wire) -> None:
    first = f"POST {PATH} HTTP/1.1\r\n".encode()
    await wire.send(first + wire.head + b"content-length: %d\r\n\r\n" % (BODY_BYTES_MAX + 1))
    assert (await wire.answer())[0] == 413


async def test_a_body_that_does_not_come_is_not_awaited_for_ever(wire: Wire) -> None:
    await wire.send(wire.request()[:-10])
    status, _, body = await wire.answer()
    assert (status, json.loads(body)["error"]["code"]) == (408, "body_too_slow")


async def test_who_takes_no_answer_is_let_go_and_pays_for_what_was_delivered(
    house: House, shop: Consumer, provider: ScriptedProvider
) -> None:
    tokens = 40_000
    provider.script = Script(models=("upstream-name",), output_tokens=tokens)
    wishes = {"deadline_s": 5.0, "task": "not taken"}
    body = {"model": "small", "messages": MESSAGES, "stream": True, "broker": wishes}
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        caller.setblocking(False)
        host, port = house.address.split(":")
        await asyncio.get_running_loop().sock_connect(caller, (host, int(port)))
        content = json.dumps(body | {"max_tokens": tokens}).encode()
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {shop.key}\r\n"
        length = f"content-length: {len(content)}\r\n\r\n"
        await asyncio.get_running_loop().sock_sendall(caller, (head + length).encode() + content)
        call = await _call_named("not taken", shop)
    assert (call["code"], call["status"]) == ("caller_left", 499)
    assert 0 < call["tokens_out"] < tokens


async def test_a_caller_who_does_not_read_holds_its_provider_back_and_loses_nothing(
    house: House, shop: Consumer, provider: ScriptedProvider
) -> None:
    tokens = 60_000  # more than all sockets on the way hold
    provider.script = Script(models=("upstream-name",), output_tokens=tokens)
    body = {"model": "small", "messages": MESSAGES, "stream": True, "max_tokens": tokens}
    content = json.dumps(body).encode()
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        caller.setblocking(False)
        host, port = house.address.split(":")
        loop = asyncio.get_running_loop()
        await loop.sock_connect(caller, (host, int(port)))
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {shop.key}\r\n"
        length = f"connection: close\r\ncontent-length: {len(content)}\r\n\r\n"
        await loop.sock_sendall(caller, (head + length).encode() + content)
        served = provider._listener.connections
        await until(lambda: any(not each._writable.is_set() for each in served))
        await asyncio.sleep(0.2)
        assert any(not each._writable.is_set() for each in served), "it still cannot send"
        assert provider.in_flight == 1
        heard = bytearray()
        async with asyncio.timeout(60):
            while piece := await loop.sock_recv(caller, 1_000_000):
                heard += piece
    assert heard.count(b'"finish_reason":null') == tokens + 1
    assert b"data: [DONE]" in heard[-100:]


async def _call_named(task: str, shop: Consumer) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    async def is_told() -> bool:
        calls = (await shop.http.get("/api/calls")).json()["calls"]
        found.extend(call for call in calls if call["task_label"] == task)
        return bool(found)

    await until(is_told)
    return found[0]


async def test_who_leaves_in_the_middle_of_a_body_costs_nothing(
    wire: Wire, provider: ScriptedProvider, shop: Consumer
) -> None:
    before = await _balance(shop)
    await wire.send(wire.request()[:-10])
    wire.writer.transport.abort()
    assert (await shop.http.get("/v1/models")).status_code == 200
    assert provider.calls == 0
    assert await _balance(shop) == before


async def test_who_leaves_while_the_provider_thinks_is_not_charged_and_it_is_told_to_stop(
    wire: Wire, provider: ScriptedProvider, house: House, shop: Consumer
) -> None:
    provider.script = Script(models=("upstream-name",), latency_ms=60_000)
    before = await _balance(shop)
    await wire.send(wire.request())
    await until(lambda: provider.in_flight == 1)
    wire.writer.transport.abort()
    await until(lambda: provider.cancelled == 1)
    await house.let_go()
    assert await _balance(shop) == before


async def test_who_leaves_in_the_middle_of_a_stream_pays_for_what_was_delivered(
    wire: Wire, provider: ScriptedProvider, house: House, shop: Consumer
) -> None:
    provider.script = Script(models=("upstream-name",), stall_after_chunks=6)
    before = await _balance(shop)
    await wire.send(wire.request(BODY[:-1] + b',"stream":true}'))
    async with asyncio.timeout(LIMIT_S):
        head = await wire.reader.readuntil(b"\r\n\r\n")
        while b"\n\n" not in await wire.reader.readuntil(b"\n\n"):
            pass
    wire.writer.transport.abort()
    await until(lambda: provider.cancelled == 1)
    call_id = head.decode().split("x-broker-call-id: ")[1].split("\r\n")[0]
    story = await house.story(shop, call_id)
    assert story["code"] == "caller_left"
    assert 0 < story["tokens_out"] < 60
    assert before - await _balance(shop) == Decimal(story["charge_usd"])


async def test_a_client_that_does_not_read_delays_nobody_else(
    house: House, shop: Consumer, wire: Wire, provider: ScriptedProvider
) -> None:
    provider.script = Script(models=("upstream-name",), sequence=(Script(output_tokens=400),))
    await wire.send(wire.request(BODY[:-1] + b',"stream":true,"max_tokens":400}'))
    await until(lambda: provider.calls == 1)
    answer = await shop.http.post(PATH, content=BODY)
    assert _text(answer.content) == ANSWER
    _, _, streamed = await wire.answer()
    assert streamed.endswith(b"data: [DONE]\n\n")


async def test_many_half_open_connections_do_not_keep_others_out(
    house: House, shop: Consumer
) -> None:
    host, port = house.address.split(":")
    opened = [await asyncio.open_connection(host, int(port)) for _ in range(50)]
    for _, writer in opened:
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n")
    answer = await shop.http.post(PATH, content=BODY)
    assert answer.status_code == 200
    for _, writer in opened:
        writer.transport.abort()


async def _balance(shop: Consumer) -> Decimal:
    told: Any = (await shop.http.get("/api/balance")).json()
    return Decimal(told["available_usd"])
