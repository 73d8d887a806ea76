"""What becomes of calls and money when a broker is killed, stopped, or loses its servers."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx
import openai
import pytest

from broker.embedded.port import free_port
from broker.embedded.postgres import EmbeddedPostgres
from broker.embedded.valkey import EmbeddedValkey
from broker.store.migrate import upgrade
from tests.conftest import broken_invariants, memory, passable_folder
from tests.e2e.harness import FUNDS_NANOS, Floor
from tests.e2e.process import BrokerProcess
from tests.e2e.stall import Stall
from tests.e2e.trade import Told, ask, chat, listen, try_to
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.e2e

WITHIN_S = 20.0
"""A third of what a connection to a database that hangs is waited for."""


@dataclass
class Crowd:
    """Callers that go on until their broker is gone, and what each of their calls was told."""

    floor: Floor
    told: list[Told]
    endless: list[Told]
    killed: bool = False
    """Before, a call may fail on a busy machine and is made again; after, the caller goes home."""

    async def call_on(self, number: int) -> None:
        """Call again and again, streams and whole answers in turn, until the broker is gone."""
        client = self.floor.client(max_retries=0)
        while True:
            doing = listen if (number + len(self.told)) % 2 else ask
            self.told.append(Told())
            told = await try_to(doing, client, self.told[-1], **chat("quick"))
            if told.failure is not None and self.killed:
                return

    async def call_without_end(self, number: int) -> None:
        """Make a call that does not end by itself."""
        client = self.floor.client(max_retries=0)
        doing, asked = (
            (listen, chat("endless", max_tokens=20_000)) if number % 2 else (ask, chat("slow"))
        )
        while True:
            told = Told()
            self.endless.append(told)
            await try_to(doing, client, told, **asked)
            if self.killed:
                return
            self.endless.remove(told)


async def test_a_killed_broker_has_charged_what_was_told_and_gives_back_the_rest(
    floor: Floor,
) -> None:
    broker = await floor.open_broker()
    quick, endless, slow = stalls = [Stall("acme", name) for name in ("quick", "endless", "slow")]
    await floor.list_stalls(*stalls)
    quick.behave(tokens_per_s=400.0)
    endless.behave(tokens_per_s=20.0, output_tokens=10_000)
    slow.behave(ttft_ms=60_000)
    crowd = Crowd(floor, [], [])
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(crowd.call_without_end(number))
        for number in range(8):
            group.create_task(crowd.call_on(number))

        async def busy() -> bool:
            whole = sum(told.whole for told in crowd.told)
            heard = sum(bool(told.text) for told in crowd.endless)
            return whole >= 80 and heard == 2 and slow.server.in_flight == 2

        await until(busy)
        async with ledger_stuck(floor):

            async def all_done_but_the_books() -> bool:
                return quick.server.in_flight == 0

            await until(all_done_but_the_books)
            await asyncio.sleep(0.2)  # whoever told before it was written would tell now
            crowd.killed = True
            await broker.kill()
    assert await floor.held() >= 4, "the kill left holds behind"
    await broker.start()
    await floor.release_orphans()
    await _check_kill(floor, crowd)
    served = await ask(floor.client(), Told(), **chat("quick"))
    assert served.whole


@contextlib.asynccontextmanager
async def ledger_stuck(floor: Floor) -> AsyncIterator[None]:
    """For the block nothing can be held or captured; who still waits for it then, does so in vain.

    Else the server would end and commit what a killed broker had sent it.
    """
    blocked = (
        "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    connection = await asyncpg.connect(floor.database_url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM balances FOR UPDATE")
            yield
            assert await floor.rows(f"SELECT pg_terminate_backend(pid) {blocked}")

            async def gone() -> bool:
                return not await floor.rows(f"SELECT 1 {blocked}")

            await until(gone)
    finally:
        await connection.close()


async def _check_kill(floor: Floor, crowd: Crowd) -> None:
    settlements = await floor.settlements()
    holds = {row["call_id"] for row in await floor.rows("SELECT call_id FROM holds")}
    assert holds == set(settlements)
    whole = [told for told in crowd.told if told.whole]
    for told in whole:
        assert told.call_id is not None
        settled = settlements[told.call_id]
        assert (settled["kind"], settled["charge_nanos"]) == ("captured", told.cost_nanos)
    kinds = {row["kind"] for row in settlements.values()}
    assert kinds == {"captured", "released"}
    cut = [told for told in crowd.endless if told.call_id is not None]
    assert len(cut) == 2, "the streams said who they are"
    for told in cut:
        assert told.call_id is not None
        assert settlements[told.call_id]["kind"] == "released"
        assert (await floor.story(told.call_id))["end"] == "released"
    # What was captured without its caller seeing the end is told to whoever asks.
    records = {row["id"]: row for row in await floor.rows("SELECT * FROM calls")}
    for call_id, settled in settlements.items():
        if settled["kind"] == "captured":
            assert records[call_id]["charge_nanos"] == settled["charge_nanos"]
    charged = sum(row["charge_nanos"] for row in settlements.values())
    [shop] = await floor.rows(
        "SELECT b.* FROM balances b JOIN ledger_accounts a ON a.id = b.ledger_account_id"
        " WHERE a.kind = 'funds'"
    )
    assert (shop["posted_nanos"], shop["held_nanos"]) == (FUNDS_NANOS - charged, 0)
    assert await broken_invariants(floor.database_url) == []


async def test_a_broker_that_is_asked_to_stop_finishes_what_it_began(floor: Floor) -> None:
    broker = await floor.open_broker()
    streaming, whole = Stall("acme", "stream"), Stall("acme", "whole")
    await floor.list_stalls(streaming, whole)
    streaming.behave(output_tokens=30, tokens_per_s=5.0)
    whole.behave(ttft_ms=6_000)
    client = floor.client(max_retries=0)
    calls = [asyncio.create_task(listen(client, Told(), **chat("stream"))) for _ in range(8)]
    calls += [asyncio.create_task(ask(client, Told(), **chat("whole"))) for _ in range(8)]

    async def under_way() -> bool:
        return streaming.server.in_flight == whole.server.in_flight == 8

    await until(under_way)
    broker.ask_to_stop()

    async def unready() -> bool:
        try:
            async with httpx.AsyncClient() as http:
                return (await http.get(f"{broker.url}/health/ready")).status_code == 503
        except (httpx.ConnectError, httpx.ReadError):  # no longer listening, or just about
            return True

    await until(unready)
    assert not any(call.done() for call in calls), "it is unready before its calls have ended"
    answers = await asyncio.gather(*calls)
    await broker.stop()
    assert all(told.whole for told in answers)
    settlements = await floor.settlements()
    # Of holds that were opened ahead of calls, none of these tells a charge.
    charged = {id_: row["charge_nanos"] for id_, row in settlements.items() if row["charge_nanos"]}
    assert charged == {told.call_id: told.cost_nanos for told in answers}
    assert len(charged) == 16
    assert await floor.held() == 0
    assert await floor.rows("SELECT 1 FROM broker_processes") == [], "its lease is given up"


async def test_a_broker_that_waits_for_its_database_to_begin_can_be_told_to_end(
    tmp_path: Path,
) -> None:
    waits = asyncio.Event()

    async def hold_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waits.set()
        await reader.read()
        writer.close()

    # As a database that hangs: it lets in, and says nothing.
    async with await asyncio.start_server(hold_on, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        env = os.environ | {
            "DATABASE_URL": f"postgresql://broker@127.0.0.1:{port}/broker",
            "VALKEY_URL": "redis://127.0.0.1:1",
            "BROKER_SECRET_KEY": "ab" * 32,
        }
        for workers in (1, 2):
            waits.clear()
            broker = BrokerProcess(env, tmp_path / "log", free_port(), workers)
            starting = asyncio.create_task(broker.start())
            async with asyncio.timeout(PATIENCE_S):
                await waits.wait()
            starting.cancel()
            await asyncio.wait([starting])
            broker.ask_to_stop()
            async with asyncio.timeout(WITHIN_S):
                assert await broker.child.wait() == 0
            assert "Traceback" not in broker.log.read_text()


@dataclass
class Servers:
    """A floor on a PostgreSQL and a Valkey of its own."""

    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey
    floor: Floor
    stall: Stall


@pytest.fixture(scope="module")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Servers]:
    """Servers that a test may stop and start again: their ports stay."""
    with passable_folder(memory()) as folder, passable_folder() as other:
        async with (
            EmbeddedPostgres(folder, port=free_port(), durable=False) as postgres,
            EmbeddedValkey(other, port=free_port(), durable=False) as valkey,
        ):
            await upgrade(postgres.url)
            logs = tmp_path_factory.mktemp("floor")
            async with Floor(postgres.url, valkey.url, logs) as floor:
                await floor.open_broker(BROKER_HEARTBEAT_INTERVAL_MS="200")
                stall = Stall("acme", "steady")
                await floor.list_stalls(stall)
                yield Servers(postgres, valkey, floor, stall)
            assert await broken_invariants(postgres.url) == []


async def test_without_valkey_calls_go_on_and_nobody_is_ejected(servers: Servers) -> None:
    floor = servers.floor
    client = floor.client(max_retries=0)
    await servers.valkey.stop()
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + 1.5  # twice as long as it takes to miss three heartbeats
    while loop.time() < ends_at:
        assert (await ask(client, Told(), **chat("steady"))).whole
        assert (await floor.market())["acme/steady"]["health"] == "ready"
        await asyncio.sleep(0.05)
    await servers.valkey.start()
    assert (await ask(client, Told(), **chat("steady"))).whole


async def test_without_postgres_new_calls_are_told_to_come_again_and_old_ones_end(
    servers: Servers,
) -> None:
    floor, stall = servers.floor, servers.stall
    client = floor.client(max_retries=0)
    stall.behave(tokens_per_s=20.0, output_tokens=40)
    begun = asyncio.create_task(listen(client, Told(), **chat("steady")))

    async def under_way() -> bool:
        return stall.server.in_flight == 1

    await until(under_way)
    await servers.postgres.stop()
    for _ in range(3):
        with pytest.raises(openai.InternalServerError) as refused:
            await ask(client, Told(), **chat("steady"))
        assert refused.value.status_code == 503
        assert int(refused.value.response.headers["retry-after"]) >= 1
    readiness = await floor.http().get("/health/ready")
    assert (readiness.status_code, readiness.json()["database"]) == (503, "cannot be reached")
    await servers.postgres.start()
    told = await begun
    assert told.call_id is not None
    assert (await floor.settlement(told.call_id))["charge_nanos"] == told.cost_nanos
    stall.behave()

    async def serves_again() -> bool:
        again = await try_to(ask, client, Told(), **chat("steady"))
        assert again.whole or getattr(again.failure, "status_code", None) == 503
        return again.whole

    await until(serves_again)
