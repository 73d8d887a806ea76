"""How connections come about, or why they do not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from broker.core.outcome import Fault
from broker.upstream.addresses import AddressPolicy
from broker.upstream.client import (
    AttemptFailed,
    Limits,
    Origin,
    Timeouts,
    UpstreamClient,
)
from tests.integration.upstream.scripted import (
    OK,
    PATIENT,
    answering,
    ask,
    certificates,
    client_of,
    on_both_loops,
    read_request,
    serving,
)
from tests.waiting import until


@on_both_loops
async def test_connections_closed_as_soon_as_they_are_opened_leave_their_slots() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with serving(handle) as server, client_of(Limits(connections_per_origin=3)) as client:
        for _ in range(20):
            with pytest.raises(AttemptFailed) as failed:
                await ask(client, server)
            assert failed.value.outcome.fault in (Fault.RESET, Fault.CONNECT_FAILED)
        pool = client._pools[server.origin]
        await until(lambda: pool.busy == 0)
        assert pool._slots == 3


@on_both_loops
async def test_connections_that_never_come_about_leave_their_slots() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused
        origin = Origin("http", "127.0.0.1", taken.getsockname()[1])
        async with client_of(Limits(connections_per_origin=1)) as client:
            for _ in range(3):
                with pytest.raises(AttemptFailed) as failed:
                    await client.send(origin, b"", b"", PATIENT)
                assert failed.value.outcome.fault is Fault.CONNECT_FAILED
                assert not failed.value.outcome.sent


@on_both_loops
async def test_a_connection_that_does_not_come_about_in_time_is_a_connect_timeout() -> None:
    with tempfile.TemporaryDirectory() as folder:
        _, trusting = certificates(Path(folder))
    async with answering(b"") as server, client_of(ssl_context=trusting) as client:
        origin = Origin("https", "localhost", server.port)  # it never says hello
        with pytest.raises(AttemptFailed) as failed:
            await client.send(origin, b"x", b"", Timeouts(connect_s=0.1))
        assert failed.value.outcome.fault is Fault.CONNECT_TIMEOUT
        assert not failed.value.outcome.sent


@on_both_loops
async def test_tls_is_spoken_to_a_certificate_of_the_trusted_authority() -> None:
    with tempfile.TemporaryDirectory() as folder:
        served, trusting = certificates(Path(folder))
    large = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + bytes(1_000_000)
    async with answering(OK, large) as server:
        server_names: list[str | None] = []
        served.sni_callback = lambda _s, name, _c: server_names.append(name)
        async with serving(server.handler, served) as secure, client_of(None, trusting) as client:
            assert await (await ask(client, secure)).read() == b"ok"
            assert await (await ask(client, secure)).read() == bytes(1_000_000)
            assert secure.connections == 1
            assert server_names == ["localhost"]


@on_both_loops
async def test_tls_with_a_foreign_an_old_or_another_ones_certificate_fails_to_connect() -> None:
    with tempfile.TemporaryDirectory() as folder:
        served, _ = certificates(Path(folder))
        other_name, trusting_other = certificates(Path(folder), host="elsewhere.example")
        expired, trusting_expired = certificates(Path(folder), expired=True)
        number, trusting_number = certificates(Path(folder), host="127.0.0.1")
    async with answering(OK) as server:
        for tls, context in (
            (served, None),
            (served, trusting_other),
            (other_name, trusting_other),
            (expired, trusting_expired),
            (number, trusting_number),
        ):
            async with serving(server.handler, tls) as secure, client_of(None, context) as client:
                with pytest.raises(AttemptFailed) as failed:
                    await ask(client, secure)
                assert failed.value.outcome.fault is Fault.CONNECT_FAILED
                assert "certificate" in failed.value.outcome.detail
                assert not failed.value.outcome.sent
    assert server.requests == []


@on_both_loops
async def test_a_certificate_for_an_address_is_good_for_that_address() -> None:
    with tempfile.TemporaryDirectory() as folder:
        served, trusting = certificates(Path(folder), host="127.0.0.1")
    named: list[str | None] = []
    served.sni_callback = lambda _s, name, _c: named.append(name)
    async with (
        answering(OK) as server,
        serving(server.handler, served) as secure,
        client_of(None, trusting) as client,
    ):
        origin = Origin("https", "127.0.0.1", secure.port)
        head = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
        assert (await client.send(origin, head, b"", PATIENT)).status == 200
    assert named == [None], "an address is no name of a server"


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("in_order", [True, False])
def test_over_tls_an_answer_without_a_length_needs_the_word_that_it_is_over(
    in_order: bool, version: ssl.TLSVersion, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Else whoever cuts the line decides where the answer ends."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await writer.drain()
        if not in_order:
            with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as beneath:
                beneath.shutdown(socket.SHUT_WR)
            await reader.read()

    async def hear() -> bytes:
        async with serving(handle, served) as secure, client_of(None, trusting) as client:
            return await (await ask(client, secure)).read()

    with tempfile.TemporaryDirectory() as folder:
        served, trusting = certificates(Path(folder))
    served.maximum_version = version
    with asyncio.Runner(loop_factory=new_loop) as runner:
        if in_order:
            assert runner.run(hear()) == b"hello"
        else:
            with pytest.raises(AttemptFailed) as failed:
                runner.run(hear())
            assert failed.value.outcome.fault is Fault.RESET


@on_both_loops
async def test_who_leaves_while_a_connection_is_opened_closes_it_at_once() -> None:
    came, gone = asyncio.Event(), asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()  # and never a hello
        with contextlib.suppress(ConnectionError):
            await reader.read()
        gone.set()

    with tempfile.TemporaryDirectory() as folder:
        _, trusting = certificates(Path(folder))
    limits = Limits(connections_per_origin=1)
    async with serving(handle) as server, client_of(limits, trusting) as client:
        origin = Origin("https", "localhost", server.port)
        for _ in range(3):
            came.clear()
            gone.clear()
            call = asyncio.create_task(client.send(origin, b"x", b"", PATIENT))
            await came.wait()
            call.cancel()
            async with asyncio.timeout(2):  # far less than any of its own times
                await gone.wait()
            with pytest.raises(asyncio.CancelledError):
                await call
        assert client._pools[origin]._slots == 1


@on_both_loops
async def test_a_private_address_is_refused_before_a_connection_is_made() -> None:
    async with answering(OK) as server:
        client = UpstreamClient(AddressPolicy())
        for host in ("127.0.0.1", "localhost", "::ffff:127.0.0.1", "2130706433", "0x7f.1"):
            with pytest.raises(AttemptFailed) as failed:
                await client.send(Origin("http", host, server.port), b"", b"", PATIENT)
            assert failed.value.outcome.fault is Fault.ADDRESS_REFUSED
            assert not failed.value.outcome.sent
        assert server.connections == 0
        await client.aclose()


@on_both_loops
async def test_a_name_that_does_not_resolve_fails_to_connect() -> None:
    async with client_of() as client:
        with pytest.raises(AttemptFailed) as failed:
            await client.send(Origin("http", "nowhere.invalid", 80), b"", b"", PATIENT)
        assert failed.value.outcome.fault is Fault.CONNECT_FAILED
        assert "not resolved" in failed.value.outcome.detail


@on_both_loops
async def test_a_connection_lost_while_it_is_dialled_frees_no_slot_a_second_time() -> None:
    async with client_of(Limits(connections_per_origin=3)) as client:
        pool = client._add_pool(Origin("http", "127.0.0.1", 1))
        pool._new_connection().connection_lost(None)
        assert pool._slots == 3
