"""A server as a shared processor: all calls in service advance together, a token a step.

    step = c0 + c1 * calls in service

A prompt is read at once when its call is taken in: everybody waits for that. Who is in service has
therefore made as many tokens as the server's own count has grown since, and who ends next is known
by a heap of counts (Kleinrock, "Time-shared systems: a theoretical treatment", Journal of the ACM
14, 1967, with a limit on how many share). The time of the first token is that which is foreseen
when the call is taken in.
"""

from __future__ import annotations

import math
from collections import deque
from heapq import heapify, heappop, heappush

from simulations.servers.job import DECODING, ENDED, WAITING, Job
from simulations.supply import SharingServer


class Sharer:
    """The server; see `simulations.servers.job.Server`."""

    __slots__ = (
        "_count",
        "_ended",
        "_heap",
        "_line",
        "_now_s",
        "_order",
        "_slowdown",
        "_spec",
        "_stall_s",
        "_step_s",
    )

    def __init__(self, spec: SharingServer) -> None:
        self._spec = spec
        self._slowdown = 1.0
        self._now_s = 0.0
        self._count = 0.0
        """Tokens that a call in service since the beginning would have made."""
        self._stall_s = 0.0
        """How long prompts still have to be read before anybody goes on."""
        self._step_s = 0.0
        self._heap: list[tuple[float, int, Job]] = []
        self._line: deque[Job] = deque()
        self._ended: list[Job] = []
        self._order = 0

    @property
    def running(self) -> int:
        """Calls in service."""
        return len(self._heap)

    @property
    def waiting(self) -> int:
        """Calls in line."""
        return len(self._line)

    def submit(self, job: Job, now_s: float) -> None:
        """Take a call into service, or put it in line."""
        self._advance(now_s)
        if len(self._heap) < self._spec.batch_max:
            self._take(job)
        else:
            self._line.append(job)

    def cancel(self, job: Job, now_s: float) -> int:
        """Drop a call; return how many tokens it had made."""
        self._advance(now_s)
        if job.state == ENDED:
            if job in self._ended:
                self._ended.remove(job)
            return job.tokens_out
        state, job.state = job.state, ENDED
        if state == WAITING:
            self._line.remove(job)
            return 0
        left = job.finish - self._count
        self._heap = [each for each in self._heap if each[2] is not job]
        heapify(self._heap)
        self._leave()
        made = max(job.tokens_out - math.ceil(left), 0)
        return made if job.first_s <= now_s else 0

    def ended(self, now_s: float) -> list[Job]:
        """Return the calls that have ended by now, in order, each once."""
        self._advance(now_s)
        if not self._ended:
            return []
        done, self._ended = self._ended, []
        return done

    def wake_s(self) -> float:
        """When to ask again, should nothing be told before; infinite while idle."""
        if self._ended:
            return self._now_s
        if not self._heap:
            return math.inf
        steps = self._heap[0][0] - self._count
        return self._now_s + self._stall_s + steps * self._step_s

    def slow(self, slowdown: float, now_s: float) -> None:
        """Let everything take so many times as long from now on."""
        self._advance(now_s)
        self._stall_s *= slowdown / self._slowdown
        self._slowdown = slowdown
        self._pace()

    def _advance(self, now_s: float) -> None:
        """Go on until now, from end to end of a call."""
        heap = self._heap
        while heap:
            # Moments are compared, not spans, or a rest smaller than a moment can tell would stay.
            goes_on_s = self._now_s + self._stall_s
            if goes_on_s > now_s:
                self._stall_s = goes_on_s - now_s
                break
            ends_s = goes_on_s + (heap[0][0] - self._count) * self._step_s
            if ends_s > now_s:
                self._count += (now_s - goes_on_s) / self._step_s
                self._stall_s = 0.0
                break
            self._stall_s = 0.0
            self._now_s = ends_s
            self._count, _, job = heappop(heap)
            job.state = ENDED
            job.end_s = ends_s
            self._ended.append(job)
            self._leave()
        else:
            self._stall_s = 0.0
        self._now_s = max(self._now_s, now_s)

    def _leave(self) -> None:
        """Give a place that became free to who is first in line."""
        if self._line:
            self._take(self._line.popleft())
        else:
            self._pace()

    def _take(self, job: Job) -> None:
        self._order += 1
        job.state = DECODING
        job.started_s = self._now_s
        job.finish = self._count + max(job.tokens_out, 1)
        heappush(self._heap, (job.finish, self._order, job))
        self._stall_s += self._spec.prefill_s * job.tokens_in * self._slowdown
        self._pace()
        job.first_s = self._now_s + self._stall_s + self._step_s

    def _pace(self) -> None:
        spec = self._spec
        self._step_s = (spec.c0_s + spec.c1_s * len(self._heap)) * self._slowdown
