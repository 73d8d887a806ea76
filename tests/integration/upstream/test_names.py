"""Names whose servers take their time, and a process that was away while it connected."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import resource
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from broker.core.outcome import Fault
from broker.upstream.addresses import AddressPolicy
from broker.upstream.client import AttemptFailed, Origin, Timeouts, UpstreamClient
from broker.upstream.dial import ADDRESSES_MAX
from broker.upstream.names import AT_ONCE, OF_AN_OWNER, Names, domain_of
from tests.integration.upstream.scripted import (
    LOOPBACK,
    OK,
    PATIENT,
    answering,
    ask,
    client_of,
    on_both_loops,
    serving,
)
from tests.waiting import until


class Resolver:
    """Answers at once, but for names that begin with `slow`; those wait until they are let go."""

    def __init__(self, address: str = "127.0.0.1", *others: str) -> None:
        self.address = address
        self.others = others
        self.asked: list[str] = []
        self.may_go = threading.Event()

    def ask(self, host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        if host.startswith("slow"):
            self.may_go.wait(20)
        found: list[tuple[Any, ...]] = []
        for each in (self.address, *self.others):
            kind = socket.AF_INET6 if ":" in each else socket.AF_INET
            found.append((kind, socket.SOCK_STREAM, 6, "", (each, port)))
        return found


@on_both_loops
async def test_a_name_that_is_not_resolved_keeps_no_other_waiting() -> None:
    resolver = Resolver()
    client = UpstreamClient(LOOPBACK, names=Names(resolver.ask, at_once=4))
    async with answering(*[OK] * 20) as server:
        slow = Origin("http", "slow.test", server.port)
        hasty = Timeouts(connect_s=0.2)
        stuck = [asyncio.create_task(client.send(slow, b"", b"", hasty)) for _ in range(50)]
        await until(lambda: bool(resolver.asked))
        for number in range(10):
            quick = Origin("http", f"quick-{number}.test", server.port)
            head = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            assert (await client.send(quick, head, b"", PATIENT)).status == 200
        outcomes = await asyncio.gather(*stuck, return_exceptions=True)
        faults = {each.outcome.fault for each in outcomes if isinstance(each, AttemptFailed)}
        assert faults == {Fault.CONNECT_TIMEOUT}
        assert resolver.asked.count("slow.test") == 1, "asked for once at a time"
        resolver.may_go.set()
        await until(lambda: not client._dialler._names._under_way)
        head = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
        assert (await client.send(slow, head, b"", PATIENT)).status == 200
        await client.aclose()


@on_both_loops
async def test_closing_the_client_gives_up_names_under_way() -> None:
    resolver = Resolver()
    client = UpstreamClient(LOOPBACK, names=Names(resolver.ask))
    call = asyncio.create_task(client.send(Origin("http", "slow", 80), b"", b"", PATIENT))
    await until(lambda: bool(resolver.asked))
    call.cancel()
    await client.aclose()
    assert not client._dialler._names._under_way
    resolver.may_go.set()


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "169.254.169.254",
        "::1",
        "::ffff:127.0.0.1",
        "fe80::1%1",
        "fd00::1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "::127.0.0.1",
        "ff02::1",
    ],
)
async def test_whatever_a_name_turns_out_to_be_is_checked_before_connecting(address: str) -> None:
    client = UpstreamClient(AddressPolicy(), names=Names(Resolver(address).ask))
    with pytest.raises(AttemptFailed) as refused:
        await client.send(Origin("http", "innocent.test", 80), b"", b"", PATIENT)
    assert refused.value.outcome.fault is Fault.ADDRESS_REFUSED
    assert not refused.value.outcome.sent
    await client.aclose()


def unknown(*_: Any, **__: Any) -> list[tuple[Any, ...]]:
    """What the resolver says of any name that it has not read its files for."""
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def test_a_broker_without_a_thread_left_blames_no_provider(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    client = UpstreamClient(LOOPBACK)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(AttemptFailed) as failed:
        await client.send(Origin("http", "name.test", 80), b"", b"", PATIENT)
    assert failed.value.outcome.fault is Fault.NO_ROOM
    await client.aclose()


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("127.0.0.1", socket.getaddrinfo),
        ("localhost", socket.getaddrinfo),
        ("localhost", unknown),
    ],
)
async def test_a_broker_without_a_file_left_blames_no_provider_whatever_its_address(
    host: str, says: Callable[..., list[tuple[Any, ...]]]
) -> None:
    client, origin = UpstreamClient(LOOPBACK, names=Names(says)), Origin("http", host, 9)
    with pytest.raises(AttemptFailed) as away:
        await client.send(origin, b"", b"", PATIENT)
    assert away.value.outcome.fault is Fault.CONNECT_FAILED
    least_free = os.open(os.devnull, os.O_RDONLY)
    os.close(least_free)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (least_free, before[1]))
    try:
        with pytest.raises(AttemptFailed) as failed:
            await client.send(origin, b"", b"", PATIENT)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert failed.value.outcome.fault is Fault.NO_ROOM
    assert not failed.value.outcome.counts_against_provider
    await client.aclose()


@on_both_loops
async def test_a_name_is_asked_for_once_for_each_connection_so_it_cannot_change_in_between() -> (
    None
):
    resolver = Resolver()
    client = UpstreamClient(LOOPBACK, names=Names(resolver.ask))
    async with answering(OK, OK) as server:
        origin = Origin("http", "turns.test", server.port)
        head = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
        for _ in range(2):
            await (await client.send(origin, head, b"", PATIENT)).read()
        assert resolver.asked == ["turns.test"]
        assert server.connections == 1
    resolver.address = "192.168.0.1"  # it turns private: the next connection is refused
    await until(lambda: client.connections(origin) == (0, 0))
    with pytest.raises(AttemptFailed) as refused:
        await client.send(origin, head, b"", PATIENT)
    assert refused.value.outcome.fault is Fault.ADDRESS_REFUSED
    await client.aclose()


@on_both_loops
async def test_of_several_addresses_those_that_are_not_permitted_are_never_connected_to() -> None:
    resolver = Resolver("10.0.0.1", "::1", "127.0.0.1", "169.254.169.254")
    policy = AddressPolicy((ipaddress.ip_network("127.0.0.0/8"),))
    client = UpstreamClient(policy, names=Names(resolver.ask))
    async with answering(OK) as server:
        origin = Origin("http", "mixed.test", server.port)
        head = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
        assert (await client.send(origin, head, b"", Timeouts(connect_s=1))).status == 200
        await client.aclose()


@on_both_loops
async def test_an_address_that_does_not_answer_leaves_time_for_the_next() -> None:
    """It once took all the time there was, so that no call came to a server that was well."""
    async with answering(OK, OK) as server:
        with socket.socket() as full, socket.socket() as first, socket.socket() as second:
            full.bind(("127.0.0.2", server.port))
            full.listen(0)
            for each in (first, second):  # nobody accepts: there is no place for a third
                each.setblocking(False)
                each.connect_ex(("127.0.0.2", server.port))
            client = UpstreamClient(LOOPBACK, names=Names(Resolver("127.0.0.2", "127.0.0.1").ask))
            origin = Origin("http", "two.test", server.port)
            head = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
            assert (await client.send(origin, head, b"", Timeouts(connect_s=2))).status == 200
            await client.aclose()


@on_both_loops
async def test_no_more_than_a_few_addresses_of_a_name_are_knocked_at() -> None:
    knocked = [f"127.0.0.{number}" for number in range(2, 2 + ADDRESSES_MAX)]
    async with answering(OK) as server:
        client = UpstreamClient(LOOPBACK, names=Names(Resolver(*knocked, "127.0.0.1").ask))
        with pytest.raises(AttemptFailed) as failed:
            await client.send(Origin("http", "many.test", server.port), b"", b"", PATIENT)
        assert failed.value.outcome.fault is Fault.CONNECT_FAILED
        assert server.connections == 0
        await client.aclose()


@on_both_loops
async def test_a_process_that_was_away_while_it_connected_blames_nobody() -> None:
    async with answering(OK) as server, client_of() as client:
        hasty = Timeouts(connect_s=0.15, first_byte_s=5.0)
        call = asyncio.create_task(ask(client, server, hasty))
        await asyncio.sleep(0)
        time.sleep(0.4)  # noqa: ASYNC251 - the loop stands still, as without a CPU
        assert (await call).status == 200


@on_both_loops
async def test_an_answer_that_came_while_the_process_was_away_is_taken() -> None:
    served = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        served.set()
        await asyncio.sleep(0.05)
        writer.write(OK)
        await reader.read()

    async with serving(handle) as server, client_of() as client:
        call = asyncio.create_task(ask(client, server, Timeouts(first_byte_s=0.2)))
        await served.wait()
        time.sleep(0.5)  # noqa: ASYNC251 - the server is in this process too, and late by so much
        assert (await call).status == 200


@on_both_loops
async def test_the_names_of_one_domain_leave_places_for_all_others() -> None:
    resolver = Resolver()
    names = Names(resolver.ask)
    stuck = [asyncio.create_task(names.look_up(f"slow{n}.a.strange.test", 80)) for n in range(100)]
    await until(lambda: len(resolver.asked) == OF_AN_OWNER)
    async with asyncio.timeout(5):
        assert await names.look_up("honest.test", 80)
    assert len(resolver.asked) == OF_AN_OWNER + 1
    resolver.may_go.set()
    await asyncio.gather(*stuck)
    assert not names._places._holdings


@on_both_loops
async def test_a_provider_has_a_few_places_however_many_domains_it_has() -> None:
    """Eight names under each of eight domains once took all places there are."""
    resolver = Resolver()

    def owner_of(host: str) -> str | None:
        return "stranger" if host.startswith("slow") else "honest"

    names = Names(resolver.ask, owner_of=owner_of)
    slow = [f"slow{n}.strange-{domain}.test" for domain in range(8) for n in range(8)]
    stuck = [asyncio.create_task(names.look_up(each, 80)) for each in slow]
    await until(lambda: len(resolver.asked) == OF_AN_OWNER)
    async with asyncio.timeout(5):
        assert await names.look_up("quick.test", 80)
    assert len(resolver.asked) == OF_AN_OWNER + 1
    resolver.may_go.set()
    await asyncio.gather(*stuck)
    assert not names._places._holdings


@on_both_loops
async def test_however_many_names_of_other_providers_hang_a_provider_has_a_place() -> None:
    """Eight names of each of eight providers once took all places there are."""
    resolver = Resolver()
    names = Names(resolver.ask, owner_of=lambda host: host.split(".")[1])
    slow = [f"slow{n}.strange-{owner}.test" for owner in range(40) for n in range(OF_AN_OWNER)]
    stuck = [asyncio.create_task(names.look_up(each, 80)) for each in slow]
    await until(lambda: len(resolver.asked) >= AT_ONCE)
    async with asyncio.timeout(5):
        for number in range(3):
            assert await names.look_up(f"gpu-{number}.honest.test", 80)
    assert len(resolver.asked) <= AT_ONCE + 40 + 3
    resolver.may_go.set()
    await asyncio.gather(*stuck)
    assert sorted(resolver.asked) == sorted([*slow, *(f"gpu-{n}.honest.test" for n in range(3))])
    assert not names._places._holdings


@on_both_loops
async def test_a_few_providers_leave_places_to_those_whose_first_name_hangs_too() -> None:
    resolver = Resolver()
    names = Names(resolver.ask, owner_of=lambda host: host.split(".")[1])
    slow = [f"slow{n}.strange-{owner}.test" for owner in range(8) for n in range(OF_AN_OWNER)]
    stuck = [asyncio.create_task(names.look_up(each, 80)) for each in [*slow, "slow.honest.test"]]
    await until(lambda: "slow.honest.test" in resolver.asked)
    async with asyncio.timeout(5):
        assert await names.look_up("quick.honest.test", 80)
    resolver.may_go.set()
    await asyncio.gather(*stuck)


@on_both_loops
async def test_one_dead_name_leaves_the_other_names_of_its_provider_reachable() -> None:
    resolver = Resolver()
    names = Names(resolver.ask, owner_of=lambda host: "cloud")
    dead = asyncio.create_task(names.look_up("slow.cloud.test", 443))
    await until(lambda: bool(resolver.asked))
    async with asyncio.timeout(5):
        for number in range(3):
            assert await names.look_up(f"gpu-{number}.cloud.test", 443)
    resolver.may_go.set()
    await dead


@on_both_loops
async def test_a_name_that_waits_for_those_of_its_own_provider_is_not_blamed() -> None:
    resolver = Resolver()
    client = UpstreamClient(LOOPBACK, names=Names(resolver.ask, owner_of=lambda host: "cloud"))
    hosts = [f"slow-{number}.test" for number in range(OF_AN_OWNER)]
    origins = [Origin("http", host, 80) for host in hosts]
    dead = [asyncio.create_task(client.send(each, b"", b"", PATIENT)) for each in origins]
    await until(lambda: len(resolver.asked) == OF_AN_OWNER)
    with pytest.raises(AttemptFailed) as held_up:
        await client.send(Origin("http", "quick.test", 80), b"", b"", Timeouts(connect_s=0.2))
    assert held_up.value.outcome.fault is Fault.NO_ROOM
    assert not held_up.value.outcome.counts_against_provider
    for each in dead:
        each.cancel()
    await asyncio.gather(*dead, return_exceptions=True)
    resolver.may_go.set()
    await client.aclose()


@on_both_loops
async def test_whose_name_waits_for_those_of_others_is_not_blamed() -> None:
    resolver = Resolver()
    names = Names(resolver.ask, at_once=1, owner_of=lambda host: host, firsts=0)
    client = UpstreamClient(LOOPBACK, names=names)
    hasty = Timeouts(connect_s=0.2)
    slow, quick = (Origin("http", host, 80) for host in ("slow.test", "quick.test"))
    first = asyncio.create_task(client.send(slow, b"", b"", hasty))
    await until(lambda: bool(resolver.asked))
    with pytest.raises(AttemptFailed) as held_up:
        await client.send(quick, b"", b"", hasty)
    assert held_up.value.outcome.fault is Fault.NO_ROOM
    assert not held_up.value.outcome.sent
    assert not held_up.value.outcome.counts_against_provider
    assert held_up.value.outcome.fails_over
    with pytest.raises(AttemptFailed) as slow_itself:
        await first
    assert slow_itself.value.outcome.counts_against_provider
    resolver.may_go.set()
    await client.aclose()


@on_both_loops
async def test_a_name_that_was_just_found_waits_for_no_place() -> None:
    resolver = Resolver()
    names = Names(resolver.ask, at_once=1)
    assert await names.look_up("known.test", 80)
    stuck = asyncio.create_task(names.look_up("slow.test", 80))
    await until(lambda: "slow.test" in resolver.asked)
    async with asyncio.timeout(5):
        assert await names.look_up("known.test", 80)
    assert resolver.asked.count("known.test") == 1
    resolver.may_go.set()
    await stuck


def test_names_are_of_the_domain_that_was_registered() -> None:
    names = ("a.b.c.strange.test", "x.example.co.uk", "example.test", "Host.Example.test.", "one")
    found = [domain_of(each) for each in names]
    assert found == ["strange.test", "example.co.uk", "example.test", "example.test", "one"]
