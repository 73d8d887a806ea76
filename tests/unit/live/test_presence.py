"""Who is out for want of heartbeats: three missed ones in a live feed, nobody in a stale one."""

from __future__ import annotations

from uuid import UUID

import msgspec
import pytest

from broker.core.market import Presence
from broker.flows.market.measure import _reports
from broker.live.beats import Beats
from broker.live.sheet import Beat, BeatSheet, BeatTable, Roster, judge

A, B, STRANGER = UUID(int=1), UUID(int=2), UUID(int=3)
NUMBERS = Roster({A: 10, B: 11})
NOW_MS = 1_000_000
LONG_AGO_MS = 1


def beat(deployment_id: UUID, age_ms: int, status="ready", interval_ms: int = 1_000) -> Beat:
    return Beat(deployment_id, 1, status, interval_ms, received_ms=NOW_MS - age_ms)


def sheet(*beats: Beat, since_ms: int | None = LONG_AGO_MS) -> BeatSheet:
    return table(*beats).sheet(NOW_MS, since_ms)


def table(*beats: Beat) -> BeatTable:
    made = BeatTable()
    for each in beats:
        made.put(each)
    return made


def test_all_are_ready_whose_beats_are_fresh():
    assert judge(sheet(beat(A, 0), beat(B, 3_400)), NUMBERS, {}) == {}


def test_three_missed_beats_are_out_and_the_next_one_is_in_again():
    out = judge(sheet(beat(A, 0), beat(B, 3_600)), NUMBERS, {})
    assert out == {11: Presence.DOWN}
    assert judge(sheet(beat(A, 0), beat(B, 100)), NUMBERS, out) == {}


def test_missed_beats_are_counted_in_the_interval_that_was_asked_for():
    assert judge(sheet(beat(A, 0), beat(B, 9_000, interval_ms=3_000)), NUMBERS, {}) == {}


def test_when_nobody_beats_nobody_is_put_out():
    assert judge(sheet(beat(A, 60_000), beat(B, 60_000)), NUMBERS, {}) == {}


def test_when_nobody_beats_any_more_who_was_out_stays_out():
    out = {11: Presence.DOWN}
    assert judge(sheet(beat(A, 60_000), beat(B, 90_000)), NUMBERS, out) == out


def test_while_valkey_is_away_nobody_is_put_out():
    heard_here = beat(A, 0)
    assert judge(sheet(heard_here, beat(B, 60_000), since_ms=None), NUMBERS, {}) == {}


def test_while_valkey_is_away_a_beat_heard_here_brings_back_who_was_out():
    out = {10: Presence.DOWN, 11: Presence.DOWN}
    assert judge(sheet(beat(A, 0), since_ms=None), NUMBERS, out) == {}
    stale = beat(B, 60_000)
    assert judge(sheet(beat(A, 0), stale, since_ms=None), NUMBERS, out) == {11: Presence.DOWN}


def test_time_in_which_nothing_could_be_heard_is_not_held_against_anybody():
    just_back = NOW_MS - 500
    assert judge(sheet(beat(A, 0), beat(B, 60_000), since_ms=just_back), NUMBERS, {}) == {}


