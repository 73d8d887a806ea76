"""Heartbeats: each is believed on its own merits, in any process, whatever else is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.flows.market.heartbeat import TOGETHER, HeartbeatDesk, interval_ms
from broker.live.room import Live
from broker.store.database import create_engine
from broker.store.market import catalog
from broker.store.market.catalog import Registration
from broker.store.sealing import Sealer
from provider_sdk.protocol import (
    REPLAY_WINDOW_MS,
    REPORTED_CALLS_MAX,
    Heartbeat,
    HeartbeatBatch,
    HeartbeatResult,
    LoadReport,
    SignedHeartbeat,
)
from provider_sdk.signing import sign
from tests.integration.catalog.offers import NOW, SEALER, endpoint_offer, offer, register

NOW_S = 1_800_000_000.0


@dataclass
class Time:
    """A wall clock that stands until it is moved."""

    now_s: float = NOW_S

    def __call__(self) -> float:
        return self.now_s


class LateEngine:
    """An engine whose first connection is given back only when it may be."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.has_read, self.may_end = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        async with self._engine.connect() as connection:
            yield connection
            if not self.has_read.is_set():
                self.has_read.set()
                await self.may_end.wait()


class HungEngine:
    """An engine that connects to nothing, and takes its time to say so."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_asked, self.may_fail = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        self.asked += 1
        self.is_asked.set()
        await self.may_fail.wait()
        raise ConnectionError
        yield


@pytest.fixture
def wall() -> Time:
    """The brokers' wall clock."""
    return Time()


@pytest.fixture
def monotonic() -> Time:
    """The brokers' monotonic clock."""
    return Time(1_000.0)


@pytest.fixture
def desk(engine, here, wall, monotonic) -> HeartbeatDesk:
    """One process's desk."""
    return HeartbeatDesk(engine, SEALER, here.beats, 1_000, wall_s=wall, now_s=monotonic)


@pytest.fixture
async def gpu1(engine, acme) -> Registration:
    """A registered deployment."""
    return await register(engine, acme, offer())


def signed(of: Registration, sequence: int, key: bytes | None = None, **changes) -> SignedHeartbeat:
    heartbeat = Heartbeat(
        deployment_id=str(of.deployment_id),
        sequence=sequence,
        sent_at_ms=int(NOW_S * 1_000),
        status="ready",
    )
    heartbeat = msgspec.structs.replace(heartbeat, **changes)
    return sign(heartbeat, (key or of.signing_key).hex())


async def beat(desk: HeartbeatDesk, *heartbeats: SignedHeartbeat) -> list[HeartbeatResult]:
    return (await desk.receive(HeartbeatBatch(heartbeats=list(heartbeats)))).results


async def reasons(desk: HeartbeatDesk, *heartbeats: SignedHeartbeat) -> list[str]:
    return [each.reason for each in await beat(desk, *heartbeats)]


async def test_a_signed_heartbeat_is_accepted_and_kept(desk, gpu1, here: Live):
    load = LoadReport(running=3, waiting=1, kv_usage=0.25)
    (result,) = await beat(desk, signed(gpu1, 1, status="draining", load=load))
    assert result.accepted
    assert result.deployment_id == str(gpu1.deployment_id)
    kept = (await here.beats.load()).beat(gpu1.deployment_id)
    assert (kept.status, kept.running, kept.waiting, kept.kv_usage) == ("draining", 3, 1, 0.25)


async def test_a_replayed_heartbeat_is_refused_in_every_process(desk, gpu1, engine, there, wall):
    other = HeartbeatDesk(engine, SEALER, there.beats, 1_000, wall_s=wall)
    told = signed(gpu1, 5)
    assert await reasons(desk, told) == [""]
    assert await reasons(desk, told) == ["replayed"]
    assert await reasons(other, told, signed(gpu1, 4)) == ["replayed", "replayed"]
    assert await reasons(other, signed(gpu1, 6)) == [""]


