"""Two processes agree on what each has under way, faster than a caller can tell them apart."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from uuid import UUID

import numpy as np
import pytest

from broker.core.health.breaker import CONSECUTIVE
from broker.core.health.pulse import Pulse
from broker.core.key_terms import KeyTerms
from broker.core.outcome import Fault, Outcome
from broker.errors import TooManyCalls
from broker.flows.access.keyring import Keyring
from broker.flows.market.agree import Accord, own_of
from broker.live.bulletin import QUIET_MS, STALE_MS, Bulletin
from broker.live.loads import RefusalMeter
from broker.live.room import Live
from broker.store.access.accounts import Role
from broker.store.access.key_text import sha256_of
from broker.store.access.keys import StoredKey
from tests.integration.live.passage import Passage
from tests.waiting import until

KEY = StoredKey(
    id="one",
    account_id=UUID(int=1),
    account_name="shop",
    role=Role.CONSUMER,
    funds=UUID(int=2),
    terms=KeyTerms(calls_max=3),
    secret_sha256=sha256_of("secret"),
)


class Process:
    """What one process counts, and the accord that it keeps with the others."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.pulse = Pulse()
        self.pulse.fit(2, 2)
        self.keyring = Keyring()
        self.keyring.swap({KEY.id: KEY})
        self.exchanges = 0
        meter = RefusalMeter(1.0)
        self.accord = Accord(
            live,
            lambda: own_of(self.pulse, meter, time.monotonic(), self.keyring),
            self._heard,
            tick_s=1.0,
        )

    def _heard(self) -> None:
        self.exchanges += 1
        in_flight = self.live.loads.others(2).in_flight
        self.pulse.take_others(in_flight, self.live.ejections.elsewhere())
        self.keyring.take_others(self.live.callers.elsewhere())


@contextlib.asynccontextmanager
async def agreeing(*processes: Process) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each.accord.run(time.monotonic)) for each in processes]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_one_process_has_under_way_the_other_counts(here, there) -> None:
    one, other = Process(here), Process(there)
    async with agreeing(one, other):
        await until(lambda: one.live.loads.in_company and other.live.loads.in_company)
        one.pulse.begin(1, 1, 0.0)
        one.pulse.begin(1, 1, 0.0)
        await until(lambda: other.pulse.load_of(1) == 2)
        one.pulse.end(1, 1, Outcome(status=200), 1.0, None)
        await until(lambda: other.pulse.load_of(1) == 1)


async def test_an_endpoint_that_one_process_ejects_is_out_for_the_other(here, there) -> None:
    one, other = Process(here), Process(there)
    async with agreeing(one, other):
        await until(lambda: one.live.loads.in_company and other.live.loads.in_company)
        for _ in range(CONSECUTIVE):
            one.pulse.begin(0, 0, time.monotonic())
            one.pulse.end(0, 0, Outcome(Fault.RESET), time.monotonic(), None)
        await until(lambda: other.pulse.doubts.has(0))
        assert not other.pulse.doubts.has(1)
        both = np.array([0, 1])
        await until(lambda: other.pulse.doubts.ejected(both, time.monotonic()) is None)
        other.pulse.begin(0, 0, time.monotonic())
        ejected = other.pulse.doubts.ejected_here(time.monotonic())
        assert ejected == {0}, "one probe, and no call beside it"


async def test_a_key_has_its_most_calls_in_all_processes_together(here, there) -> None:
    one, other = Process(here), Process(there)
    async with agreeing(one, other):
        await until(lambda: one.live.loads.in_company and other.live.loads.in_company)
        one.keyring.enter(KEY)
        one.keyring.enter(KEY)
        await until(lambda: other.live.callers.elsewhere().get("one") == 2)
        other.keyring.enter(KEY)
        with pytest.raises(TooManyCalls):
            other.keyring.enter(KEY)
        one.keyring.leave(KEY)
        await until(lambda: other.live.callers.elsewhere().get("one") == 1)
        other.keyring.enter(KEY)


async def test_a_process_alone_asks_once_a_tick_and_one_in_company_often(here, there) -> None:
    one, other = Process(here), Process(there)
    async with agreeing(one):
        await until(lambda: one.exchanges >= 1)
        seen, begun_s = one.exchanges, time.monotonic()
        await asyncio.sleep(0.3)
        assert one.exchanges <= seen + 1 + (time.monotonic() - begun_s) / 1.0
        async with agreeing(other):
            await until(lambda: one.live.loads.in_company)
            seen, begun_s = one.exchanges, time.monotonic()
            await until(lambda: one.exchanges >= seen + 10)
            assert time.monotonic() - begun_s < 10 * 1.0 / 2, "once a tick it would take ten"


async def test_while_valkey_is_away_a_process_goes_by_its_own(here, there, passage: Passage):
    one, other = Process(here), Process(there)
    async with agreeing(one, other):
        await until(lambda: one.live.loads.in_company)
        await passage.close()
        await until(lambda: not here.valkey.reachable)
        one.keyring.enter(KEY)
        one.pulse.begin(0, 0, 0.0)
        assert one.pulse.load_of(0) == 1
        await passage.open()
        await until(lambda: other.pulse.load_of(0) == 1)


async def test_the_calls_of_a_process_that_was_killed_count_no_more(here, there) -> None:
    """Its connections end with it, so nobody waits until its last word is stale."""
    one, other = Process(here), Process(there)
    async with agreeing(one):
        async with agreeing(other):
            listening = asyncio.create_task(there.books.listen(lambda: None))
            await until(lambda: there.books.listening and one.live.loads.in_company)
            other.pulse.begin(1, 1, 0.0)
            await until(lambda: one.pulse.load_of(1) == 1)
            seen = one.exchanges
            await until(lambda: one.exchanges > seen)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        begun_s = time.monotonic()
        await until(lambda: one.pulse.load_of(1) == 0)
        assert time.monotonic() - begun_s < STALE_MS / 1_000 / 2


@pytest.mark.parametrize(
    ("age_ms", "connected", "counts"),
    [
        (QUIET_MS, False, True),
        (QUIET_MS + 1, False, False),
        (QUIET_MS + 1, True, True),
        (STALE_MS, True, True),
        (STALE_MS + 1, True, False),
    ],
)
async def test_a_process_that_is_held_up_counts_on_and_one_that_is_gone_does_not(
    here, age_ms: int, connected: bool, counts: bool
) -> None:
    bulletin = Bulletin(here.valkey, "test", "own")
    said = [b"other", b"%015dword" % 1_000]
    await bulletin.hear(1_000, said, {b"other"})
    assert bulletin.others() == {b"other": b"word"}
    await bulletin.hear(1_000 + age_ms, said, {b"other"} if connected else set())
    assert bulletin.others() == ({b"other": b"word"} if counts else {})


async def test_of_one_that_was_never_seen_connected_silence_alone_tells(here) -> None:
    bulletin = Bulletin(here.valkey, "test", "own")
    said = [b"other", b"%015dword" % 1_000]
    await bulletin.hear(1_000 + QUIET_MS + 1, said, set())
    assert bulletin.others() == {b"other": b"word"}
