"""Who is out for want of heartbeats: three missed ones in a live feed, nobody in a stale one."""

from __future__ import annotations

from uuid import UUID

import msgspec
import pytest

from broker.core.market import Presence
from broker.flows.measure import _reports
from broker.live.beats import Beat, BeatSheet, judge

A, B, STRANGER = UUID(int=1), UUID(int=2), UUID(int=3)
NUMBERS = {A: 10, B: 11}
NOW_MS = 1_000_000
LONG_AGO_MS = 1


def beat(deployment_id: UUID, age_ms: int, status="ready", interval_ms: int = 1_000) -> Beat:
    return Beat(deployment_id, 1, status, interval_ms, received_ms=NOW_MS - age_ms)


def sheet(*beats: Beat, since_ms: int | None = LONG_AGO_MS) -> BeatSheet:
    return BeatSheet({each.deployment_id: each for each in beats}, NOW_MS, since_ms)


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
    reports = _reports(seen, numbers | {UUID(int=99): 8}, 10)
    fresh = [seen.is_fresh(each) for each in told]
    assert reports.stale.tolist() == [*(not each for each in fresh), True, True, True]
    assert reports.running[:7].tolist() == [at if fresh[at] else 0 for at in range(7)]
    assert reports.waiting[:7].tolist() == [at % 2 if fresh[at] else 0 for at in range(7)]
