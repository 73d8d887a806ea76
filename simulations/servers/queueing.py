"""Lines before servers that do one call at a time: M/M/k, and M/G/k with gamma service."""

from __future__ import annotations

import math
from collections import deque
from heapq import heapify, heappop, heappush
from random import Random

from simulations.servers.job import DECODING, ENDED, WAITING, Job
from simulations.supply import QueueingServer


class Queue:
    """The server; see `simulations.servers.job.Server`. How long a call takes is drawn as it
    starts."""

    def __init__(self, spec: QueueingServer, random: Random) -> None:
        self._spec = spec
        self._random = random
        self._slowdown = 1.0
        self._busy: list[tuple[float, int, Job]] = []
        self._line: deque[Job] = deque()
        self._ended: list[Job] = []
        self._order = 0

    @property
    def running(self) -> int:
        """Calls being worked on."""
        return len(self._busy)

    @property
    def waiting(self) -> int:
        """Calls in line."""
        return len(self._line)

    def submit(self, job: Job, now_s: float) -> None:
        """Start a call, or put it in line."""
        self._advance(now_s)
        if len(self._busy) < self._spec.servers:
            self._start(job, now_s)
        else:
            self._line.append(job)

    def cancel(self, job: Job, now_s: float) -> int:
        """Drop a call; return 0, for an answer comes whole or not at all."""
        self._advance(now_s)
        if job.state == ENDED:
            if job in self._ended:
                self._ended.remove(job)
            return job.tokens_out
        state, job.state = job.state, ENDED
        if state == WAITING:
            self._line.remove(job)
            return 0
        self._busy = [each for each in self._busy if each[2] is not job]
        heapify(self._busy)
        if self._line:
            self._start(self._line.popleft(), now_s)
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
        return self._busy[0][0] if self._busy else math.inf

    def slow(self, slowdown: float, now_s: float) -> None:
        """Let calls that start from now on take so many times as long."""
        self._advance(now_s)
        self._slowdown = slowdown

    def _advance(self, now_s: float) -> None:
        while self._busy and self._busy[0][0] <= now_s:
            end_s, _, job = heappop(self._busy)
            job.state = ENDED
            job.first_s = job.end_s = end_s
            self._ended.append(job)
            if self._line:
                self._start(self._line.popleft(), end_s)

    def _start(self, job: Job, at_s: float) -> None:
        spec = self._spec
        if spec.cv == 1.0:
            service_s = self._random.expovariate(1.0 / spec.mean_service_s)
        elif spec.cv == 0.0:
            service_s = spec.mean_service_s
        else:
            shape = spec.cv**-2
            service_s = self._random.gammavariate(shape, spec.mean_service_s / shape)
        self._order += 1
        job.state = DECODING
        job.started_s = at_s
        heappush(self._busy, (at_s + service_s * self._slowdown, self._order, job))
