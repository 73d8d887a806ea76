"""Who was slow when last asked is asked again now and then, for nobody else would find out.

Calls go to the fastest of equals, so of one that was slow nothing new is learned. What is usual of
each is followed by a median, with a step up or down a look, on a logarithmic scale (Robbins &
Monro, "A Stochastic Approximation Method", 1951). Who rests while it is slower than usual counts as
fast as usual until a call begins there, like a breaker that is half open; what that call shows
counts in full. The slower it was, the sooner it is asked: after a second if it took SLOW times as
long as usual, after 7 if 1.3 times, by the square of the logarithm; and whoever was SLOW is asked
before whoever was less so. Whose breaker is half open is asked as well: it looks as slow as before
it failed, and no call would probe it. These calls teach nothing of what is usual, however long it
stays slow, and they are no more than SHARE of all. Nobody is ejected for it: where latency does not
decide nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass
from typing import Final

import numpy as np

from broker.core.columns import Bools, Floats, Numbers
from broker.core.health.grouped import LATENCY_MS_MIN

LOOK_S: Final = 1.0
SLOW: Final = 2.0
SLOWER: Final = 1.2
"""Who takes less than so many times as long as usual is not asked: by so much servers vary."""
STEP: Final = 1.02
SHARE: Final = 0.01
"""So many of the calls at most go to who may still be slow, and so do not make the slowest
hundredth slower."""
SAVED_MAX: Final = 4.0
"""So many of them may be saved up."""
OFFERED_S: Final = 5.0
USUAL_TIMES: Final = 2.0
"""A call that finds out has so many times as long as such calls usually take, and OFFERED_S at
least: of an answer that comes whole nothing is seen before its end."""
UNWANTED_S: Final = 60.0
"""Who is wanted by no call within OFFERED_S is not offered again before that."""


@dataclass(slots=True)
class Offer:
    """That an endpoint counts as fast as usual until a call begins there, which finds out."""

    since_s: float
    slow_ms: tuple[float, float]
    """What it counts as from then on, until that call has shown something."""
    began_s: float | None = None
    """When that call began."""


class Revisits:
    """The revisits of one process. Latencies are of shape (2, endpoints): until the first token,
    and per token after it, in milliseconds; times are seconds of one monotonic clock."""

    def __init__(self, priors_ms: tuple[float, float]) -> None:
        """`priors_ms` are the latencies of who was never asked."""
        self._priors_ms = np.array(priors_ms)[:, np.newaxis]
        self._usual_ms = np.zeros((2, 0))
        """0 where it is not known."""
        self._asked = np.zeros(0, dtype=np.int64)
        self._saved = 0.0
        self._since_s = np.zeros(0)
        """When each was last asked, as far as looks tell, or offered."""
        self._not_before_s = np.zeros(0)
        self._over = set[int]()
        """Whose offers have ended since the last look."""
        self.offers: dict[int, Offer] = {}
        self.due_s = -math.inf
        """When to look again."""

    def look(self, latency_ms: Floats, asked: Numbers, out: Set[int], now_s: float) -> list[int]:
        """Return of whom `latency_ms` was changed to what counts from now on. `asked` is how many
        calls each has had so far; nobody is offered who is `out`, where no breaker lets a call."""
        self.due_s = now_s + LOOK_S
        self._grow(asked.size)
        since = asked - self._asked
        self._asked += since
        self._saved = min(self._saved + SHARE * since.sum().item(), SAVED_MAX)
        busy = since > 0
        self._since_s[busy] = now_s
        changed = self._withdraw(latency_ms, out, now_s)
        busy[[*self._over, *self.offers]] = False
        self._over.clear()
        self._learn(latency_ms, busy)
        if self._saved < 1.0:
            return changed
        slower = ((latency_ms > SLOWER * self._usual_ms) & (self._usual_ms > 0.0)).any(axis=0)
        slower &= ~busy & (now_s >= self._not_before_s)
        slower[[*self.offers, *(each for each in out if each < slower.size)]] = False
        return changed + self._offer(latency_ms, slower.nonzero()[0], now_s)

    def take(self, endpoint: int, now_s: float) -> tuple[float, float] | None:
        """Be told that a call begins; return what the endpoint counts as from now on, if it is the
        one that finds out: until it has shown something, nobody is to follow."""
        offer = self.offers.get(endpoint)
        if offer is None or offer.began_s is not None:
            return None
        offer.began_s = now_s
        return offer.slow_ms

    def taken(self) -> set[int]:
        """Return where such a call is under way."""
        return {each for each, offer in self.offers.items() if offer.began_s is not None}

    def is_late(self, endpoint: int, began_s: float | None) -> bool:
        """True for an ended call that began before the one that finds out: it tells how slow the
        endpoint was then. None: it is that one."""
        offer = self.offers.get(endpoint)
        return offer is not None and (offer.began_s is None or began_s not in (None, offer.began_s))

    def prove(self, endpoint: int, now_s: float, began_s: float) -> tuple[float, float] | None:
        """Be told that an answer has begun; return what the endpoint counts as, if it is that
        call's."""
        offer = self.offers.get(endpoint)
        if offer is None or offer.began_s != began_s:
            return None
        until_first_ms = max((now_s - began_s) * 1_000, LATENCY_MS_MIN)
        _, per_token_ms = self._usual_of(endpoint)
        self.end(endpoint)
        return until_first_ms, per_token_ms

    def end(self, endpoint: int) -> tuple[float, float] | None:
        """Be told that the call has ended; return what makes what it showed count in full, if it
        showed anything: the latencies of who was never asked."""
        if self.offers.pop(endpoint, None) is None:
            return None
        self._over.add(endpoint)
        until_first_ms, per_token_ms = self._priors_ms[:, 0].tolist()
        return until_first_ms, per_token_ms

    def _usual_of(self, endpoint: int) -> tuple[float, float]:
        """Return how fast one that is on offer usually is."""
        usual, slow = self._usual_ms[:, endpoint].tolist(), self.offers[endpoint].slow_ms
        return usual[0] or slow[0], usual[1] or slow[1]

    def _grow(self, size: int) -> None:
        more = size - self._asked.size
        if more:
            self._usual_ms = np.pad(self._usual_ms, ((0, 0), (0, more)))
            self._asked = np.pad(self._asked, (0, more))
            self._since_s = np.pad(self._since_s, (0, more))
            self._not_before_s = np.pad(self._not_before_s, (0, more), constant_values=-math.inf)

    def _withdraw(self, latency_ms: Floats, out: Set[int], now_s: float) -> list[int]:
        """End the offers that nobody has taken, and those of which nothing was heard for long."""
        unwanted = []
        for endpoint, offer in tuple(self.offers.items()):
            if now_s < self._until_s(endpoint, offer):
                if offer.began_s is None:  # whoever has ended meanwhile began before
                    latency_ms[:, endpoint] = self._usual_of(endpoint)
                continue
            if offer.began_s is None:
                if endpoint not in out:  # else nobody could have wanted it
                    self._not_before_s[endpoint] = now_s + UNWANTED_S
                latency_ms[:, endpoint] = offer.slow_ms
                self._saved = min(self._saved + 1.0, SAVED_MAX)  # it has cost no call
                unwanted.append(endpoint)
            self.end(endpoint)
        return unwanted

    def _until_s(self, endpoint: int, offer: Offer) -> float:
        """Return until when somebody is awaited, or what the call shows that has taken it."""
        if offer.began_s is None:
            return offer.since_s + OFFERED_S
        until_first_ms, _ = self._usual_of(endpoint)
        return offer.began_s + max(OFFERED_S, USUAL_TIMES * until_first_ms / 1_000)

    def _learn(self, latency_ms: Floats, busy: Bools) -> None:
        usual_ms = self._usual_ms
        first = (usual_ms == 0.0) & (latency_ms != self._priors_ms)
        step = np.clip(latency_ms, usual_ms / STEP, usual_ms * STEP)
        self._usual_ms = np.where(first, latency_ms, np.where(busy, step, usual_ms))

    def _offer(self, latency_ms: Floats, resting: Numbers, now_s: float) -> list[int]:
        offered: list[int] = self._worth_asking(latency_ms, resting, now_s).tolist()
        for endpoint in offered:
            self._saved -= 1.0
            self._since_s[endpoint] = now_s
            until_first, per_token = latency_ms[:, endpoint].tolist()
            self.offers[endpoint] = Offer(now_s, (until_first, per_token))
            latency_ms[:, endpoint] = self._usual_of(endpoint)
        return offered

    def _worth_asking(self, latency_ms: Floats, resting: Numbers, now_s: float) -> Numbers:
        """Return who of these has rested for long enough by how slow it was, as many as there are
        calls saved for: who was SLOW first, and then who has rested longest by that measure."""
        usual_ms, latency_ms = self._usual_ms[:, resting], latency_ms[:, resting]
        times = np.where(usual_ms > 0.0, latency_ms / np.maximum(usual_ms, LATENCY_MS_MIN), 1.0)
        slow = np.minimum(np.log(times.max(axis=0, initial=1.0)) / math.log(SLOW), 1.0)
        looks = (now_s - self._since_s[resting]) / LOOK_S * slow**2
        ready = ((slow == 1.0) | (looks >= 1.0)).nonzero()[0]
        order = np.lexsort((-looks[ready], slow[ready] < 1.0))
        first: Numbers = resting[ready[order[: int(self._saved)]]]
        return first
