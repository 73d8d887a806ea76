"""Limits the calls at each server to what it turns out to manage, whatever its provider declares.

The limits stand in the pulse, where routing finds them: an endpoint at its server's limit is full.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from broker.core.catalog import Endpoint
from broker.core.health.by_number import ByNumber
from broker.core.health.gradient import Gradient, is_of, kind_of
from broker.core.health.measured import Measured
from broker.core.health.pulse import Pulse
from broker.core.health.recent import Recent
from broker.core.outcome import Fault, Outcome

UNLIMITED: Final = np.inf
APART_S: Final = 0.02
"""Of a server that is far from full, so many seconds lie between two calls that are learned from:
more of the same say no more, and cost every fast call a fortieth of its time."""


OWN_SHARE: Final = 1.0
"""Where answers mostly take less than so many times what the process itself comes late, none of
them tells of the server: with more to do than it manages, it would find all servers slow."""


class Cut(NamedTuple):
    """An attempt that was given up before any content had come, or the whole of what is whole."""

    lasted_ms: float
    bytes_in: int
    streamed: bool


class ToldMany(NamedTuple):
    """Attempts that delivered, in order of time; lists of one length."""

    kinds: list[int]
    """As `gradient.kind_of`: of what was streamed, by the size in alone."""
    took_ms: list[float]
    under_way: list[int]
    """At its deployment when it ended, itself counted."""
    at_s: list[float]

    def apart(self, due_s: float) -> ToldMany:
        """Those from `due_s` on that are no closer to the one before than APART_S."""
        places = []
        for place, now_s in enumerate(self.at_s):
            if now_s >= due_s:
                due_s = now_s + APART_S
                places.append(place)
        if len(places) == len(self.at_s):
            return self
        return ToldMany(
            [self.kinds[each] for each in places],
            [self.took_ms[each] for each in places],
            [self.under_way[each] for each in places],
            [self.at_s[each] for each in places],
        )


class _Server(Gradient):
    """The limit of one deployment."""

    __slots__ = ("endpoint", "others")

    def __init__(self, most: float, endpoint: int, now_s: float) -> None:
        super().__init__(most, now_s)
        self.endpoint = endpoint
        """The number of the first that was called: mostly there is no other."""
        self.others: tuple[int, ...] = ()


class Throttle:
    """The limits of one process; all processes learn from their own calls, and count those of
    all. Endpoints of one deployment share its limit, as they share its places."""

    def __init__(self, pulse: Pulse, queue_factor: float) -> None:
        """`queue_factor` x capacity is the most that is ever under way, so no limit is above."""
        self._pulse = pulse
        self._queue_factor = queue_factor
        self._servers = Recent[int, _Server]()
        """By deployment number. What is usual of one that nobody calls is forgotten in time."""
        self._due_s = ByNumber()
        """By endpoint number: until then, nothing is learned of it while it is far from full."""
        self._cuts_due_s = ByNumber()
        """The same for those that are given up."""
        self.late_ms = 0.0
        """How late the process comes to what is due, as it measures now and then."""

    def limited(self) -> int:
        """Return how many servers are limited now."""
        return sum(each.limit < each.most for each in self._servers.every())

    def wants(self, endpoint: Endpoint, now_s: float) -> bool:
        """Return whether anything is to be learned of an attempt that delivers now."""
        number, deployment = endpoint.number, endpoint.deployment
        return (
            now_s >= self._due_s.get(number)
            or 4 * self._pulse.load_of(deployment.number) > deployment.capacity
            or self._pulse.limit_at[number] != UNLIMITED
        )

    def tell(
        self,
        endpoint: Endpoint,
        size: tuple[int, int],
        measured: Measured,
        now_s: float,
        *,
        streamed: bool = False,
    ) -> bool:
        """Be told of an attempt that delivered, before it is counted out; False where nothing is to
        be learned of it. `size` is of its request in bytes and of its answer in tokens. Of one that
        was `streamed` the time to the first token counts: the rest takes as long as its caller
        takes to read."""
        if not self.wants(endpoint, now_s):
            return False
        self._due_s.put(endpoint.number, now_s + APART_S)
        took_ms = measured.ttft_ms if streamed else measured.duration_ms
        if self._is_late(endpoint, streamed=streamed):
            return False
        under_way = self._pulse.load_of(endpoint.deployment.number)
        server = self._of(endpoint, now_s)
        kind = kind_of(size[0], 0 if streamed else size[1])
        if server.tell(kind, took_ms, under_way, now_s):
            self._set(server)
        return True

    def tell_many(self, endpoint: Endpoint, many: ToldMany) -> None:
        """The same of many at one endpoint, for who is never late. Which of them are wanted is
        judged by how things stand when this is told."""
        assert not self.late_ms, "whoever tells of many keeps a clock of his own"
        number = endpoint.number
        if not self.wants(endpoint, -math.inf):
            many = many.apart(self._due_s.get(number))
        if not many.at_s:
            return
        self._due_s.put(number, many.at_s[-1] + APART_S)
        server = self._of(endpoint, many.at_s[0])
        if server.tell_many(*many):
            self._set(server)

    def failed(self, endpoint: Endpoint, outcome: Outcome, cut: Cut | None, now_s: float) -> None:
        """Be told of an attempt that failed, before it is counted out; `cut` where it was given up
        for no fault of its own."""
        if cut is not None:
            self._cut(endpoint, cut, now_s)
        elif outcome.fault is Fault.OVERLOADED and outcome.status == 429:
            self._refused(endpoint, now_s)  # a 503 is of a server that is starting, or ill

    def _refused(self, endpoint: Endpoint, now_s: float) -> None:
        server = self._of(endpoint, now_s)
        if server.refused(self._pulse.load_of(endpoint.deployment.number), now_s):
            self._set(server)

    def _cut(self, endpoint: Endpoint, cut: Cut, now_s: float) -> None:
        number = endpoint.number
        if now_s < self._cuts_due_s.get(number) and self._pulse.limit_at[number] == UNLIMITED:
            return  # nor do more of these, and those that deliver are not all told either
        if self._is_late(endpoint, streamed=cut.streamed):
            return
        self._cuts_due_s.put(number, now_s + APART_S)
        under_way = self._pulse.load_of(endpoint.deployment.number)
        server = self._of(endpoint, now_s)
        if cut.streamed:
            one = kind_of(cut.bytes_in, 0)
            changed = server.cut(lambda kind: kind == one, cut.lasted_ms, under_way, now_s)
        else:
            size_in = cut.bytes_in
            changed = server.cut(lambda kind: is_of(kind, size_in), cut.lasted_ms, under_way, now_s)
        if changed:
            self._set(server)

    def _is_late(self, endpoint: Endpoint, *, streamed: bool) -> bool:
        # Not by how long this one took: that would leave those alone that took long.
        if streamed:
            usual_ms = self._pulse.ttft_ms.item(endpoint.number)
        else:
            usual_ms = self._pulse.service_s.item(endpoint.deployment.number) * 1_000
        return bool(usual_ms < OWN_SHARE * self.late_ms)

    def relax(self, now_s: float) -> None:
        """Be told, once a tick, that time passes."""
        for server in self._servers.every():
            if server.limit < server.most and server.relax(now_s):
                self._set(server)
        self._servers.turn(now_s, lambda server: server.limit < server.most)

    def _of(self, endpoint: Endpoint, now_s: float) -> _Server:
        deployment, number = endpoint.deployment, endpoint.number
        most = deployment.capacity * self._queue_factor
        try:
            server = self._servers[deployment.number]
        except KeyError:
            server = self._servers[deployment.number] = _Server(most, number, now_s)
        if server.most != most:
            server.allow(most)
            self._set(server)
        if number != server.endpoint and number not in server.others:
            server.others = (*server.others, number)
            self._set(server)
        return server

    def _set(self, server: _Server) -> None:
        limit = UNLIMITED if server.limit >= server.most else server.limit
        for number in (server.endpoint, *server.others):
            self._pulse.set_limit(number, limit)
