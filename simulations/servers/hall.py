"""All servers of a market at once, as shared processors, from slice to slice of time.

Each is the server of `simulations.servers.sharing`, and what follows is exact but for one thing:
within a slice the length of a step is that of the mean number in service, and calls that end are
spread over the time that is not spent on prompts. With D the time left for tokens since the slice
began,

    count(t) = count + D(t) / step,   D(t) = max(0, max over prompts read by t of (a_i - C_i))

where prompt i is begun at a_i of the slice and C_i is the work of those before it (Lindley, "The
theory of queues with a single server", 1952): prompts are a queue that goes first, and tokens get
its idle time. A call taken in at t ends where the count has grown by its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pricing.book import FloatArray, IntArray
from simulations.columns import Columns
from simulations.supply import SharingServer

_TINY_S = 1e-12


@dataclass(slots=True, eq=False)
class Came(Columns):
    """Calls that come, in order of time; `slot` is theirs to be known by."""

    slot: IntArray
    server: IntArray
    at_s: FloatArray
    tokens_in: IntArray
    tokens_out: IntArray
    deadline_s: FloatArray

    @classmethod
    def none(cls) -> Came:
        """Nobody."""
        none, never = np.zeros(0, dtype=np.int64), np.zeros(0)
        return cls(none, none, never, none, none, never)


@dataclass(slots=True, eq=False)
class Gone(Columns):
    """Calls that have left."""

    slot: IntArray
    server: IntArray
    at_s: FloatArray
    first_s: FloatArray
    """When the first token came; NaN where none did."""
    left: FloatArray
    """Tokens still to be made when it left; 0 where it was done, infinite where it was in line."""


@dataclass(slots=True, eq=False)
class _Inside(Columns):
    """Calls in service."""

    slot: IntArray
    server: IntArray
    finish: FloatArray
    """Where the server's count stands when it is done."""
    first_s: FloatArray
    deadline_s: FloatArray
    from_s: FloatArray
    """When the slice began for it."""
    from_count: FloatArray
    """Where its server's count stood then."""


