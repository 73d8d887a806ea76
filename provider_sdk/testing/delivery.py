"""Puts an answer on the wire at the script's pace, and spoils it as the script says."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator

import msgspec

from provider_sdk.exchange import Exchange
from provider_sdk.testing.answers import Answer, Chunk
from provider_sdk.testing.script import Script

_WINDOW_BITS = {"gzip": 31, "deflate": 15}
_MIB = b"x" * (1024 * 1024)
_DEPTH = 20_000


class Cut(Exception):
    """The answer ends here, before its end."""


async def deliver(exchange: Exchange, answer: Answer, script: Script) -> None:
    """Send `answer` as `script` says; returns when it is sent, cut, or the caller has left."""
    if script.stall:
        await asyncio.Event().wait()
    if script.reset or script.refuse:
        exchange.reset()
        return
    await asyncio.sleep(script.latency_ms / 1000)
    answer = spoil(answer, script)
    if script.cut_wire_after_bytes is not None or script.malformed_chunk:
        await _send_wire(exchange, answer, script)
        return
    try:
        await exchange.start(200, _head(answer, script))
        await _Sender(exchange, script).send_all(answer)
    except Cut:
        if script.cut_by_reset:
            exchange.reset()
        else:
            exchange.hang_up()
        return
    await exchange.end()
    if script.close_after_answer:
        exchange.hang_up()


async def _send_wire(exchange: Exchange, answer: Answer, script: Script) -> None:
    """Send an answer as the bytes that it is on the wire, spoilt there, and end the connection."""
    head = [b"HTTP/1.1 200 OK"]
    pieces = [chunk.data for chunk in answer.chunks]
    headers = _head(answer, script)
    if answer.stream or script.malformed_chunk:
        headers = [each for each in headers if each[0] != b"content-length"]
        headers.append((b"transfer-encoding", b"chunked"))
        if script.malformed_chunk and len(pieces) == 1:
            half = len(pieces[0]) // 2
            pieces = [pieces[0][:half], pieces[0][half:]]
        pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces] + [b"0\r\n\r\n"]
        if script.malformed_chunk:
            pieces[1] = b"zz" + pieces[1]
    head += [b"%b: %b" % each for each in headers]
    wire = b"\r\n".join([*head, b"", b""]) + b"".join(pieces)
    await exchange.send_bytes(wire[: script.cut_wire_after_bytes])
    if script.cut_by_reset:
        exchange.reset()
    else:
        exchange.hang_up()


def _head(answer: Answer, script: Script) -> list[tuple[bytes, bytes]]:
    content_type = "text/html" if script.wrong_content_type else answer.content_type
    headers = [(b"content-type", content_type.encode()), *answer.headers]
    if answer.stream:
        headers.append((b"cache-control", b"no-cache"))
    else:
        length = sum(len(chunk.data) for chunk in answer.chunks)
        headers.append((b"content-length", str(length).encode()))
    return headers


def spoil(answer: Answer, script: Script) -> Answer:
    """The answer with the faults of content (not of timing) laid over it."""
    chunks = list(_spoilt(answer, script))
    headers = answer.headers
    if script.encoding:
        chunks = list(_compressed(chunks, _WINDOW_BITS[script.encoding]))
        headers = (*headers, (b"content-encoding", script.encoding.encode()))
    return Answer(answer.content_type, chunks, answer.stream, headers)


def _compressed(chunks: list[Chunk], window_bits: int) -> Iterator[Chunk]:
    deflater = zlib.compressobj(wbits=window_bits)
    for chunk in chunks:
        packed = deflater.compress(chunk.data) + deflater.flush(zlib.Z_SYNC_FLUSH)
        yield Chunk(packed, chunk.tokens)
    yield Chunk(deflater.flush())


def _spoilt(answer: Answer, script: Script) -> Iterator[Chunk]:
    if script.empty:
        return
    garbage = Chunk(_MIB[: int((script.garbage_mb % 1) * len(_MIB))])
    for index, chunk in enumerate(answer.chunks):
        if script.error_after_chunks == index and answer.stream:
            error = {"message": "scripted failure in the stream", "type": "server_error"}
            yield Chunk(
                b"data: " + msgspec.json.encode({"error": {**error, "code": 500}}) + b"\n\n"
            )
            return
        if script.garbage_mb and index == (1 if answer.stream else 0):
            yield from [Chunk(_MIB)] * int(script.garbage_mb)
            yield garbage
            if not answer.stream:
                return
        spoilt = _misshapen(chunk, script, answer.stream)
        at = script.split_at_bytes
        if at is None or answer.stream:
            yield spoilt
        else:
            yield from (Chunk(spoilt.data[:at], spoilt.tokens), Chunk(spoilt.data[at:]))


def _misshapen(chunk: Chunk, script: Script, stream: bool) -> Chunk:
    if script.malformed_sse and stream and chunk.tokens:
        return Chunk(chunk.data.replace(b"data: ", b"dat\x00\xff ", 1), chunk.tokens)
    if script.malformed_json and (chunk.tokens or not stream):
        end = b"\n\n" if stream else b""
        return Chunk(chunk.data[: len(chunk.data) // 2].rstrip() + end, chunk.tokens)
    if script.nested_json and (chunk.tokens or not stream):
        nested = b'{"nested":' + b"[" * _DEPTH + b"]" * _DEPTH + b","
        return Chunk(chunk.data.replace(b"{", nested, 1), chunk.tokens)
    return chunk


class _Sender:
    """Sends the chunks of one answer, minding pace, stall and cut."""

    def __init__(self, exchange: Exchange, script: Script) -> None:
        self._exchange = exchange
        self._script = script
        self._sent_bytes = 0
        self._spoke = False

    async def send_all(self, answer: Answer) -> None:
        script = self._script
        for index, chunk in enumerate(answer.chunks):
            if script.cut_after_chunks is not None and index >= script.cut_after_chunks:
                raise Cut
            if script.stall_after_chunks is not None and index >= script.stall_after_chunks:
                await asyncio.Event().wait()
            await self._keep_pace(chunk.tokens)
            await self._send(chunk.data)

    async def _keep_pace(self, tokens: int) -> None:
        pause_s = 0.0
        if not self._spoke and tokens:
            self._spoke = True
            pause_s = self._script.ttft_ms / 1000
        if self._script.tokens_per_s:
            pause_s += tokens / self._script.tokens_per_s
        if pause_s:
            await asyncio.sleep(pause_s)

    async def _send(self, data: bytes) -> None:
        script = self._script
        if script.cut_after_bytes is not None:
            room = script.cut_after_bytes - self._sent_bytes
            if room < len(data):
                await self._exchange.send(data[:room])
                raise Cut
        self._sent_bytes += len(data)
        if script.byte_interval_ms is None:
            await self._exchange.send(data)
            return
        for offset in range(len(data)):
            await asyncio.sleep(script.byte_interval_ms / 1000)
            await self._exchange.send(data[offset : offset + 1])
