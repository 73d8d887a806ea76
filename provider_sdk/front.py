"""A small reverse proxy before a local inference server, for the provider's public port.

It answers the broker's nonce itself, lets an allow-list of paths through, and nothing else. Bodies
pass in both directions as they come, encodings untouched; a caller who leaves is followed by the
end of the call upstream. Each request has a connection of its own upstream: on one machine that
costs little, and llama.cpp closes connections it promised to keep.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
from collections.abc import Callable
from urllib.parse import urlsplit

import h11
import msgspec

from provider_sdk.exchange import Exchange
from provider_sdk.listener import HEAD_LIMIT_BYTES, Listener
from provider_sdk.passage import end_to_end, may_pass, without_prefix
from provider_sdk.protocol import WELL_KNOWN_PATH
from provider_sdk.served import Served, Watch

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
READ_BYTES = 64 * 1024


class ServerAway(Exception):
    """The local server cannot be reached, or broke off before it answered."""


class Front:
    """The public side of one deployment."""

    def __init__(
        self,
        server: str,
        *,
        listen: str = "127.0.0.1:0",
        prefix: str = "",
        credential: str | None = None,
        server_credential: str | None = None,
        on_served: Callable[[Served], None] | None = None,
    ) -> None:
        """`prefix`: the path of the public URL; `credential`: what callers must show, if set;
        `on_served`: told at once, and without waiting, what became of each call of a broker."""
        host, _colon, port = listen.rpartition(":")
        parts = urlsplit(server)
        self._tls = parts.scheme == "https"
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or (443 if self._tls else 80))
        self._base_path = parts.path.rstrip("/")
        self._prefix = prefix.rstrip("/")
        self._credential = credential
        self._server_credential = server_credential
        self._on_served = on_served
        self._listener = Listener(self._handle, host=host.strip("[]"), port=int(port))
        self.port = self._listener.port
        self.nonce: str | None = None
        """The proof to answer with, once the broker has told it."""
        self.in_flight = 0

    def open(self) -> None:
        """Listen."""
        self._listener.open()

    async def close(self, grace_s: float = 0.0) -> None:
        """Stop listening; calls under way have `grace_s` seconds to end."""
        await self._listener.close(grace_s)

    async def _handle(self, exchange: Exchange) -> None:
        path = without_prefix(exchange.path, self._prefix)
        if path == WELL_KNOWN_PATH:
            if self.nonce is None:
                await exchange.answer(404)
            else:
                await exchange.answer(200, self.nonce.encode(), "text/plain")
        elif not may_pass(exchange.method, path):
            await self._refuse(exchange, 404, "this path is not served here")
        elif path != "/health" and not self._is_welcome(exchange):
            await self._refuse(exchange, 401, "this provider wants its credential")
        else:
            await self._forward(exchange, path)

    def _is_welcome(self, exchange: Exchange) -> bool:
        if self._credential is None:
            return True
        shown = exchange.header("authorization").encode("latin-1")
        return hmac.compare_digest(shown, f"Bearer {self._credential}".encode())

    async def _forward(self, exchange: Exchange, path: str) -> None:
        self.in_flight += 1
        watch = Watch(exchange, path)
        try:
            await self._pass_on(exchange, path, watch)
        except (ServerAway, OSError, TimeoutError, h11.RemoteProtocolError) as error:
            if exchange.started:
                # a body cut short must not look whole
                exchange.reset()
            else:
                log.warning("the inference server did not answer %s: %s", path, error)
                await self._refuse(exchange, 502, "the inference server did not answer")
        finally:
            self.in_flight -= 1
            self._note(watch)

    def _note(self, watch: Watch) -> None:
        """Tell what was served; whatever comes of that, the call has had its answer."""
        if self._on_served is None or not watch.is_brokered:
            return
        try:
            self._on_served(watch.end())
        except Exception:
            log.exception("a call cannot be noted")

    async def _pass_on(self, exchange: Exchange, path: str, watch: Watch) -> None:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(
                *self._upstream, ssl=True if self._tls else None
            )
        upload: asyncio.Task[None] | None = None
        try:
            upstream = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT_BYTES)
            query = exchange.target[len(exchange.path) :]
            request = h11.Request(
                method=exchange.method,
                target=self._base_path + path + query,
                headers=self._request_headers(exchange),
            )
            writer.write(upstream.send(request) or b"")
            upload = asyncio.create_task(_upload(exchange, upstream, writer, watch))
            await _download(exchange, upstream, reader, watch)
        finally:
            writer.transport.abort()
            if upload is not None:
                upload.cancel()
                await asyncio.gather(upload, return_exceptions=True)
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _request_headers(self, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        headers = [(n, v) for n, v in end_to_end(exchange.headers) if n != b"host"]
        if any(name == b"transfer-encoding" for name, _value in exchange.headers):
            # Never both: a server that believes the length would read the rest as a request.
            headers = [(n, v) for n, v in headers if n != b"content-length"]
            headers.append((b"transfer-encoding", b"chunked"))
        if self._server_credential is not None:
            headers = [(n, v) for n, v in headers if n != b"authorization"]
            headers.append((b"authorization", f"Bearer {self._server_credential}".encode()))
        host, port = self._upstream
        return [(b"host", f"{host}:{port}".encode()), *headers, (b"connection", b"close")]

    async def _refuse(self, exchange: Exchange, status: int, text: str) -> None:
        error: object = {"message": text, "type": "provider_front", "code": status}
        if exchange.path.startswith(f"{self._prefix}/v2"):
            error = text
        await exchange.answer(status, msgspec.json.encode({"error": error}))


async def _upload(
    exchange: Exchange,
    upstream: h11.Connection,
    writer: asyncio.StreamWriter,
    watch: Watch,
) -> None:
    """The caller's body to the server; a server that answers early may stop reading it."""
    try:
        async for data in exchange.chunks():
            watch.asked(data)
            writer.write(upstream.send(h11.Data(data=data)) or b"")
            await writer.drain()
        writer.write(upstream.send(h11.EndOfMessage()) or b"")
        await writer.drain()
    except OSError:
        pass
    except h11.ProtocolError:
        # a caller whose body is malformed can be told nothing that it would understand
        exchange.reset()


async def _download(
    exchange: Exchange,
    upstream: h11.Connection,
    reader: asyncio.StreamReader,
    watch: Watch,
) -> None:
    """The server's answer to the caller."""
    while True:
        event = upstream.next_event()
        if event is h11.NEED_DATA:
            upstream.receive_data(await reader.read(READ_BYTES))
        elif isinstance(event, h11.Response):
            headers = end_to_end(event.headers)
            watch.answered(event.status_code, headers)
            await exchange.start(event.status_code, headers)
        elif isinstance(event, h11.Data):
            data = bytes(event.data)
            await exchange.send(data)
            watch.passed(data)
        elif isinstance(event, h11.EndOfMessage):
            await exchange.end()
            watch.finished()
            return
        elif not isinstance(event, h11.InformationalResponse):
            raise ServerAway("the inference server closed the connection before it answered")
