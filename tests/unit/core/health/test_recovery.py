"""How soon a provider that goes away loses its calls, and how soon it gets them again.

The clock is the test's own: these are the bounds of the mechanism, whatever the machine.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random

import pytest

from broker.core.health.measured import Measured
from broker.core.health.pulse import Pulse
from broker.core.health.stalls import is_stalled
from broker.core.outcome import DELIVERED, Fault, Outcome
from broker.flows.calls.watch import EVERY_S

DETECTED_S = 2.0
RECOVERED_S = 5.0
AWAY_S, BACK_S, END_S = 10.0, 20.0, 30.0
APART_S = 0.02
TOOK_S = 0.2
TIMES_OUT_S = 60.0

Fate = Callable[[float, Random], tuple[float, Outcome]]
"""What becomes of a call that begins then: how long it lasts, and its outcome."""


def failing(now_s: float, _: Random) -> tuple[float, Outcome]:
    return 0.01, Outcome(Fault.RESET)


def browning(now_s: float, random: Random) -> tuple[float, Outcome]:
    return failing(now_s, random) if random.random() < 0.7 else (TOOK_S, DELIVERED)


def stalling(now_s: float, _: Random) -> tuple[float, Outcome]:
    return TIMES_OUT_S, Outcome(Fault.FIRST_BYTE_TIMEOUT)


def lingering(_: float, random: Random) -> tuple[float, Outcome]:
    """A probe runs into its time-out shortly before the next one would be let in."""
    return random.uniform(1.0, 3.9), Outcome(Fault.FIRST_BYTE_TIMEOUT)


def flapping(now_s: float, random: Random) -> tuple[float, Outcome]:
    return failing(now_s, random) if int(now_s) % 2 == 0 else (TOOK_S, DELIVERED)


def went_there(fate: Fate, seed: int = 7) -> list[float]:
    """Offer calls that prefer one provider, which has that fate for a while; return when those
    began that went there."""
    pulse, random = Pulse(), Random(seed)
    pulse.fit(2, 2)
    began: list[float] = []
    running: list[tuple[float, float, Outcome]] = []
    looked_s = heard_s = 0.0
    for step in range(int(END_S / APART_S)):
        now_s = step * APART_S
        while running and running[0][0] <= now_s:
            end_s, began_s, outcome = heapq.heappop(running)
            heard_s = max(heard_s, end_s)
            took_ms = (end_s - began_s) * 1_000
            measured = Measured(took_ms, took_ms, 8) if outcome.delivered else None
            pulse.end(0, 0, outcome, end_s, measured, began_s)
        if now_s >= looked_s + EVERY_S:
            looked_s = now_s
            waiting_s = [now_s - began_s for _, began_s, _ in running]
            if is_stalled(waiting_s, now_s - heard_s, TOOK_S):
                pulse.suspect(0, now_s)
        admits = pulse.doubts.admitting(now_s)
        if admits is None or admits(0):
            pulse.begin(0, 0, now_s)
            began.append(now_s)
            away = AWAY_S <= now_s < BACK_S
            lasts_s, outcome = fate(now_s, random) if away else (TOOK_S, DELIVERED)
            heapq.heappush(running, (now_s + lasts_s, now_s, outcome))
    return began


@pytest.mark.parametrize("fate", [failing, browning, stalling, lingering])
def test_a_provider_that_goes_away_has_lost_its_calls_within_two_seconds(fate: Fate) -> None:
    began = went_there(fate)
    assert len([each for each in began if each < AWAY_S]) == AWAY_S / APART_S
    later = [each for each in began if AWAY_S + DETECTED_S <= each < BACK_S]
    # Half open it gets probes; of a brownout some succeed, and it takes a few calls to close again.
    assert len(later) <= (BACK_S - AWAY_S) / APART_S / (5 if fate is browning else 50)


@pytest.mark.parametrize("seed", range(1, 9))
@pytest.mark.parametrize("fate", [failing, browning, stalling, lingering, flapping])
def test_a_provider_that_is_back_has_its_calls_again_within_five_seconds(
    fate: Fate, seed: int
) -> None:
    again = [each for each in went_there(fate, seed) if each >= BACK_S + RECOVERED_S]
    assert len(again) == round((END_S - BACK_S - RECOVERED_S) / APART_S)


def test_a_slow_server_is_not_silent_before_several_times_what_its_answers_take() -> None:
    waiting_s = [9.0] * 10
    assert not is_stalled(waiting_s, heard_ago_s=9.0, tail_s=8.0)
    assert not is_stalled([25.0] * 10, heard_ago_s=25.0, tail_s=8.0)
    assert is_stalled([45.0] * 10, heard_ago_s=45.0, tail_s=8.0)


def test_a_server_that_is_not_clearly_fast_has_many_seconds() -> None:
    assert not is_stalled([6.0] * 10, heard_ago_s=6.0, tail_s=0.4)
    assert is_stalled([11.0] * 10, heard_ago_s=11.0, tail_s=0.4)


def test_a_server_of_which_anything_is_heard_is_not_silent() -> None:
    assert not is_stalled([30.0] * 10, heard_ago_s=0.1, tail_s=0.2)


def test_one_or_two_calls_that_wait_are_no_sign_of_anything() -> None:
    assert not is_stalled([30.0, 30.0, 0.1], heard_ago_s=30.0, tail_s=0.2)


def test_a_server_that_is_fast_has_a_moment_all_the_same() -> None:
    assert not is_stalled([0.9] * 10, heard_ago_s=0.9, tail_s=0.001)
