"""What processes tell each other through Valkey, and what is left of it while Valkey is away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from uuid import UUID

import numpy as np
import redis.asyncio
from structlog.testing import capture_logs

from broker.core.market import Presence
from broker.live.beats import FORGOTTEN_AFTER_MS, Beats
from broker.live.connection import Valkey
from broker.live.loads import Counts
from broker.live.room import Live
from broker.live.sheet import Beat, Roster, judge
from pricing.book import PriceBook
from tests.integration.live.passage import Passage
from tests.waiting import until

A, B, C, D = (UUID(int=each) for each in range(1, 5))


def beat(deployment_id: UUID, sequence: int, **changes) -> Beat:
    return Beat(deployment_id, sequence, **({"status": "ready", "interval_ms": 1_000} | changes))


def counts(*in_flight: int, refused_per_s: float = 0.0, service_s: float = 2.0) -> Counts:
    return Counts(
        np.array(in_flight, dtype=np.int64),
        np.full(len(in_flight), refused_per_s),
        np.full(len(in_flight), service_s),
    )


def book(version: int, rate_in_micros: int = 100) -> PriceBook:
    rate = np.array([rate_in_micros], dtype=np.int64)
    return PriceBook(version, rate, rate, np.zeros(1, dtype=np.int64))


@contextlib.asynccontextmanager
async def listening(live: Live):
    """Have a process listen to the feed, and count what it hears."""
    heard: list[PriceBook | None] = []
    task = asyncio.create_task(live.books.listen(lambda: heard.append(live.books.newest)))
    try:
        await until(lambda: live.books.listening)
        yield heard
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_beat_that_one_process_took_is_known_to_the_other(here, there):
    told = beat(A, 7, status="draining", running=3, waiting=2, kv_usage=0.5)
    assert await here.beats.accept([told]) == [True]
    sheet = await there.beats.load()
    heard = sheet.beat(A)
    assert (heard.sequence, heard.status, heard.interval_ms) == (7, "draining", 1_000)
    assert (heard.running, heard.waiting, heard.kv_usage) == (3, 2, 0.5)
    assert there.beats.last_sequence(A) == 7
    assert sheet.fresh().tolist() == [True]


async def test_a_beat_is_not_accepted_twice_whichever_process_it_comes_to(here, there):
    big = 1_700_000_000_000_000_000
    assert await here.beats.accept([beat(A, big)]) == [True]
    assert await there.beats.accept([beat(A, big), beat(B, 1)]) == [False, True]
    assert await there.beats.accept([beat(A, big + 1)]) == [True]
    assert await here.beats.accept([beat(A, big + 1)]) == [False]


class Overtaken(Valkey):
    """One whose next answer is overtaken by that to another question."""

    sooner: Callable[[], Awaitable[object]] | None = None

    async def ask(self, question, fallback):
        """Ask the other before the answer is given."""
        answer = await super().ask(question, fallback)
        sooner, self.sooner = self.sooner, None
        if sooner is not None:
            await sooner()
        return answer


async def test_a_beat_is_accepted_though_it_was_heard_back_before_the_answer(valkey_url):
    valkey = Overtaken(valkey_url)
    beats = Beats(valkey)
    valkey.sooner = beats.load
    assert await beats.accept([beat(A, 7)]) == [True]
    assert beats.last_sequence(A) == 7
    assert await beats.accept([beat(A, 7)]) == [False]
    await valkey.close()


async def test_of_what_is_known_only_what_has_come_since_is_told(here, there, passage: Passage):
    rare = {"interval_ms": 60_000}
    await there.beats.accept([beat(A, 1, **rare), beat(B, 1, **rare)])
    assert (await here.beats.load()).ids == {A, B}
    before = here.beats.sheet()
    await make_old(there, A)
    await there.beats.accept([beat(B, 2, status="draining", **rare)])
    after = await here.beats.load()
    assert after.beat(A) == before.beat(A), "what is told again is of another time"
    assert (after.beat(B).sequence, after.beat(B).status) == (2, "draining")
    await there.valkey.ask(lambda client: client.delete(there.beats.key + ":since"), None)
    await there.beats.accept([beat(A, 2, **rare)])
    await passage.close()
    await here.beats.load()
    await there.valkey.ask(lambda client: client.delete(there.beats.key + ":since"), None)
    await passage.open()
    await until(lambda: back(here))
    assert (await here.beats.load()).beat(A).sequence == 2, "after a break all is told anew"


async def test_one_that_left_when_beats_were_frequent_has_not_all_told_again_and_again(here, there):
    await there.beats.accept([beat(A, 1, interval_ms=1)])
    await there.beats.accept([beat(B, 1, interval_ms=60_000)])

    async def has_left() -> bool:
        sheet = await here.beats.load()
        return bool(sheet.ids) and sheet.fresh().sum() == 1

    await until(has_left)
    known = (await here.beats.load()).beat(B)
    await make_old(there, B)
    for _ in range(3):
        assert (await here.beats.load()).beat(B) == known, "what is told again is of another time"


async def stored(live: Live) -> tuple[set[UUID], set[UUID]]:
    """Of whom Valkey has a beat, and of whom it knows when the last came."""
    beats = await live.valkey.ask(lambda client: client.hkeys(live.beats.key), [])
    since = await live.valkey.ask(lambda c: c.zrange(live.beats.key + ":since", 0, -1), [])
    return {UUID(bytes=each) for each in beats}, {UUID(bytes=each) for each in since}


async def make_old(live: Live, *deployments: UUID) -> None:
    """Have it that their beats came long ago."""
    for each in deployments:
        value = await live.valkey.ask(lambda c, e=each: c.hget(live.beats.key, e.bytes), None)
        stamp = b"%015d" % (int(value[20:35]) - FORGOTTEN_AFTER_MS - 1)
        old = value[:20] + stamp + value[35:]
        await live.valkey.ask(lambda c, e=each, o=old: c.hset(live.beats.key, e.bytes, o), 0)


async def test_who_is_long_dead_and_not_listed_is_forgotten_everywhere(here, there):
    await there.beats.accept([beat(each, 5) for each in (A, B, C, D)])
    await make_old(there, A, B, D)
    await here.beats.load()
    await there.beats.accept([beat(D, 6)])
    await here.beats.forget({B})
    assert await stored(there) == ({B, C, D}, {B, C, D}), "B is listed, C is fresh, D is back"
    assert here.beats.sheet().ids == {B, C}
    assert (await here.beats.load()).ids == {B, C, D}


async def test_who_was_forgotten_may_come_back(here, there):
    await there.beats.accept([beat(A, 5)])
    await make_old(there, A)
    await here.beats.load()
    await here.beats.forget(())
    assert await stored(there) == (set(), set())
    assert await here.beats.accept([beat(A, 6)]) == [True]
    assert (await there.beats.load()).beat(A).sequence == 6


async def test_beats_go_on_in_one_process_while_valkey_is_away(here, there, passage: Passage):
    await here.beats.accept([beat(A, 1), beat(B, 1)])
    await passage.close()
    assert await here.beats.accept([beat(A, 2)]) == [True]
    assert await here.beats.accept([beat(A, 2)]) == [False], "a replay is one without Valkey too"
    sheet = await here.beats.load()
    assert sheet.reachable_since_ms is None
    assert sheet.beat(A).sequence == 2
    assert judge(sheet, Roster({A: 0, B: 1}), {1: Presence.DRAINING}) == {}
    await passage.open()
    await until(lambda: back(here))
    await here.beats.accept([beat(A, 3)])
    assert (await there.beats.load()).beat(A).sequence == 3


async def back(live: Live) -> bool:
    """True once Valkey answers again."""
    return (await live.beats.load()).reachable_since_ms is not None


async def test_an_empty_valkey_does_not_wipe_what_is_known(here, there, valkey_url):
    await here.beats.accept([beat(A, 5)])
    await there.valkey.ask(lambda client: client.flushall(), None)
    assert (await here.beats.load()).beat(A).sequence == 5
    assert await here.beats.accept([beat(A, 4)]) == [False]


async def test_loads_of_all_processes_are_summed(here, there):
    await here.loads.exchange(counts(1, 0, 4, refused_per_s=1.0, service_s=1.0))
    await there.loads.exchange(counts(0, 0, 3, service_s=8.0))
    await here.loads.exchange(counts(2, 0, 4, refused_per_s=1.0, service_s=1.0))
    total = here.loads.total(4)
    assert total.in_flight.tolist() == [2, 0, 7, 0]
    assert total.refused_per_s.tolist() == [1.0, 1.0, 1.0, 0.0]
    assert total.service_s[2] == (5 * 1.0 + 3 * 8.0) / 8
    assert here.loads.others(3).in_flight.tolist() == [0, 0, 3]
    assert there.loads.others(1).in_flight.tolist() == [1], "as of its own last exchange"


async def test_a_process_that_left_counts_no_more(here, there):
    await there.loads.exchange(counts(5))
    await here.loads.exchange(counts(1))
    assert here.loads.total(1).in_flight.tolist() == [6]
    await there.loads.leave()
    await here.loads.exchange(counts(1))
    assert here.loads.total(1).in_flight.tolist() == [1]


async def test_own_calls_count_while_valkey_is_away(here, passage: Passage):
    await passage.close()
    await here.loads.exchange(counts(3))
    assert here.loads.total(1).in_flight.tolist() == [3]


async def test_ejections_are_told_and_taken_back(here, there):
    await there.ejections.exchange({4, 9})
    await here.ejections.exchange(())
    assert here.ejections.elsewhere() == frozenset({4, 9})
    assert there.ejections.elsewhere() == frozenset()
    await there.ejections.exchange({9})
    await here.ejections.exchange(())
    assert here.ejections.elsewhere() == frozenset({9})


async def test_a_published_book_arrives_and_an_older_one_does_not(here, there):
    async with listening(here) as heard:
        assert await there.books.publish(book(2, 200))
        await until(lambda: heard)
        assert heard[0].version == 2
        assert heard[0].rate(0).rate_in_micros == 200
        assert not await there.books.publish(book(1))
        assert await there.books.publish(book(10))
        await until(lambda: len(heard) == 2)
        assert [each.version for each in heard] == [2, 10]


async def test_of_two_books_the_one_of_the_later_epoch_is_newer(here, there):
    async with listening(here) as heard:
        assert await there.books.publish(book(7), 100)
        assert await there.books.publish(book(3), 200)
        await until(lambda: len(heard) == 2)
        assert not await there.books.publish(book(9), 100)
        assert not await there.books.publish(book(2), 200)
        assert await there.books.publish(book(4), 200)
        await until(lambda: len(heard) == 3)
        assert [each.version for each in heard] == [7, 3, 4]
        assert here.books.epoch == 200


async def test_who_listens_late_or_comes_back_learns_the_last_book(here, there, passage: Passage):
    await there.books.publish(book(3))
    async with listening(here) as heard:
        await until(lambda: heard)
        await passage.close()
        await until(lambda: not here.books.listening)
        await there.books.publish(book(4))
        await passage.open()
        await until(lambda: len(heard) == 2)
        assert [each.version for each in heard] == [3, 4]


async def test_nonsense_in_the_feed_is_passed_over(here, there):
    async with listening(here) as heard:
        key = there.valkey.key("book")
        await there.valkey.ask(lambda client: client.publish(key, b"nonsense"), 0)
        await there.books.publish(book(1))
        await until(lambda: heard)
        assert heard[0].version == 1


async def test_that_valkey_is_away_and_back_is_said_once(passage: Passage, here):
    with capture_logs() as logs:
        await here.loads.exchange(counts(1))
        await passage.close()
        for _ in range(5):
            await here.loads.exchange(counts(1))
            await here.ejections.exchange(())
            assert not await here.books.publish(book(1))
        assert not here.valkey.reachable
        await passage.open()
        await until(lambda: back(here))
    assert [each["log_level"] for each in logs] == ["warning", "info"]


async def test_nobody_waits_for_a_valkey_that_is_silent(passage: Passage) -> None:
    now_s = 0.0
    valkey = Valkey(passage.url, timeout_s=0.2, now_s=lambda: now_s)

    async def ping(client: redis.asyncio.Redis) -> bool:
        return bool(await client.ping())

    def answered_at_once() -> bool:
        asking = valkey.ask(ping, False)
        try:
            asking.send(None)
        except StopIteration as end:
            return end.value is False
        asking.close()
        return False

    assert await valkey.ask(ping, False)
    passage.freeze()
    assert not await valkey.ask(ping, False)
    for _ in range(4):
        now_s += 60.0  # long enough for it to be looked for again
        assert answered_at_once()
        await asyncio.sleep(0.25)
        assert not valkey.reachable
    await passage.close()
    await passage.open()

    async def is_back() -> bool:
        nonlocal now_s
        now_s += 60.0
        return await valkey.ask(ping, False)

    await until(is_back)
    await valkey.close()


async def test_a_valkey_that_takes_no_writes_is_away_until_it_does(
    valkey_url: str, here: Live
) -> None:
    office = redis.asyncio.from_url(valkey_url)
    try:
        with capture_logs() as logs:
            await office.config_set("maxmemory", "1")
            for _ in range(20):
                await here.loads.exchange(counts(1))
                await asyncio.sleep(0.05)
            assert not here.valkey.reachable
            await office.config_set("maxmemory", "0")
            await until(lambda: back(here))
    finally:
        await office.config_set("maxmemory", "0")
        await office.aclose()
    assert [each["log_level"] for each in logs] == ["warning", "info"]


async def test_markets_on_one_valkey_keep_apart(valkey_url):
    one, other = Live.connect(valkey_url, "one"), Live.connect(valkey_url, "other")
    await one.beats.accept([beat(A, 1)])
    assert (await other.beats.load()).ids == set()
    await one.close()
    await other.close()