async def test_one_bad_heartbeat_does_not_spoil_the_batch(desk, gpu1, engine, acme):
    second = offer(name="gpu2", endpoints=[endpoint_offer(name="med")])
    gpu2 = await register(engine, acme, second)
    results = await beat(desk, signed(gpu1, 1, key=gpu2.signing_key), signed(gpu2, 1))
    assert [(each.accepted, each.reason) for each in results] == [
        (False, "bad_signature"),
        (True, ""),
    ]


async def test_an_altered_text_is_refused(desk, gpu1):
    told = signed(gpu1, 1)
    altered = told.heartbeat_json.replace("ready", "down")
    assert altered != told.heartbeat_json
    forged = msgspec.structs.replace(told, heartbeat_json=altered)
    assert await reasons(desk, forged) == ["bad_signature"]


@pytest.mark.parametrize("sign_of_skew", [-1, 1])
async def test_a_clock_that_is_off_is_named(desk, gpu1, sign_of_skew):
    now_ms = int(NOW_S * 1_000)
    within = now_ms + sign_of_skew * (REPLAY_WINDOW_MS - 1_000)
    assert await reasons(desk, signed(gpu1, 1, sent_at_ms=within)) == [""]
    beyond = now_ms + sign_of_skew * (REPLAY_WINDOW_MS + 1_000)
    assert await reasons(desk, signed(gpu1, 2, sent_at_ms=beyond)) == ["clock_skew"]


async def test_a_sequence_beyond_all_bounds_is_malformed(desk, gpu1):
    assert await reasons(desk, signed(gpu1, 2**63)) == ["malformed"]
    assert await reasons(desk, signed(gpu1, 2**63 - 1)) == [""]


@pytest.mark.parametrize("count", [-1, REPORTED_CALLS_MAX + 1, 2**63, 2**64, 10**400])
async def test_a_load_beyond_all_bounds_is_malformed_and_spoils_no_batch(
    desk, gpu1, engine, acme, count
):
    second = offer(name="gpu2", endpoints=[endpoint_offer(name="med")])
    gpu2 = await register(engine, acme, second)
    loads = (LoadReport(running=count), LoadReport(running=1, waiting=count))
    for sequence, load in enumerate(loads, 1):
        nonsense = signed(gpu1, 1, load=load)
        assert await reasons(desk, nonsense, signed(gpu2, sequence)) == ["malformed", ""]
    load = LoadReport(running=REPORTED_CALLS_MAX, waiting=REPORTED_CALLS_MAX)
    assert await reasons(desk, signed(gpu1, 1, load=load)) == [""]


async def test_an_unknown_deployment_is_asked_to_register_again(desk, gpu1):
    stranger = signed(gpu1, 1, deployment_id=str(uuid4()))
    nonsense = msgspec.structs.replace(stranger, deployment_id="nonsense")
    for result in await beat(desk, stranger, nonsense):
        assert (result.accepted, result.reason) == (False, "unknown_deployment")
        assert result.register_again


async def test_a_deployment_that_registers_later_is_found(desk, gpu1, engine, acme, monotonic):
    assert await reasons(desk, signed(gpu1, 1)) == [""]
    second = offer(name="gpu2", endpoints=[endpoint_offer(name="med")])
    gpu2 = await register(engine, acme, second)
    monotonic.now_s += 1.0
    assert await reasons(desk, signed(gpu2, 1)) == [""]


async def test_a_withdrawn_deployment_is_unknown_once_the_change_is_heard(
    desk, gpu1, engine, acme, monotonic
):
    assert await reasons(desk, signed(gpu1, 1)) == [""]
    async with engine.begin() as connection:
        await catalog.withdraw(connection, acme.id, gpu1.deployment_id, NOW)
    desk.forget_keys()
    monotonic.now_s += 1.0
    assert await reasons(desk, signed(gpu1, 2)) == ["unknown_deployment"]


