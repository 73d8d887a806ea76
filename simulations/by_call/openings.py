"""Tells when the first content of a stream comes, to who needs to know at that very moment.

Servers say of a call when it has ended; when its first token came is known of it by then.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from simulations.agenda import Agenda
from simulations.servers.job import Job
from simulations.servers.sites import Site

Told = Callable[[float, Job], None]


class Openings:
    """Looks at servers again and again while somebody waits."""

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda

    def await_first(self, job: Job, site: Site, told: Told, now_s: float) -> None:
        """Call `told` when the first token of a job has come; never, where it leaves before."""
        self._look(now_s, (job, site, told))

    def _look(self, now_s: float, wanted: tuple[Job, Site, Told]) -> None:
        job, site, told = wanted
        if job not in site.jobs:
            return
        if job.first_s <= now_s:
            told(now_s, job)
            return
        due_s = site.server.wake_s() if math.isnan(job.first_s) else job.first_s
        self._agenda.add(max(due_s, now_s), self._look, wanted)
