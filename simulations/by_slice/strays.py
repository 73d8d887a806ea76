"""Calls in a run by slices that a server fails: one by one, by the very `Dispatch` of the broker.

    attempt -> refused by its server, or broken off -> Dispatch -> the next attempt, or the end

Most calls are never looked at one by one. A stray is made of each that is sent where it may be
refused, or where an outage comes before its deadline.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np

from broker.core.decision import Candidate
from broker.core.dispatch import Attempt, Dispatch, End
from broker.core.health.breaker import Breaker
from broker.core.outcome import Fault, Outcome
from pricing.book import FloatArray
from simulations.measured.record import Code
from simulations.scenario import Scenario
from simulations.servers.hall import Hall
from simulations.servers.sites import Change, Site
from simulations.supply import LINE_MAX, SharingServer
from simulations.world import World


@dataclass(slots=True, eq=False)
class Stray:
    """One call; times are seconds of the run."""

    place: int
    """Of its class in the scenario."""
    arrival_s: float
    deadline_s: float
    tokens_in: int
    tokens_out: int
    tokens_in_bound: int
    offer_nanos: float
    account: int
    hold_nanos: int
    dispatch: Dispatch = field(init=False)
    cost_nanos: float = 0.0
    comes_s: float = math.nan
    """When its attempt gets to its server."""
    is_probe: bool = False
    """Its answer tells whether an endpoint in doubt works again."""

    @property
    def attempt(self) -> Attempt:
        """The latest."""
        return self.dispatch.attempts[-1]


class Strays:
    """All of them. A run without anything that fails has none, and needs no such object."""

    def __init__(self, world: World, sites: tuple[Site, ...]) -> None:
        self._world = world
        self._sites = sites
        self._streams = [each.stream for each in world.scenario.classes]
        self._heap: list[tuple[float, int, Stray, Outcome | None]] = []
        """(moment, order, who, how its attempt ends then; None where it begins)."""
        self._order = 0
        self._pending = [0] * len(sites)
        """Attempts counted by the pulse that are not at their server."""
        self.suspect = np.array([each.may_refuse for each in sites])
        """By endpoint: an attempt may be refused there."""
        self.outage_s: FloatArray = np.array([_next(each, -math.inf) for each in sites])
        """By endpoint: when its next outage begins; infinite for none."""
        self.coming: list[Stray] = []
        """Those whose attempt gets to its server in this slice."""
        self.at: dict[int, Stray] = {}
        """Those at servers, by slot."""
        self.over: list[tuple[Stray, Code, float]] = []
        """Those that have ended without an answer, and when."""

    @property
    def under_way(self) -> int:
        """How many are neither at a server nor over."""
        return len(self._heap) + len(self.coming)

    def next_s(self, now_s: float) -> float:
        """When something happens to one of them, or an endpoint is to be probed again."""
        due = [each.open_until_s for each in self._breakers() if each.open_until_s > now_s]
        return min(due + [each[0] for each in self._heap[:1]], default=math.inf)

    def _breakers(self) -> Iterator[Breaker]:
        return (each for each in self._world.desk.pulse.doubts.breakers.values() if each.ejection_s)

    def probes(self, now_s: float) -> set[int]:
        """Endpoints in doubt where a call may go now, to find out about them."""
        pulse = self._world.desk.pulse
        out = pulse.doubts.ejected_here(now_s)
        return {
            number
            for number, each in pulse.doubts.breakers.items()
            if each.ejection_s and number not in out
        }

    def change(self, now_s: float, change: Change) -> None:
        """Let an outage begin or end."""
        site = self._sites[change.number]
        if change.kind == "mend" and site.outage is change.outage:
            site.outage = None
        elif change.kind == "fail":
            site.outage = change.outage
            self.outage_s[change.number] = _next(site, now_s)
        self.suspect[change.number] = site.may_refuse

    def send(self, stray: Stray, plan: tuple[Candidate, ...], ahead: int, now_s: float) -> bool:
        """Begin a call's first attempt, with so many of the same moment before it; False where its
        server refuses it."""
        desk, random = self._world.desk, self._world.desk.random
        stray.dispatch = Dispatch(
            plan,
            desk.retries,
            deadline_s=stray.deadline_s,
            attempts_max=desk.routing.attempts_max,
            random=random,
        )
        attempt = stray.dispatch.next_attempt(now_s)
        assert attempt is not None
        number = attempt.candidate.number
        refused = self._sites[number].turns_away(self._waiting(number, ahead))
        if refused is None:
            if desk.pulse.doubts.has(number):
                desk.pulse.doubts.breakers[number].begin(now_s)
                stray.is_probe = True
            return True
        desk.pulse.begin(number, number, now_s)
        self._fail(stray, now_s + refused.after_s, refused.outcome)
        return False

    def do_until(self, to_s: float) -> bool:
        """Let happen what is due by then; False where nothing was."""
        if not self._heap or self._heap[0][0] > to_s:
            return False
        while self._heap and self._heap[0][0] <= to_s:
            at_s, _, stray, outcome = heappop(self._heap)
            self._pending[stray.attempt.candidate.number] -= 1
            if outcome is None:
                self._begin(stray, at_s)
            else:
                self._end(stray, outcome, at_s)
        return True

    def prove(self, hall: Hall, now_s: float) -> None:
        """Tell of endpoints in doubt whose answers have begun."""
        pulse = self._world.desk.pulse
        if not pulse.is_wary:
            return
        probing = [slot for slot, x in self.at.items() if x.is_probe and self._streams[x.place]]
        come = hall.opened(np.array(probing, dtype=np.int64), now_s)
        for slot in np.array(probing)[come].tolist():
            stray = self.at[slot]
            stray.is_probe = False
            pulse.prove(stray.attempt.candidate.number, now_s, stray.attempt.started_s)

    def break_off(self, stray: Stray, outcome: Outcome, now_s: float) -> None:
        """End an attempt at its server; `first_content_s` of it is known."""
        self._end(stray, outcome, now_s)

    def _end(self, stray: Stray, outcome: Outcome, now_s: float) -> None:
        dispatch, attempt = stray.dispatch, stray.attempt
        outcome = dispatch.record(outcome, now_s, attempt)
        asked = stray.tokens_in, self._streams[stray.place]
        self._world.desk.failed(attempt, outcome, asked, now_s)
        if dispatch.end is End.COMMITTED:
            return
        pulse = self._world.desk.pulse
        following = dispatch.next_attempt(now_s, pulse.doubts.admitting(now_s))
        if following is None:
            late = dispatch.end is End.DEADLINE
            self.over.append((stray, Code.LATE if late else Code.FAILED, now_s))
            return
        number = following.candidate.number
        pulse.begin(number, number, following.started_s)
        if following.delay_s:
            self._add(stray, following.started_s, None)
        else:
            self._begin(stray, now_s)

    def _begin(self, stray: Stray, now_s: float) -> None:
        number = stray.attempt.candidate.number
        refused = self._sites[number].turns_away(self._waiting(number, -1))
        if refused is None:
            stray.comes_s = now_s
            stray.is_probe = self._world.desk.pulse.doubts.has(number)
            self.coming.append(stray)
        else:
            self._fail(stray, now_s + refused.after_s, refused.outcome)

    def _fail(self, stray: Stray, at_s: float, outcome: Outcome) -> None:
        self._add(stray, at_s, outcome)

    def _add(self, stray: Stray, at_s: float, outcome: Outcome | None) -> None:
        if at_s >= stray.deadline_s:
            at_s, outcome = stray.deadline_s, Outcome(Fault.DEADLINE)
        self._order += 1
        self._pending[stray.attempt.candidate.number] += 1
        heappush(self._heap, (at_s, self._order, stray, outcome))

    def _waiting(self, number: int, more: int) -> int:
        """Calls in line at a server, as far as who is to leave by now is known; so many `more` than
        are counted."""
        in_flight = self._world.desk.pulse.in_flight_at[number] - self._pending[number] + more
        server = self._sites[number].spec.server
        assert isinstance(server, SharingServer)
        return max(in_flight - server.batch_max, 0)


def may_fail(scenario: Scenario) -> bool:
    """True where any server may refuse or break off an attempt."""
    return any(
        each.outages or each.failures or each.queue_max < LINE_MAX for _, each in scenario.endpoints
    )


def _next(site: Site, now_s: float) -> float:
    return min((each.from_s for each in site.spec.outages if each.from_s > now_s), default=math.inf)