async def test_where_the_catalog_has_changed_only_keys_that_did_are_opened(
    engine, here, wall, monotonic, acme
):
    """Of ten thousand deployments one is somebody's news all the time."""

    class Counting(Sealer):
        """A sealer that counts what it opens."""

        opened = 0

        def open(self, sealed: bytes, bound_to: str) -> bytes:
            self.opened += 1
            return super().open(sealed, bound_to)

    sealer = Counting("ab" * 32)
    desk = HeartbeatDesk(engine, sealer, here.beats, 1_000, wall_s=wall, now_s=monotonic)
    there = [
        await register(
            engine, acme, offer(name=f"gpu{at}", endpoints=[endpoint_offer(name=f"e{at}")])
        )
        for at in range(5)
    ]
    assert await reasons(desk, *(signed(each, 1) for each in there)) == [""] * 5
    assert sealer.opened == 5
    changed = offer(name="gpu3", capacity=7, endpoints=[endpoint_offer(name="e3")])
    there[3] = await register(engine, acme, changed)
    async with engine.begin() as connection:
        await catalog.withdraw(connection, acme.id, there[1].deployment_id, NOW)
    desk.forget_keys()
    monotonic.now_s += 1.0
    told = await reasons(desk, *(signed(each, 2) for each in there))
    assert told == ["", "unknown_deployment", "", "", ""]
    assert sealer.opened == 6


async def test_whom_a_restored_backup_does_not_know_is_unknown(desk, gpu1, engine, acme, monotonic):
    second = await register(engine, acme, offer(name="g2", endpoints=[endpoint_offer(name="b")]))
    third = await register(engine, acme, offer(name="g3", endpoints=[endpoint_offer(name="c")]))
    assert await reasons(desk, *(signed(each, 1) for each in (gpu1, second, third))) == [""] * 3
    async with engine.begin() as connection:
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        gone = {"id": second.deployment_id}
        await connection.execute(text("DELETE FROM deployments WHERE id = :id"), gone)
    desk.forget_keys()
    monotonic.now_s += 1.0
    told = await reasons(desk, *(signed(each, 2) for each in (gpu1, second, third)))
    assert told == ["", "unknown_deployment", ""]


async def test_a_strangers_id_makes_no_other_key_load_anew(desk, gpu1, engine, acme, monotonic):
    assert await reasons(desk, signed(gpu1, 1)) == [""]
    async with engine.begin() as connection:
        await catalog.withdraw(connection, acme.id, gpu1.deployment_id, NOW)
    for sequence, stranger in enumerate((str(UUID(int=9)), "no id"), 2):
        monotonic.now_s += 1.0
        (unknown,) = await beat(desk, signed(gpu1, 1, deployment_id=stranger))
        assert (unknown.reason, unknown.register_again) == ("unknown_deployment", True)
        assert await reasons(desk, signed(gpu1, sequence)) == [""], "the change is not heard of yet"


async def test_a_newcomer_is_found_behind_more_strangers_than_are_examined_together(
    desk, gpu1, engine, acme, monotonic
):
    assert await reasons(desk, signed(gpu1, 1)) == [""]
    gpu2 = await register(engine, acme, offer(name="gpu2", endpoints=[endpoint_offer(name="med")]))
    monotonic.now_s += 1.0
    strangers = [signed(gpu1, 1, deployment_id=str(uuid4())) for _ in range(TOGETHER)]
    assert await reasons(desk, *strangers, signed(gpu2, 1)) == [
        *["unknown_deployment"] * TOGETHER,
        "",
    ]


async def test_a_late_look_for_a_stranger_puts_no_older_keys_back(
    desk, gpu1, engine, acme, monotonic
):
    assert await reasons(desk, signed(gpu1, 1)) == [""]
    monotonic.now_s += 1.0
    desk._engine = late = LateEngine(engine)
    strange = signed(gpu1, 1, deployment_id=str(uuid4()))
    looking = asyncio.create_task(beat(desk, strange))
    await late.has_read.wait()
    async with engine.begin() as connection:
        await catalog.withdraw(connection, acme.id, gpu1.deployment_id, NOW)
    desk.forget_keys()
    loading = asyncio.create_task(beat(desk, signed(gpu1, 2)))
    await asyncio.wait([loading], timeout=0.3)  # it may end before the look, or wait for it
    late.may_end.set()
    await asyncio.gather(looking, loading)
    assert await reasons(desk, signed(gpu1, 3)) == ["unknown_deployment"]


