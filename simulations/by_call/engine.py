"""Call by call: each is decided by the live broker's `route` and `Dispatch`, at its own moment.

Arrival -> Requirements -> Decision -> Hold -> Dispatch -> Job -> Outcome -> Usage -> Settlement
"""

from __future__ import annotations

import math
import time
from collections import deque

import numpy as np

from broker.core.decision import Candidate
from broker.core.dispatch import Attempt, Dispatch, End
from broker.core.outcome import DELIVERED, Fault, Outcome
from broker.core.several import several
from pricing.book import FloatArray, IntArray
from simulations.agenda import Agenda
from simulations.by_call.arriving import arriving
from simulations.by_call.closing import Closing
from simulations.by_call.races import Races
from simulations.chance import source
from simulations.clockwork import Clockwork, Progress, Stopped
from simulations.demand import Foresight
from simulations.measured.record import Code, Run
from simulations.scenario import Scenario
from simulations.servers.job import Job
from simulations.servers.sites import Change, Site, sites_of
from simulations.supply import QueueingServer
from simulations.traffic.callers import Callers
from simulations.traffic.foresight import Memory
from simulations.visit import Visit, hold_of, places_of
from simulations.world import Seen, World


class Engine:
    """One run, made once."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._scenario = scenario
        self._world = World(scenario, seed)
        self._sites = sites_of(scenario, seed)
        self._callers = Callers(scenario.classes, seed)
        self._random = source(seed, "patience")
        self._deadlines: list[deque[Visit]] = [deque() for _ in scenario.classes]
        # Of classes of which nobody asks it, nothing is remembered.
        self._heard = [
            None if each.foresight is Foresight.PRICE else Memory(each.memory_s)
            for each in scenario.classes
        ]
        self._served = np.zeros(len(self._sites))
        self._arrived = 0
        self._closing = Closing(self._world, self._sites)
        self._agenda: Agenda
        self._races: Races

    def run(self, progress: Progress | None) -> Run:
        """Run to the horizon, or until `progress` says no."""
        begun_s = time.process_time()
        horizon_s = ended_s = self._scenario.horizon_s
        self._agenda = agenda = Clockwork(self._world, self, progress).agenda
        self._races = Races(self._world.desk, self._sites, agenda, self)
        try:
            for visit in arriving(self._callers, self._world, horizon_s):
                if agenda.heap[0][0] <= visit.arrival_s:
                    agenda.do_until(visit.arrival_s)
                self._arrive(visit)
            agenda.do_until(horizon_s)
        except Stopped as stopped:
            ended_s = stopped.at_s
        self._closing.settle()
        cpu_s = time.process_time() - begun_s
        flow = (self._arrived, self.ended, self._under_way())
        return self._world.result(ended_s, flow, cpu_s)

    @property
    def ended(self) -> int:
        """How many calls have ended."""
        return self._closing.ended

    def _under_way(self) -> int:
        """Count the calls that are at servers, and those for whom something is on the agenda."""
        ahead = [(act, subject) for _, _, act, subject in self._agenda.heap]
        asking = sum(act == self._ask for act, _ in ahead)
        begun = [job for act, job in ahead if act == self.begin]
        begun += [told[0] for act, told in ahead if act == self._turned_away]
        found = {job.key for site in self._sites for job in site.jobs}
        return asking + len(found | {job.key for job in begun if job.key.attempt_of(job)})

    # What happens to the market.

    def seen(self) -> Seen:
        """What servers are doing; `served` is counted from one time to the next."""
        self._closing.settle()
        servers = [each.server for each in self._sites]
        running = np.array([each.running for each in servers], dtype=float)
        waiting = np.array([each.waiting for each in servers], dtype=float)
        served, self._served = self._served, np.zeros(len(servers))
        return Seen(running, waiting, served)

    def told(self) -> tuple[tuple[FloatArray, FloatArray], IntArray]:
        """(running, waiting) as agents tell, and the numbers of those that do."""
        told = np.array([each.report() for each in self._sites]).T
        return (told[0], told[1]), np.flatnonzero([each.tells for each in self._sites])

    def change(self, now_s: float, change: Change) -> None:
        """Let something happen to a server, and to the calls on it."""
        site = self._sites[change.number]
        if change.kind == "slow":
            site.server.slow(change.slowdown, now_s)
            self._watch(site)
        elif change.kind == "mend" and site.outage is change.outage:
            site.outage = None
        elif change.kind == "fail" and change.outage is not None:
            site.outage = change.outage
            for job in tuple(site.jobs):
                self._break_off(job, Outcome(change.outage.fault), now_s)

    # What happens to a call.

    def _arrive(self, visit: Visit) -> None:
        world, place = self._world, visit.place
        self._arrived += 1
        world.offered[place] += 1
        world.offers[place] += visit.offer_nanos
        self._ask(visit.arrival_s, visit)

    def _ask(self, now_s: float, visit: Visit) -> None:
        """Decide where it goes, reserve, and go there."""
        world, of_class = self._world, visit.of_class
        desk = world.desk
        wanted = visit.ask(desk.dearest)
        decision = desk.decide(wanted, now_s)
        if decision is None or not decision.plan:
            self._refuse(visit, desk.refusal(wanted, decision), now_s)
            return
        visit.price_version = decision.price_version
        first = decision.plan[0]
        if of_class.foresight is not Foresight.PRICE and self._stays_away(visit, first, now_s):
            self._refuse(visit, Code.STAYED_AWAY, now_s)
            return
        if of_class.hedge:
            most = wanted.max_cost_nanos
            decision = several(decision, hedges=True, continues=False, most=most)
        visit.hold = hold_of(decision)
        if of_class.budget_usd < math.inf:
            self._closing.settle()  # what is left of it goes by all that has ended
        if not world.books.hold(visit.account, visit.hold.amount_nanos, now_s):
            self._refuse(visit, Code.NO_FUNDS, now_s)
            return
        visit.wanted = None
        visit.deadline_s = now_s + of_class.deadline_s
        visit.dispatch = Dispatch(
            decision.plan,
            desk.retries,
            deadline_s=visit.deadline_s,
            attempts_max=desk.routing.attempts_max,
            random=desk.random,
        )
        if decision.answers_most > 1:
            visit.dispatch.hedges = desk.hedges
        if visit.deadline_s < math.inf:
            line = self._deadlines[visit.place]
            if not line:
                self._agenda.add(visit.deadline_s, self._expire, visit.place)
            line.append(visit)
        self._next(visit, now_s)

    def _stays_away(self, visit: Visit, first: Candidate, now_s: float) -> bool:
        """True where price and foreseen wait are more than the answer is worth."""
        of_class = visit.of_class
        heard = self._heard[visit.place]
        assert heard is not None
        foreseen_s = heard.foreseen_s(now_s)
        if of_class.foresight is Foresight.QUEUE:
            site = self._sites[first.number]
            before = site.server.running + site.server.waiting
            foreseen_s = self._service_s(site) * max((before + 1) / places_of(site), 1.0)
        cost = first.ceiling_nanos / of_class.headroom
        cost += foreseen_s * of_class.delay_cost_usd_per_s * 1e9
        return cost > visit.offer_nanos

    def _service_s(self, site: Site) -> float:
        spec = site.spec.server
        if isinstance(spec, QueueingServer):
            return spec.mean_service_s
        return float(self._world.desk.pulse.service_s[site.number])

    def _next(self, visit: Visit, now_s: float) -> None:
        """Make the next attempt, or end the call."""
        assert visit.dispatch is not None
        admits = self._world.desk.pulse.doubts.admitting(now_s)
        attempt = visit.dispatch.next_attempt(now_s, admits)
        visit.attempt = attempt
        if attempt is None:
            late = visit.dispatch.end is End.DEADLINE
            self._close(visit, Code.LATE if late else Code.FAILED, now_s)
            return
        number = attempt.candidate.number
        self._world.desk.pulse.begin(number, number, attempt.started_s)
        visit.job = job = Job(visit, visit.tokens_in, visit.tokens_out)
        if attempt.delay_s:
            self._agenda.add(attempt.started_s, self.begin, job)
        else:
            self.begin(now_s, job)
        if visit.dispatch.hedges is not None:
            self._races.watch(visit)

    def begin(self, now_s: float, job: Job) -> None:
        """Take an attempt to its server."""
        visit: Visit = job.key
        attempt = visit.attempt_of(job)
        if attempt is None:
            return  # its outage or its deadline came first
        site = self._sites[attempt.candidate.number]
        refused = site.refuses(job) if site.may_refuse else None
        if refused is not None:
            told = (job, refused.outcome)
            self._agenda.add(now_s + refused.after_s, self._turned_away, told)
            return
        site.jobs[job] = None
        site.server.submit(job, now_s)
        self._watch(site)
        pulse, number = self._world.desk.pulse, site.number
        is_probe = pulse.doubts.has(number) or number in pulse.revisits.offers
        if is_probe and visit.of_class.stream:
            self._races.probe(job, site, now_s)

    def _watch(self, site: Site) -> None:
        """Note when to ask a server again. What is noted too early is noted anew then."""
        wake_s = site.server.wake_s()
        if wake_s < site.wake_s:
            site.wake_s = wake_s
            self._agenda.add(wake_s, self._wake, site)

    def _wake(self, now_s: float, site: Site) -> None:
        if now_s != site.wake_s:
            return
        site.wake_s = math.inf
        for job in site.server.ended(now_s):
            del site.jobs[job]
            self._deliver(job, site, now_s)
        self._watch(site)

    def _deliver(self, job: Job, site: Site, now_s: float) -> None:
        """End a call whose answer is whole."""
        visit: Visit = job.key
        if visit.beside is not None:
            self._races.win(job, now_s)
        attempt, dispatch = visit.attempt, visit.dispatch
        assert attempt is not None
        assert dispatch is not None
        attempt.first_content_s = job.first_s
        dispatch.record(DELIVERED, now_s, attempt)
        self._pay(visit, attempt, job.tokens_out, site)
        self._world.desk.delivered(attempt, (job.tokens_in, visit.of_class.stream), now_s)
        visit.cost_nanos += site.cost_nanos(job.tokens_in, job.tokens_out)
        self._served[site.number] += 1
        self._close(visit, Code.SERVED, now_s)

    def _turned_away(self, now_s: float, told: tuple[Job, Outcome]) -> None:
        job, outcome = told
        if job.key.attempt_of(job) is not None:
            self._break_off(job, outcome, now_s)

    def _break_off(self, job: Job, outcome: Outcome, now_s: float) -> None:
        """End an attempt that did not deliver, and go on as `Dispatch` says."""
        visit: Visit = job.key
        if visit.job is not job:
            visit.swap()
        attempt, dispatch = visit.attempt, visit.dispatch
        assert attempt is not None
        assert dispatch is not None
        number, made = attempt.candidate.number, self.drop(job, now_s)
        visit.job = None
        if made and visit.of_class.stream and job.first_s <= now_s:
            attempt.first_content_s = job.first_s
            self._pay(visit, attempt, made, self._sites[number])
        outcome = dispatch.record(outcome, now_s, attempt)
        asked = job.tokens_in, visit.of_class.stream
        self._world.desk.failed(attempt, outcome, asked, now_s)
        if visit.beside is not None:
            (visit.attempt, visit.job), visit.beside = visit.beside, None
            if dispatch.end is not None:  # no other would do better
                self._break_off(visit.job, outcome, now_s)
        elif dispatch.end is End.COMMITTED:
            self._close(visit, Code.LATE if outcome.fault is Fault.DEADLINE else Code.CUT, now_s)
        else:
            self._next(visit, now_s)

    def drop(self, job: Job, now_s: float) -> int:
        """Cancel an attempt at its server; return how many tokens it had made."""
        visit: Visit = job.key
        attempt = visit.attempt_of(job)
        assert attempt is not None
        site = self._sites[attempt.candidate.number]
        if job not in site.jobs:
            return 0
        del site.jobs[job]
        made = site.server.cancel(job, now_s)
        self._watch(site)
        if job.started_s < now_s:  # not one that is taken in as those before it are broken off
            visit.cost_nanos += site.cost_nanos(job.tokens_in, made)
        return made

    def _pay(self, visit: Visit, attempt: Attempt, made: int, site: Site) -> None:
        visit.meter(attempt, made, site.claim(made), self._world.desk.pulse)

    def _expire(self, now_s: float, place: int) -> None:
        """End the calls of a class whose deadline has come, and look forward to the next."""
        line = self._deadlines[place]
        while line:
            visit = line[0]
            if visit.job is not None and visit.deadline_s > now_s:
                self._agenda.add(visit.deadline_s, self._expire, place)
                return
            line.popleft()
            if visit.job is not None:
                self._break_off(visit.job, Outcome(Fault.DEADLINE), now_s)

    def _refuse(self, visit: Visit, code: Code, now_s: float) -> None:
        """Turn a call away; the patient come back."""
        comes_back = code not in (Code.UNFIT, Code.NO_FUNDS)
        if comes_back and visit.tries < visit.of_class.patience_calls:
            visit.tries += 1
            pause_s = self._random.expovariate(1.0 / visit.of_class.patience_s)
            self._agenda.add(now_s + pause_s, self._ask, visit)
            return
        self._closing.add(visit, code, now_s)

    def _close(self, visit: Visit, code: Code, now_s: float) -> None:
        """End a call that was held for."""
        visit.job = None
        if code is Code.SERVED:
            heard = self._heard[visit.place]
            if heard is not None:
                heard.hear(now_s - visit.arrival_s, now_s)
        self._closing.add(visit, code, now_s)