class Hall:
    """The servers. Arrays are by server."""

    def __init__(self, specs: Sequence[SharingServer]) -> None:
        self._c0_s = np.array([each.c0_s for each in specs])
        self._c1_s = np.array([each.c1_s for each in specs])
        self._prefill_s = np.array([each.prefill_s for each in specs])
        self._places = np.array([each.batch_max for each in specs], dtype=np.int64)
        self._slowdown = np.ones(len(specs))
        self._count = np.zeros(len(specs))
        """Tokens that a call in service since the beginning would have made."""
        self._stall_s = np.zeros(len(specs))
        """How long prompts still have to be read before anybody goes on."""
        self._now_s = 0.0
        none = np.zeros(0, dtype=np.int64)
        self._inside = _Inside(none, none, *[np.zeros(0)] * 5)
        self._line = Came.none()
        self.running: IntArray = np.zeros(len(specs), dtype=np.int64)
        self.waiting: IntArray = np.zeros(len(specs), dtype=np.int64)

    def slow(self, server: int, slowdown: float) -> None:
        """Let everything at a server take so many times as long from now on."""
        self._stall_s[server] *= slowdown / self._slowdown[server]
        self._slowdown[server] = slowdown

    def foreseen(self, to_s: float) -> tuple[IntArray, FloatArray]:
        """(server, when) of the calls that would leave before `to_s` if nobody came, by time."""
        inside = self._inside
        steps = inside.finish - self._count[inside.server]
        ends_s = self._now_s + self._stall_s[inside.server]
        ends_s += steps * self._step_s(self.running)[inside.server]
        ends_s = np.minimum(ends_s, inside.deadline_s)
        soon = (ends_s < to_s).nonzero()[0]
        soon = soon[ends_s[soon].argsort(kind="stable")]
        return inside.server[soon], ends_s[soon]

    def advance(self, to_s: float, came: Came) -> Gone:
        """Let time go by; return who leaves, by time. Those who come do so before `to_s`."""
        had_line = self.waiting > 0
        taken = self._admit(came)
        taken = taken.only(taken.server.argsort(kind="stable"))
        span_s = to_s - self._now_s
        prompts_s = self._prefill_s[taken.server] * self._slowdown[taken.server] * taken.tokens_in
        stalled_s, free_s = self._queue(taken, prompts_s)
        work_s = self._stall_s + np.bincount(taken.server, prompts_s, self._places.size)
        tokens_s = np.maximum(span_s - work_s, 0.0)
        np.maximum.at(tokens_s, taken.server, free_s)
        step_s = self._mean_step_s(to_s, taken, tokens_s, had_line)
        begun = self._count[taken.server] + free_s / step_s[taken.server]
        first_s = taken.at_s + stalled_s + prompts_s + step_s[taken.server]
        finish = begun + np.maximum(taken.tokens_out, 1)
        columns = (taken.slot, taken.server, finish, first_s, taken.deadline_s, taken.at_s, begun)
        self._inside.from_s = np.full(self._inside.slot.size, self._now_s)
        self._inside.from_count = self._count[self._inside.server]
        self._inside = self._inside.and_then(_Inside(*columns))
        before, self._count = self._count, self._count + tokens_s / step_s
        self._stall_s = work_s - span_s + tokens_s
        gone = self._leave(to_s)
        if self._line.slot.size:
            late = self._leave_line(to_s)
            self._refill(to_s, gone, before)
            gone = gone.and_then(late)
        self._now_s = to_s
        return gone.only(gone.at_s.argsort(kind="stable"))

    def eject(self, server: int) -> Gone:
        """Let all calls at a server go now, wherever they stand."""
        inside, line, now_s = self._inside, self._line, self._now_s
        hit, waits = inside.server == server, line.server == server
        leavers, others = inside.only(hit), line.only(waits)
        self._inside, self._line = inside.only(~hit), line.only(~waits)
        left = np.maximum(leavers.finish - self._count[server], 0.0)
        first_s = np.where(leavers.first_s <= now_s, leavers.first_s, np.nan)
        none = np.full(others.slot.size, np.nan)
        self._stall_s[server] = 0.0
        self._count_inside()
        return Gone(
            np.concatenate((leavers.slot, others.slot)),
            np.concatenate((leavers.server, others.server)),
            np.full(leavers.slot.size + others.slot.size, now_s),
            np.concatenate((first_s, none)),
            np.concatenate((left, none + np.inf)),
        )

    def opened(self, slots: IntArray, now_s: float) -> NDArray[np.bool_]:
        """Say of which calls the first token has come, of those in service."""
        inside = self._inside
        come = inside.slot[inside.first_s <= now_s]
        return np.isin(slots, come)

    def _admit(self, came: Came) -> Came:
        """Return who is taken in as he comes; the others go to the line."""
        size = self._places.size
        wanted = self.running + np.bincount(came.server, minlength=size)
        if not self._line.slot.size and not (wanted > self._places).any():
            return came
        free = np.where(self.waiting > 0, 0, self._places - self.running)
        taken = _ranks(came.server, size) < free[came.server]
        self._line = self._line.and_then(came.only(~taken))
        return came.only(taken)

    def _queue(self, taken: Came, prompts_s: FloatArray) -> tuple[FloatArray, FloatArray]:
        """For each prompt, by server and time: (how long it waits for others, how much time of the
        slice was left for tokens before it)."""
        server = taken.server
        before_s = prompts_s.cumsum() - prompts_s
        first = np.searchsorted(server, server)  # of the same server
        before_s += self._stall_s[server] - before_s[first]
        came_s = taken.at_s - self._now_s
        idle_s = came_s - before_s
        if idle_s.size:
            # A running maximum for each server: each is lifted above all of the one before it.
            lift = server * (idle_s.max() - idle_s.min() + 1.0)
            idle_s = np.maximum.accumulate(idle_s + lift) - lift
        free_s = np.maximum(idle_s, 0.0)
        return np.maximum(before_s - came_s + free_s, 0.0), free_s

    def _step_s(self, running: FloatArray | IntArray) -> FloatArray:
        step_s: FloatArray = (self._c0_s + self._c1_s * running) * self._slowdown
        return step_s

    def _mean_step_s(
        self, to_s: float, taken: Came, tokens_s: FloatArray, had_line: np.ndarray
    ) -> FloatArray:
        """How long a step takes in the slice, in the mean."""
        span_s = max(to_s - self._now_s, _TINY_S)
        stays = (to_s - taken.at_s) / span_s
        running = self.running + np.bincount(taken.server, stays, self._places.size)
        inside = self._inside
        needed_s = inside.finish - self._count[inside.server]
        needed_s *= self._step_s(running)[inside.server]
        share = needed_s / np.maximum(tokens_s, _TINY_S)[inside.server]
        soon = (share < 1.0).nonzero()[0]
        away = np.bincount(inside.server[soon], 1.0 - share[soon], self._places.size)
        # Who leaves before a line is followed at once.
        return self._step_s(running - np.where(had_line, 0.0, away))

    def _leave(self, to_s: float) -> Gone:
        """Let go who is done or late."""
        inside = self._inside
        count = self._count[inside.server]
        done = inside.finish <= count
        leaving = done | (inside.deadline_s <= to_s)
        leavers = inside.only(leaving)
        self._inside = inside.only(~leaving)
        pace = (count[leaving] - leavers.from_count) / np.maximum(to_s - leavers.from_s, _TINY_S)
        pace = np.maximum(pace, _TINY_S)
        ends_s = leavers.from_s + (leavers.finish - leavers.from_count) / pace
        ends_s = np.maximum(np.minimum(ends_s, to_s), leavers.from_s)
        late = ~done[leaving] | (leavers.deadline_s < ends_s)
        at_s = np.where(late, leavers.deadline_s, ends_s)
        made = leavers.from_count + pace * (at_s - leavers.from_s)
        left = np.where(late, np.maximum(leavers.finish - made, 0.0), 0.0)
        first_s = np.where(late, leavers.first_s, np.minimum(leavers.first_s, at_s))
        unheard = first_s > at_s
        left = np.where(unheard, np.maximum(left, 1.0), left)
        first_s = np.where(unheard, np.nan, first_s)
        gone = Gone(leavers.slot, leavers.server, at_s, first_s, left)
        self._count_inside()
        return gone

    def _leave_line(self, to_s: float) -> Gone:
        """Let go who is late and still in line."""
        line = self._line
        late = line.deadline_s <= to_s
        leavers = line.only(late)
        if leavers.slot.size:
            self._line = line.only(~late)
        none = np.full(leavers.slot.size, np.nan)
        return Gone(leavers.slot, leavers.server, leavers.deadline_s, none, none + np.inf)

    def _refill(self, to_s: float, gone: Gone, before: FloatArray) -> None:
        """Give each place that became free to who is first in line for it, at that moment."""
        line, size = self._line, self._places.size
        rank = _ranks(line.server, size)
        heads = rank < (self._places - self.running)[line.server]
        taken, rank = line.only(heads), rank[heads]
        self._line = line.only(~heads)
        order = np.lexsort((gone.at_s, gone.server))
        freed_s = np.append(gone.at_s[order], self._now_s)
        first = np.searchsorted(gone.server[order], np.arange(size + 1))
        place = first[taken.server] + rank
        place = np.where(place < first[taken.server + 1], place, gone.slot.size)
        at_s = np.maximum(freed_s[place], taken.at_s)
        prompts_s = self._prefill_s[taken.server] * self._slowdown[taken.server] * taken.tokens_in
        self._stall_s += np.bincount(taken.server, prompts_s, size)
        gained = (self._count - before)[taken.server]
        begun = before[taken.server] + gained * (at_s - self._now_s) / (to_s - self._now_s)
        finish = begun + np.maximum(taken.tokens_out, 1)
        first_s = at_s + prompts_s + self._step_s(self.running)[taken.server]
        columns = (taken.slot, taken.server, finish, first_s, taken.deadline_s, at_s, begun)
        self._inside = self._inside.and_then(_Inside(*columns))
        self._count_inside()

    def _count_inside(self) -> None:
        size = self._places.size
        self.running = np.bincount(self._inside.server, minlength=size)
        self.waiting = np.bincount(self._line.server, minlength=size)


def _ranks(server: IntArray, size: int) -> IntArray:
    """For each call how many before it are for the same server."""
    order = server.argsort(kind="stable")
    first = np.concatenate(([0], np.bincount(server, minlength=size).cumsum()))[:-1]
    ranks = np.empty(server.size, dtype=np.int64)
    ranks[order] = np.arange(server.size) - first[server[order]]
    return ranks
