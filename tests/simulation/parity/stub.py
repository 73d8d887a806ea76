"""A simulator in small: drives `route` and `Dispatch` with scripted outcomes, on its own clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from broker.core.candidates.view import RoutingLimits
from broker.core.dispatch import Attempt, Dispatch
from broker.core.health.pulse import Pulse
from broker.core.market import Market
from broker.core.outcome import Outcome
from broker.core.requirements import Requirements
from broker.core.retries import RetryBudget
from broker.core.routing import route
from tests.fakes import pulse
from tests.simulation.parity.failures import Behaviour, Failures


@dataclass(frozen=True)
class Told:
    """One attempt as it is compared: where, after which wait, how it ended."""

    endpoint: int
    delay_ms: float
    outcome: str


@dataclass(frozen=True)
class Ended:
    """One call as it is compared."""

    attempts: tuple[Told, ...]
    end: str


class Stub:
    """The policy of the broker without a broker; `gap_s` passes between two calls."""

    def __init__(self, where: Market, failures: Failures, seed: int, gap_s: float) -> None:
        self._market = where
        self._acts = [iter(failures.behaviours(number)) for number in range(len(failures.acts))]
        self._pulse: Pulse = pulse(where)
        self._random = Random(seed)
        self._budget = RetryBudget(0.0)
        self._gap_s = gap_s
        self._now_s = 0.0

    def run(self, wanted: Requirements, calls: int, deadline_s: float) -> list[Ended]:
        """Play the calls one after the other."""
        return [self._call(wanted, deadline_s) for _ in range(calls)]

    def _call(self, wanted: Requirements, deadline_s: float) -> Ended:
        now_s = self._now_s
        limits = RoutingLimits()
        decision = route(wanted, self._market, self._pulse, limits, (self._random, now_s))
        assert decision is not None
        calls = Dispatch(
            decision.plan,
            self._budget,
            deadline_s=now_s + deadline_s,
            attempts_max=limits.attempts_max,
            random=self._random,
        )
        admits = self._pulse.doubts.admitting
        while (attempt := calls.next_attempt(now_s, admits(now_s))) is not None:
            self._try(calls, attempt, now_s)
        self._now_s += self._gap_s
        assert calls.end is not None
        return Ended(tuple(map(_told, calls.attempts)), calls.end.value)

    def _try(self, calls: Dispatch, attempt: Attempt, now_s: float) -> None:
        number = attempt.candidate.number
        behaviour: Behaviour | None = next(self._acts[number], None)
        outcome = Outcome()
        if behaviour is not None:
            outcome = Outcome(behaviour.fault, retry_after_s=behaviour.retry_after_s)
            if behaviour.delivers:
                attempt.first_content_s = now_s
        self._pulse.begin(number, number, now_s)
        outcome = calls.record(outcome, now_s)
        self._pulse.end(number, number, outcome, now_s, None)


def _told(attempt: Attempt) -> Told:
    assert attempt.outcome is not None
    fault = attempt.outcome.fault
    delay_ms = round(attempt.delay_s * 1_000, 3)
    return Told(attempt.candidate.number, delay_ms, "delivered" if fault is None else fault.value)


def same(first: Sequence[Ended], second: Sequence[Ended]) -> bool:
    """Compare two runs; waits may differ by a rounding."""
    return len(first) == len(second) and all(
        one.end == other.end
        and len(one.attempts) == len(other.attempts)
        and all(map(_alike, one.attempts, other.attempts))
        for one, other in zip(first, second, strict=True)
    )


def _alike(one: Told, other: Told) -> bool:
    return (one.endpoint, one.outcome) == (other.endpoint, other.outcome) and abs(
        one.delay_ms - other.delay_ms
    ) < 0.01
