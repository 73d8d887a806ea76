"""Raw-socket servers that do exactly as told, and a runner that puts a test on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from broker.upstream.addresses import AddressPolicy
from broker.upstream.client import Limits, Origin, Response, Timeouts, UpstreamClient, request_head

LOOPBACK = AddressPolicy((ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")))
PATIENT = Timeouts(connect_s=5, first_byte_s=10, idle_s=10, total_s=20)
BODY = b'{"model":"m"}'
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test without fixtures on the standard loop and on uvloop, bounded in time.

    An exception that a callback raised into the loop fails the test as well.
    """

    @pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
    def run(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        unhandled: list[dict[str, Any]] = []

        async def bounded() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, why: unhandled.append(why))
            async with asyncio.timeout(30):
                await test()
            assert unhandled == []

        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(bounded())

    functools.update_wrapper(run, test)
    del run.__wrapped__  # type: ignore[attr-defined]  # pytest would look for its parameters
    return run


class Server:
    """Counts connections and requests, and runs `handler` for each connection."""

    def __init__(self, handler: Handler, scheme: str) -> None:
        self.handler = handler
        self.scheme = scheme
        self.connections = 0
        self.requests: list[bytes] = []
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def origin(self) -> Origin:
        return Origin(
            self.scheme, "localhost" if self.scheme == "https" else "127.0.0.1", self.port
        )

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.handler(reader, writer)
            writer.close()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
            await writer.wait_closed()
        self._tasks.discard(task)

    async def stop(self) -> None:
        """End the handlers that still run."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Read one request with its body and return both; raise `IncompleteReadError` at the end."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return head + await reader.readexactly(int(line.split(b":")[1]))
    return head


@contextlib.asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Serve `handler` on a free port of 127.0.0.1."""
    server = Server(handler, "http" if tls is None else "https")
    listening = await asyncio.start_server(server.accept, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        await server.stop()
        await listening.wait_closed()


@contextlib.asynccontextmanager
async def answering(*answers: bytes, close: bool = False) -> AsyncIterator[Server]:
    """Answer each connection's requests with `answers` in turn, then close or await the end."""
    server: Server

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            server.requests.append(await read_request(reader))
            writer.write(answer)
            await writer.drain()
        if not close:
            await reader.read()

    async with serving(handle) as server:
        yield server


@contextlib.asynccontextmanager
async def client_of(
    limits: Limits | None = None, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[UpstreamClient]:
    """A client that may connect to loopback and is closed at the end."""
    client = UpstreamClient(LOOPBACK, limits, ssl_context)
    try:
        yield client
    finally:
        await client.aclose()


async def ask(
    client: UpstreamClient, server: Server, timeouts: Timeouts = PATIENT, method: bytes = b"POST"
) -> Response:
    """Send a small request."""
    body = b"" if method in (b"HEAD", b"GET") else BODY
    length = len(body) if body else None
    head = request_head(method, b"/v1/x", server.origin.authority, [(b"x-a", b"b")], length)
    return await client.send(server.origin, head, body, timeouts)


def certificates(
    folder: Path, host: str = "localhost", *, expired: bool = False
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Make a CA and a certificate for `host`; return the server's and the client's context."""
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "throwaway CA")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    ca_public = ca_key.public_key()
    ca = _certificate(ca_name, ca_name, ca_public, ends_in_h=2)
    ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    leaf = _certificate(name, ca_name, key.public_key(), ends_in_h=-1 if expired else 1)
    leaf = leaf.add_extension(x509.SubjectAlternativeName([_named(host)]), critical=False)
    # Python from 3.13 on asks for these (VERIFY_X509_STRICT).
    ca = ca.add_extension(_SIGNS_CERTIFICATES, critical=True)
    ca = ca.add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_public), critical=False)
    issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_public)
    leaf = leaf.add_extension(issued_by, critical=False)
    pem = serialization.Encoding.PEM
    ca_path, chain_path = folder / "ca.pem", folder / "chain.pem"
    ca_path.write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    key_pem = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain_path.write_bytes(leaf.sign(ca_key, hashes.SHA256()).public_bytes(pem) + key_pem)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(chain_path)
    return served, ssl.create_default_context(cafile=str(ca_path))


_SIGNS_CERTIFICATES: Final = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _named(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, ends_in_h: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=2))
        .not_valid_after(now + datetime.timedelta(hours=ends_in_h))
    )