async def test_known_deployments_go_on_while_a_look_for_a_stranger_hangs(desk, gpu1, monotonic):
    assert await reasons(desk, signed(gpu1, 1)) == [""]
    monotonic.now_s += 1.0
    desk._engine = hung = HungEngine()
    strangers = [signed(gpu1, 1, deployment_id=str(uuid4())) for _ in range(3)]
    first = asyncio.create_task(beat(desk, strangers[0]))
    await hung.is_asked.wait()
    desk.forget_keys()  # there is news, which the database cannot tell
    others = [asyncio.create_task(beat(desk, each)) for each in strangers[1:]]
    async with asyncio.timeout(5):
        assert await reasons(desk, signed(gpu1, 2)) == [""]
        monotonic.now_s += 60.0
        hung.may_fail.set()
        await asyncio.gather(first, *others)
    assert hung.asked == 1, "who waited goes by what became of it"


async def test_known_deployments_go_on_while_the_database_is_away(gpu1, database_url, here, wall):
    engine = create_engine(database_url)
    clock = Time(0.0)
    desk = HeartbeatDesk(engine, SEALER, here.beats, 1_000, wall_s=wall, now_s=clock)
    assert await reasons(desk, signed(gpu1, 1)) == [""]
    await engine.dispose()
    away = create_engine("postgresql://nobody@127.0.0.1:1/none")
    desk._engine = away
    clock.now_s += 10.0
    stranger = signed(gpu1, 1, deployment_id=str(UUID(int=9)))
    known, unknown = await beat(desk, signed(gpu1, 2), stranger)
    assert known.accepted
    assert not unknown.register_again, "it may be registered: nobody can tell"
    await away.dispose()


async def test_heartbeats_are_taken_while_valkey_is_away(desk, gpu1, here, passage):
    await passage.close()
    assert await reasons(desk, signed(gpu1, 1)) == [""]
    assert await reasons(desk, signed(gpu1, 1)) == ["replayed"]
    assert here.beats.sheet().beat(gpu1.deployment_id).sequence == 1


def test_the_interval_grows_with_the_number_of_deployments():
    intervals = [interval_ms(1_000, number) for number in (1, 200, 201, 2_000, 100_000)]
    assert intervals == [1_000, 1_000, 1_005, 10_000, 30_000]
    assert interval_ms(60_000, 1) == 60_000


@pytest.mark.parametrize("jump_s", [3_600.0, -3_600.0])
async def test_a_clock_that_jumps_here_takes_nobody_off_the_market(
    desk, gpu1, wall, monotonic, jump_s
):
    assert await reasons(desk, signed(gpu1, 1)) == [""]
    wall.now_s += jump_s
    monotonic.now_s += 10.0
    sent_at_ms = int((NOW_S + 10.0) * 1_000)
    assert await reasons(desk, signed(gpu1, 2, sent_at_ms=sent_at_ms)) == [""]
    wrong = int((NOW_S + jump_s / 2) * 1_000)
    assert await reasons(desk, signed(gpu1, 3, sent_at_ms=wrong)) == ["clock_skew"]


async def test_a_clock_that_was_wrong_at_first_is_believed_once_it_is_set_right(
    engine, here, gpu1, wall, monotonic
):
    wall.now_s -= 3_600.0
    desk = HeartbeatDesk(engine, SEALER, here.beats, 1_000, wall_s=wall, now_s=monotonic)
    assert await reasons(desk, signed(gpu1, 1)) == ["clock_skew"]
    wall.now_s += 3_600.0
    assert await reasons(desk, signed(gpu1, 2)) == [""]