class Feed:
    """A Valkey that takes all it is told, has nothing from others, and is the only clock."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def key(self, name: str) -> str:
        return name

    async def ask(self, question, fallback):
        return [self.now_ms, fallback[1]]

    def now_s(self) -> float:
        return self.now_ms / 1_000


async def test_of_those_who_wait_for_a_halted_broker_the_first_puts_nobody_out():
    feed = Feed()
    beats = Beats(feed, now_s=feed.now_s, wall_s=feed.now_s)
    await beats.accept([beat(A, 0), beat(B, 0)])
    for halted, out in ((True, {}), (False, {11: Presence.DOWN})):
        feed.now_ms += 6_000
        if halted:
            beats.miss()
        await beats.accept([msgspec.structs.replace(beat(A, 0), sequence=feed.now_ms)])
        assert judge(await beats.load(), NUMBERS, {}) == out


async def test_of_those_who_wait_for_a_machine_that_slept_the_first_puts_nobody_out():
    feed = Feed()
    beats = Beats(feed, now_s=lambda: 1_000.0, wall_s=feed.now_s)
    await beats.accept([beat(A, 0), beat(B, 0)])
    for slept_ms, out in ((6_000, {}), (999, {}), (999, {}), (999, {}), (999, {11: Presence.DOWN})):
        feed.now_ms += slept_ms
        await beats.accept([msgspec.structs.replace(beat(A, 0), sequence=feed.now_ms)])
        assert judge(await beats.load(), NUMBERS, {}) == out


@pytest.mark.parametrize(
    ("status", "presence"), [("draining", Presence.DRAINING), ("down", Presence.DOWN)]
)
def test_what_a_deployment_says_of_itself_counts(status, presence):
    assert judge(sheet(beat(A, 0, status), beat(B, 0)), NUMBERS, {}) == {10: presence}


def test_who_is_not_in_the_market_or_never_beat_is_not_judged():
    assert judge(sheet(beat(STRANGER, 60_000), beat(A, 0)), NUMBERS, {}) == {}


@pytest.mark.parametrize("since_ms", [None, LONG_AGO_MS, NOW_MS - 2_000])
def test_the_price_tick_goes_by_the_reports_of_fresh_beats_alone(since_ms: int | None):
    told = [
        msgspec.structs.replace(beat(UUID(int=at), age_ms), running=at, waiting=at % 2 or None)
        for at, age_ms in enumerate((0, 1_000, 3_400, 3_500, 3_501, 3_600, 60_000))
    ]
    silent = beat(UUID(int=9), 0)
    seen = sheet(*told, silent, since_ms=since_ms)
    numbers = {each.deployment_id: at for at, each in enumerate([*told, silent])}
    reports = _reports(seen, Roster(numbers | {UUID(int=99): 8}), 10)
    missed_from_ms = NOW_MS - max(since_ms or 0, LONG_AGO_MS)
    fresh = [min(NOW_MS - each.received_ms, missed_from_ms) <= 3_500 for each in told]
    assert seen.fresh().tolist() == [*fresh, True]
    assert reports.stale.tolist() == [*(not each for each in fresh), True, True, True]
    assert reports.running[:7].tolist() == [at if fresh[at] else 0 for at in range(7)]
    assert reports.waiting[:7].tolist() == [at % 2 if fresh[at] else 0 for at in range(7)]


def test_columns_give_back_what_was_put_in_whoever_is_forgotten_and_comes_back():
    beats = [
        Beat(UUID(int=at), 2**63 - at, "draining", 1_000 * at, at - 1, at // 9, at / 9, NOW_MS - at)
        for at in range(1, 200)
    ]
    made = table(*beats)
    assert made.older_than(NOW_MS - 150) == [each.deployment_id for each in beats[150:]]
    made.drop([each.deployment_id for each in beats[::2]])
    seen = made.sheet(NOW_MS, None)
    assert seen.ids == {each.deployment_id for each in beats[1::2]}
    for back in beats[::2]:
        assert made.last_sequence(back.deployment_id) == 0
        made.put(msgspec.structs.replace(back, status="down", kv_usage=None, waiting=None))
        assert seen.beat(back.deployment_id) is None, "a sheet is of its moment"
    assert seen.ids == {each.deployment_id for each in beats[1::2]}
    after = made.sheet(NOW_MS, None)
    for one, other in zip(beats[::2], beats[1::2], strict=False):
        kept = msgspec.structs.replace(one, status="down", kv_usage=None, waiting=None)
        assert (after.beat(one.deployment_id), after.beat(other.deployment_id)) == (kept, other)


def test_a_roster_finds_who_is_heard_of_later_and_who_is_forgotten():
    made, roster = table(beat(STRANGER, 0)), Roster({A: 10, B: 11})
    out = msgspec.structs.replace(beat(B, 0), status="down")
    assert judge(made.sheet(NOW_MS, LONG_AGO_MS), roster, {}) == {}
    made.put(out)
    made.put(beat(A, 0))
    assert judge(made.sheet(NOW_MS, LONG_AGO_MS), roster, {}) == {11: Presence.DOWN}
    made.drop([STRANGER, A])
    made.put(beat(A, 0))
    assert judge(made.sheet(NOW_MS, LONG_AGO_MS), roster, {}) == {11: Presence.DOWN}
    made.drop([B])
    assert judge(made.sheet(NOW_MS, LONG_AGO_MS), roster, {}) == {}


def test_counts_that_are_absurd_say_nothing_and_stop_nothing():
    absurd = msgspec.structs.replace(beat(A, 0), running=2**80, waiting=-5, interval_ms=2**80)
    seen = sheet(absurd, beat(B, 0))
    assert judge(seen, NUMBERS, {}) == {}
    told = seen.beat(A)
    assert told is not None
    assert (told.running, told.waiting) == (None, None)
