"""Second attempts beside late ones, as `broker.flows.calls.hedge` makes them by the same policy.

    attempt -> late by its endpoint's own tail -> Dispatch.hedge -> who first has what commits, wins

That is the first token of a stream, or a whole answer. The other is cancelled and paid nothing.
"""

from __future__ import annotations

from typing import Protocol

from simulations.agenda import Agenda
from simulations.broker_side.desk import Desk
from simulations.by_call.openings import Openings
from simulations.servers.job import Job
from simulations.servers.sites import Site
from simulations.visit import Visit


class Floor(Protocol):
    """Where attempts are made."""

    def begin(self, now_s: float, job: Job) -> None:
        """Take an attempt to its server."""
        ...

    def drop(self, job: Job, now_s: float) -> int:
        """Cancel an attempt at its server; return how many tokens it had made."""
        ...


class Races:
    """Of all calls that ask for it."""

    def __init__(self, desk: Desk, sites: tuple[Site, ...], agenda: Agenda, floor: Floor) -> None:
        self._desk = desk
        self._sites = sites
        self._agenda = agenda
        self._floor = floor
        self._openings = Openings(agenda)

    def watch(self, visit: Visit) -> None:
        """Look whether the attempt that begins is late, once it would be; nobody knows of an
        endpoint that has answered too few."""
        attempt = visit.attempt
        assert attempt is not None
        late_ms = self._desk.tails.late_ms(attempt.candidate.number, streamed=visit.of_class.stream)
        if late_ms is not None:
            self._agenda.add(attempt.started_s + late_ms / 1_000, self._late, visit.job)

    def probe(self, job: Job, site: Site, now_s: float) -> None:
        """Look when the answer begins of a stream that is asked of an endpoint in doubt."""
        self._openings.await_first(job, site, self._prove, now_s)

    def win(self, job: Job, now_s: float) -> None:
        """Of two under way one has answered; the other ends."""
        visit: Visit = job.key
        assert visit.dispatch is not None
        if visit.job is not job:
            visit.swap()
        assert visit.beside is not None
        attempt, loser = visit.beside
        number = attempt.candidate.number
        self._floor.drop(loser, now_s)
        visit.beside = None
        outcome = visit.dispatch.lose(attempt, now_s)
        self._desk.pulse.end(number, number, outcome, now_s, None, attempt.started_s)

    def _late(self, now_s: float, job: Job) -> None:
        visit: Visit = job.key
        if visit.job is not job or visit.beside is not None:
            return
        if visit.of_class.stream and job.first_s <= now_s:
            return  # it is not late but long
        assert visit.dispatch is not None
        pulse = self._desk.pulse
        attempt = visit.dispatch.hedge(now_s, pulse.doubts.admitting(now_s))
        if attempt is None:
            return
        pulse.begin(attempt.candidate.number, attempt.candidate.number, now_s)
        second = Job(visit, visit.tokens_in, visit.tokens_out)
        visit.beside = attempt, second
        self._floor.begin(now_s, second)
        if visit.of_class.stream:
            for each in (job, second):
                made = visit.attempt_of(each)
                assert made is not None
                site = self._sites[made.candidate.number]
                self._openings.await_first(each, site, self._open, now_s)

    def _open(self, now_s: float, job: Job) -> None:
        if job.key.beside is not None:
            self.win(job, now_s)

    def _prove(self, now_s: float, job: Job) -> None:
        attempt = job.key.attempt_of(job)
        self._desk.pulse.prove(attempt.candidate.number, now_s, attempt.started_s)
