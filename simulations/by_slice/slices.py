"""Slice by slice: calls that come together are decided together, by `route_many`.

    arrivals -> groups decided on the counts of a moment -> servers to the end of the slice -> bills

A slice ends at the next heartbeat, price or change, and after `slice_s` at the latest. Within it
calls are decided on in groups, in the order in which they ask; each group finds the places of those
before it taken, and the places free of calls that are to end by then. What this leaves out: within
a group nobody sees the others; latencies and what delays callers heard of are as old as a slice;
servers go at their mean step of the slice (`simulations.servers.hall`); an answer closes a breaker
at the end of a slice, and tells of a server that was slow when it ends, not when it begins (one in
a brownout earns 2 % less so). A broker of many processes, which tell each other their counts now
and then, knows no more. Calls that servers fail go on one by one (`simulations.by_slice.strays`).
`simulations.by_call.engine` is the reference.
"""

from __future__ import annotations

import time

import numpy as np

from broker.core.outcome import Outcome
from pricing.book import FloatArray, IntArray
from simulations.by_slice.counter import Counter, Turned
from simulations.by_slice.strays import Strays, may_fail
from simulations.by_slice.underway import Underway
from simulations.chance import generator
from simulations.clockwork import Clockwork, Progress, Stopped
from simulations.measured.record import Code, Run
from simulations.pace import slice_s_of
from simulations.scenario import Scenario
from simulations.servers.hall import Hall
from simulations.servers.sites import AT_ONCE_S, Change, sites_of
from simulations.servers.strategies import reported
from simulations.supply import SharingServer
from simulations.traffic.askers import Askers, Queue
from simulations.traffic.callers import Callers
from simulations.traffic.foresight import Memory
from simulations.world import Seen, World


