"""Batch inference: a server that runs whole batches, as Triton does with dynamic batching.

a batch takes c0 + c1 * calls in it
"""

from __future__ import annotations

import math
from collections import deque
from heapq import heappop, heappush

from simulations.servers.job import DECODING, ENDED, WAITING, Job
from simulations.supply import ClassifierServer


class Classifier:
    """The server; see `simulations.servers.job.Server`."""

    def __init__(self, spec: ClassifierServer) -> None:
        self._spec = spec
        self._slowdown = 1.0
        self._line: deque[Job] = deque()
        self._batches: list[tuple[float, int, list[Job]]] = []
        self._running = 0
        self._ended: list[Job] = []
        self._order = 0

    @property
    def running(self) -> int:
        """Calls being worked on."""
        return self._running

    @property
    def waiting(self) -> int:
        """Calls in line."""
        return len(self._line)

    def submit(self, job: Job, now_s: float) -> None:
        """Put a call in line; a batch may start with it."""
        self._advance(now_s)
        job.started_s = now_s
        self._line.append(job)
        self._start(now_s)

    def cancel(self, job: Job, now_s: float) -> int:
        """Drop a call; return 0, for an answer comes whole or not at all. Its batch goes on."""
        self._advance(now_s)
        if job.state == ENDED:
            if job in self._ended:
                self._ended.remove(job)
            return job.tokens_out
        if job.state == WAITING:
            self._line.remove(job)
        job.state = ENDED
        return 0

    def ended(self, now_s: float) -> list[Job]:
        """Return the calls that have ended by now, in order, each once."""
        self._advance(now_s)
        done, self._ended = self._ended, []
        return done

    def wake_s(self) -> float:
        """When to ask again, should nothing be told before; infinite while idle."""
        if self._ended:
            return self._ended[0].end_s
        ends_s = self._batches[0][0] if self._batches else math.inf
        return min(ends_s, self._starts_s())

    def slow(self, slowdown: float, now_s: float) -> None:
        """Let batches that start from now on take so many times as long."""
        self._advance(now_s)
        self._slowdown = slowdown

    def _starts_s(self) -> float:
        """When an idle instance will have waited long enough; infinite where none is idle."""
        if not self._line or len(self._batches) >= self._spec.instances:
            return math.inf
        return self._line[0].started_s + self._spec.wait_max_s

    def _advance(self, now_s: float) -> None:
        while True:
            ends_s = self._batches[0][0] if self._batches else math.inf
            starts_s = self._starts_s()
            if min(ends_s, starts_s) > now_s:
                return
            if starts_s < ends_s:
                self._start(starts_s)
                continue
            _, _, jobs = heappop(self._batches)
            self._running -= len(jobs)
            for job in jobs:
                if job.state != ENDED:
                    job.state = ENDED
                    job.first_s = job.end_s = ends_s
                    self._ended.append(job)
            self._start(ends_s)

    def _start(self, at_s: float) -> None:
        """Start batches on idle instances: full ones, and those that have waited long enough."""
        spec = self._spec
        while self._line and len(self._batches) < spec.instances:
            if len(self._line) < spec.batch_max and self._starts_s() > at_s:
                return
            size = min(len(self._line), spec.batch_max)
            jobs = [self._line.popleft() for _ in range(size)]
            for job in jobs:
                job.state = DECODING
            self._order += 1
            self._running += size
            took_s = (spec.c0_s + spec.c1_s * size) * self._slowdown
            heappush(self._batches, (at_s + took_s, self._order, jobs))
