"""Continuous batching in four numbers: a server that adds and drops calls between steps.

    step = c0 + c1 * sequences + c2 * kv_tokens + c3 * prefill_tokens

At each step those in the batch get a token each, or a chunk of their prompt; then calls are taken
from the line while there are places, room in the step and room in the KV cache. Where the cache
overflows, the call that came last gives its place up, keeps its place at the head of the line, and
has all of its tokens read again when it is back. So does vLLM (Kwon et al., "Efficient Memory
Management for Large Language Model Serving with PagedAttention", SOSP 2023) with chunked prefill
(Agrawal et al., "Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve", OSDI
2024). Steps in which nobody comes, goes or reads a prompt are taken together, in closed form, so
the work is that of the changes and not of the steps.
"""

from __future__ import annotations

import math
from collections import deque
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from simulations.servers.job import DECODING, ENDED, READING, WAITING, Job
from simulations.supply import BatchingServer


class Worked(NamedTuple):
    """What steps in a row worked on: sums over the steps, as the four numbers weigh them."""

    from_s: float
    to_s: float
    steps: int
    sequences: int
    kv_tokens: int
    prefill_tokens: int


class Batcher:
    """The server; see `simulations.servers.job.Server`."""

    def __init__(self, spec: BatchingServer) -> None:
        self.steps = 0
        self.preemptions = 0
        self.kv_tokens = 0
        """In the cache as of the last step that began."""
        self.log: list[Worked] | None = None
        """Where it is a list, what steps worked on is written there."""
        self._spec = spec
        self._slowdown = 1.0
        self._next_s = 0.0
        """When the next step begins; all before it are done."""
        self._line: deque[Job] = deque()
        self._batch: list[Job] = []
        """In the order in which they were taken in."""
        self._reading: list[Job] = []
        self._finishes: list[tuple[float, int, Job]] = []
        """Of those who decode, by the step that is their last."""
        self._ended: deque[Job] = deque()
        self._taken = 0

    @property
    def running(self) -> int:
        """Calls in the batch."""
        return len(self._batch)

    @property
    def waiting(self) -> int:
        """Calls in line."""
        return len(self._line)

    def submit(self, job: Job, now_s: float) -> None:
        """Put a call in line. It must fit the cache by itself, or it would be tried for ever."""
        assert self.fits(job), "a call larger than the cache is refused before it is submitted"
        self.advance(now_s)
        if not self._batch and not self._line:
            self._next_s = max(self._next_s, now_s)
            job.from_step = self.steps
        else:
            job.from_step = self.steps + self._spec.steps_ahead
        self._line.append(job)

    def fits(self, job: Job) -> bool:
        """True when the cache could hold all of its tokens."""
        return job.tokens_in + job.tokens_out <= self._spec.kv_tokens_max

    def cancel(self, job: Job, now_s: float) -> int:
        """Drop a call; return how many tokens it had made."""
        self.advance(now_s)
        if job.state == ENDED:
            if job in self._ended:
                self._ended.remove(job)
            return job.tokens_out
        made = self._made(job)
        if job.state == WAITING:
            self._line.remove(job)
        else:
            self._drop(job)
        job.state = ENDED
        return made

    def ended(self, now_s: float) -> list[Job]:
        """Return the calls that have ended by now, in order, each once."""
        self.advance(now_s)
        done = []
        while self._ended and self._ended[0].end_s <= now_s:
            done.append(self._ended.popleft())
        return done

    def wake_s(self) -> float:
        """When to ask again, should nothing be told before; infinite while idle."""
        if self._ended:
            return self._ended[0].end_s
        if not self._batch and not self._line:
            return math.inf
        if not self._reading and not self._may_take() and (steps := self._quiet_steps()):
            return self._next_s + self._span_s(steps)
        return math.nextafter(self._next_s, math.inf)

    def slow(self, slowdown: float, now_s: float) -> None:
        """Let steps take so many times as long from now on."""
        self.advance(now_s)
        self._slowdown = slowdown

    def advance(self, now_s: float) -> None:
        """Do all steps that begin before now."""
        while self._next_s < now_s and (self._batch or self._line):
            if self._reading or self._may_take():
                self._step()
            elif steps := self._quiet_steps():
                self._quiet(self._steps_before(now_s, steps))
            else:
                self._make_room(len(self._batch))

    def _quiet(self, steps: int) -> None:
        """Take steps in which all of the batch decode and none but the last ends a call."""
        from_s, size = self._next_s, len(self._batch)
        self._next_s += self._span_s(steps)
        self.steps += steps
        if self.log is not None:
            kv_tokens = steps * self.kv_tokens + size * (steps * (steps + 1) // 2)
            self.log.append(Worked(from_s, self._next_s, steps, steps * size, kv_tokens, 0))
        self.kv_tokens += steps * size
        self._finish()

    def _quiet_steps(self) -> int:
        """How many steps until a call ends or the cache is full; 0: it is full."""
        room = (self._spec.kv_tokens_max - self.kv_tokens) // len(self._batch)
        quiet = min(int(self._finishes[0][0]) - self.steps, room)
        if self._line and self._line[0].from_step > self.steps:
            return min(quiet, self._line[0].from_step - self.steps)
        return quiet

    def _span_s(self, steps: int) -> float:
        """How long so many quiet steps take: the cache grows by a token a call in each."""
        spec, size = self._spec, len(self._batch)
        first = spec.c0_s + spec.c1_s * size + spec.c2_s * (self.kv_tokens + size)
        span = steps * first + spec.c2_s * size * (steps * (steps - 1) / 2)
        return span * self._slowdown

    def _steps_before(self, now_s: float, most: int) -> int:
        """How many of them begin before now."""
        if self._next_s + self._span_s(most) < now_s:
            return most
        low, high = 1, most
        while low < high:
            middle = (low + high) // 2
            if self._next_s + self._span_s(middle) < now_s:
                low = middle + 1
            else:
                high = middle
        return low

    def _step(self) -> None:
        """Take one step in which prompts are read."""
        spec, preempted = self._spec, self.preemptions
        self._make_room(len(self._batch) - len(self._reading))
        decoding = len(self._batch) - len(self._reading)
        self.kv_tokens += decoding
        room, read = spec.step_tokens_max - decoding, 0
        for job in tuple(self._reading):
            read += self._read(job, room - read)
        while room > read and self.preemptions == preempted and self._may_take():
            read += self._read(self._take(), room - read)
        from_s, size = self._next_s, len(self._batch)
        took = spec.c0_s + spec.c1_s * size + spec.c2_s * self.kv_tokens + spec.c3_s * read
        self._next_s += took * self._slowdown
        self.steps += 1
        if self.log is not None:
            self.log.append(Worked(from_s, self._next_s, 1, size, self.kv_tokens, read))
        self._begin_decoding()
        self._finish()

    def _read(self, job: Job, room: int) -> int:
        """Read a chunk of a prompt, at the cost of those that came later; return its tokens."""
        if job.state != READING:
            return 0  # it has just given its place up
        chunk = max(min(job.left_in, room), 0)
        while self.kv_tokens + chunk > self._spec.kv_tokens_max:
            last = self._batch[-1]
            self._preempt()
            if last is job:
                return 0
        job.left_in -= chunk
        self.kv_tokens += chunk
        return chunk

    def _may_take(self) -> bool:
        if not self._line or len(self._batch) >= self._spec.batch_max:
            return False
        head = self._line[0]
        if head.from_step > self.steps and self._batch:
            return False
        chunk = min(head.left_in, self._spec.step_tokens_max)
        return self.kv_tokens + len(self._batch) + chunk <= self._spec.kv_tokens_max

    def _take(self) -> Job:
        job = self._line.popleft()
        job.state = READING
        self._taken += 1
        job.order = self._taken
        if math.isnan(job.started_s):
            job.started_s = self._next_s
        self._batch.append(job)
        self._reading.append(job)
        return job

    def _begin_decoding(self) -> None:
        """Those whose prompt is read have made a token with this step."""
        still = []
        for job in self._reading:
            if job.left_in:
                still.append(job)
                continue
            job.state = DECODING
            if math.isnan(job.first_s):
                job.first_s = self._next_s
            job.finish = self.steps + max(job.tokens_out - job.made - 1, 0)
            heappush(self._finishes, (job.finish, job.order, job))
        self._reading = still

    def _finish(self) -> None:
        while self._finishes and self._finishes[0][0] <= self.steps:
            job = heappop(self._finishes)[2]
            job.state = ENDED
            job.end_s = self._next_s
            self._batch.remove(job)
            self.kv_tokens -= job.tokens_in + max(job.tokens_out, 1) - 1
            self._ended.append(job)

    def _made(self, job: Job) -> int:
        if job.state != DECODING:
            return job.made
        return job.tokens_out - (int(job.finish) - self.steps)

    def _make_room(self, tokens: int) -> None:
        """Let calls give their places up until the cache has room for a token of each decoding."""
        while tokens and self.kv_tokens + tokens > self._spec.kv_tokens_max:
            tokens -= self._preempt()

    def _preempt(self) -> int:
        """Send the call that came last back to the head of the line; return 1 if it decoded."""
        job = self._batch[-1]
        decoded = int(job.state == DECODING)
        self._drop(job)
        job.left_in = job.tokens_in + job.made
        job.from_step = 0
        job.state = WAITING
        self._line.appendleft(job)
        self.preemptions += 1
        return decoded

    def _drop(self, job: Job) -> None:
        """Take a call out of the batch and its tokens out of the cache."""
        self._batch.remove(job)
        if job.state == READING:
            self._reading.remove(job)
            self.kv_tokens -= job.tokens_in + job.made - job.left_in
            return
        job.made = self._made(job)
        self.kv_tokens -= job.tokens_in + job.made - 1
        self._finishes = [each for each in self._finishes if each[2] is not job]
        heapify(self._finishes)