class Slices:
    """One run, made once, of a scenario that slices can tell (`simulations.pace`)."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._scenario = scenario
        self._world = world = World(scenario, seed)
        servers = [each.server for _, each in scenario.endpoints]
        self._hall = Hall([each for each in servers if isinstance(each, SharingServer)])
        first_account = world.books.first_account
        self._queue = Queue(Callers(scenario.classes, seed), scenario.classes, first_account)
        heard = [Memory(each.memory_s) for each in scenario.classes]
        self._sites = sites_of(scenario, seed)
        self._strays = Strays(world, self._sites) if may_fail(scenario) else None
        self._counter = Counter(world, heard, self._strays)
        self._underway = Underway(world, heard, self._strays)
        self._patience = generator(seed, "patience")
        self._patience_calls = np.array([each.patience_calls for each in scenario.classes])
        self._patience_s = np.array([each.patience_s for each in scenario.classes])
        self._slice_s = slice_s_of(scenario)
        self._now_s = 0.0
        self.ended = 0

    def run(self, progress: Progress | None) -> Run:
        """Run to the horizon, or until `progress` says no."""
        begun_s = time.process_time()
        horizon_s = ended_s = self._scenario.horizon_s
        agenda = Clockwork(self._world, self, progress).agenda
        self._queue.open(horizon_s)
        try:
            while self._now_s < horizon_s:
                agenda.do_until(self._now_s)
                to_s = min(self._now_s + self._span_s(), agenda.heap[0][0])
                self._slice(min(to_s, horizon_s))
            agenda.do_until(horizon_s)
        except Stopped as stopped:
            ended_s = stopped.at_s
        self._underway.settle()
        cpu_s = time.process_time() - begun_s
        hall = self._hall
        under_way = int(hall.running.sum() + hall.waiting.sum()) + self._queue.coming_back
        under_way += 0 if self._strays is None else self._strays.under_way
        return self._world.result(ended_s, (self._queue.arrived, self.ended, under_way), cpu_s)

    def _span_s(self) -> float:
        """How long the next slice is: shorter while any endpoint is in doubt, for an answer that is
        whole ends that, and is told at the end of a slice; so is that a call finds out for all."""
        pulse = self._world.desk.pulse
        is_in_doubt = self._strays is not None and pulse.is_wary
        is_brief = is_in_doubt or pulse.revisits.offers
        return min(self._slice_s, AT_ONCE_S) if is_brief else self._slice_s

    # What happens to the market.

    def seen(self) -> Seen:
        """What servers are doing; `served` is counted from one time to the next."""
        hall = self._hall
        running, waiting = hall.running.astype(float), hall.waiting.astype(float)
        return Seen(running, waiting, self._underway.served_since())

    def told(self) -> tuple[tuple[FloatArray, FloatArray], IntArray]:
        """(running, waiting) as agents tell, and the numbers of those that do."""
        counts = zip(self._hall.running.tolist(), self._hall.waiting.tolist(), strict=True)
        strategies = (provider.strategy for provider, _ in self._scenario.endpoints)
        told = np.array([reported(x, *each) for x, each in zip(strategies, counts, strict=True)]).T
        return (told[0], told[1]), np.flatnonzero([each.tells for each in self._sites])

    def change(self, now_s: float, change: Change) -> None:
        """Let something happen to a server; it has come to `now_s`."""
        assert now_s <= self._now_s, "a slice ends where something happens"
        if change.kind == "slow":
            self._hall.slow(change.number, change.slowdown)
        if self._strays is None:
            return
        self._strays.change(now_s, change)
        if change.kind == "fail" and change.outage is not None:
            gone = self._hall.eject(change.number)
            outcome = Outcome(change.outage.fault)
            self.ended += self._underway.break_off(gone, outcome, self._strays)
            self._end_strays()

    # What happens to calls.

    def _slice(self, to_s: float) -> None:
        askers = self._asking(to_s)
        leaving = self._hall.foreseen(to_s)
        sent, turned = self._counter.decide(askers, leaving, (self._now_s, to_s))
        came = self._underway.begin(askers, sent)
        if self._strays is not None and self._strays.coming:
            came = came.and_then(self._underway.enter(self._strays))
            came = came.only(came.at_s.argsort(kind="stable"))
        gone = self._hall.advance(to_s, came)
        if self._strays is not None:
            self._strays.prove(self._hall, to_s)
        if turned.rows.size:
            self._turn_away(askers, turned)
        self.ended += gone.slot.size
        self._underway.end(gone, to_s)
        if self._strays is not None:
            self._end_strays()
        self._now_s = to_s

    def _end_strays(self) -> None:
        """Count the calls that have ended without an answer."""
        assert self._strays is not None
        over, self._strays.over = self._strays.over, []
        self.ended += len(over)
        self._underway.fail(over)

    def _asking(self, to_s: float) -> Askers:
        """All calls that ask before `to_s`, by time."""
        fresh, back = self._queue.until(to_s)
        world, classes = self._world, len(self._scenario.classes)
        calls = np.bincount(fresh.place, minlength=classes).tolist()
        offers = np.bincount(fresh.place, fresh.offer_nanos, classes).tolist()
        for place in range(classes):
            world.offered[place] += calls[place]
            world.offers[place] += offers[place]
        if not back.size:
            return fresh
        both = fresh.and_then(back)
        return both.only(both.at_s.argsort(kind="stable"))

    def _turn_away(self, askers: Askers, turned: Turned) -> None:
        """Count the calls that are refused; the patient come back."""
        refused, codes = askers.only(turned.rows), turned.codes
        passing = (codes != Code.UNFIT) & (codes != Code.NO_FUNDS)
        patient = passing & (refused.tries < self._patience_calls[refused.place])
        if patient.any():
            back = refused.only(patient)
            pause_s = self._patience.exponential(self._patience_s[back.place])
            back.at_s, back.tries = back.at_s + pause_s, back.tries + 1
            self._queue.come_back(back)
            refused, codes = refused.only(~patient), codes[~patient]
        self.ended += refused.size
        none, never = np.zeros(refused.size, dtype=np.int64), np.full(refused.size, np.nan)
        took_s = refused.at_s - refused.arrival_s
        self._world.tally.add_columns(
            (
                *(refused.place, refused.arrival_s, codes, none - 1, never, took_s),
                *(none, none, none, none, none, refused.offer_nanos, none, none),
            )
        )
