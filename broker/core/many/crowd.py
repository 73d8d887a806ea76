"""Many calls at once, as each sees the market: `View`, `reject` and the score, a row for each call.

What calls bring along is worked out once for all of them. What depends on how full the endpoints
are is worked out for a part of them at a time, on the counts of that moment, for others of the
crowd may have been sent on their way by then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np

from broker.core.candidates.eligibility import Rejection
from broker.core.candidates.scoring import UNNOTICED_MS
from broker.core.candidates.view import TOKENS_OUT_EXPECTED, RoutingLimits
from broker.core.columns import NO_LIMIT_TOKENS, Bools, Floats, Numbers
from broker.core.health.pulse import Pulse
from broker.core.many.grid import Grid
from pricing.money import PICOS_PER_NANO

NO_LIMIT = -1
"""The output limit of who sets none."""
Part = slice | Numbers
ALL = slice(None)
_Strike = tuple[Bools, Rejection]


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Calls in the order in which they come; arrays of one length."""

    kind: Numbers
    """A row of the grid."""
    tokens_in_bound: Numbers
    tokens_in_expected: Numbers
    tokens_in_context: Numbers
    """What is expected to be in one context: of several texts, the longest."""
    tokens_out_max: Numbers
    """NO_LIMIT where the caller sets none."""
    max_cost_nanos: Floats
    """Whole numbers; infinite where the caller sets none."""
    chance: Floats
    """In [0, 1): by which one is drawn of those near the best."""

    @property
    def size(self) -> int:
        """How many."""
        return self.kind.size


class Crowd:
    """Arrays are of shape (calls, endpoints), or (calls, 1) where all endpoints are alike.

    Latencies, availability, breakers and limits are as of when it is made; but see `renew`. Token
    counts times rates must stay below 2^53, or costs are compared as exactly as floats are.
    """

    def __init__(
        self, asked: Asked, grid: Grid, pulse: Pulse, limits: RoutingLimits, now_s: float
    ) -> None:
        self.asked = asked
        self.grid = grid
        self._pulse = pulse
        self._ejected = pulse.doubts.ejected(grid.numbers, now_s)
        self._ttft_ms = pulse.ttft_ms[grid.numbers]
        self._availability = pulse.availability[grid.numbers]
        kind = asked.kind
        self._weights = grid.weights.take(kind, axis=1)
        self.choices = grid.choices.take(kind, axis=0)
        self._full = np.array([limits.full_for(each.tier) for each in grid.kinds])[:, np.newaxis]
        self._at_most: Floats | None = None
        if pulse.has_limits:
            self._at_most = self._full / limits.queue_factor * pulse.limit[grid.numbers]
        self._least_full = min(self._full.min(initial=1.0), 1.0)
        self.is_wishful = bool(grid.wishful.any())
        self.tokens_out = self.output_limits(limits)
        expected_out = np.minimum(self.tokens_out, float(TOKENS_OUT_EXPECTED))
        self._decoding_ms = pulse.tpot_ms[grid.numbers] * expected_out
        self._rates = grid.prices.take(kind, axis=1)
        self._cost = self._rates[1] * (self.choices * expected_out)
        self._cost += self._rates[0] * asked.tokens_in_expected[:, np.newaxis].astype(float)
        self._cost += self._rates[2]

    def renew(self, now_s: float) -> None:
        """Look again who is ejected and who has failed lately."""
        self._ejected = self._pulse.doubts.ejected(self.grid.numbers, now_s)
        self._availability = self._pulse.availability[self.grid.numbers]

    def loads(self) -> Floats:
        """(endpoints,): calls in flight over capacity, now."""
        grid = self.grid
        loads: Floats = self._pulse.load(grid.deployments)[grid.servers] / grid.capacity
        return loads

    def scores(self, load: Floats, part: Part) -> Floats:
        """Return the score of each endpoint for each call of a part, at these loads; -inf where it
        may not serve it."""
        free = np.maximum(np.minimum(1.25 - load, 1.0), 0.05) * self._availability
        scores: Floats = self._weights[4, part] * free
        if self._is_easy(load):
            scores += self._easy[part]
        else:
            standing = self._fit[part].copy()
            for bad, _ in self._amiss(load, standing, part):
                standing &= ~bad
            scores += self._worth(self._latency_ms(load, part), standing, part)
        return scores

    def reasons(self, load: Floats, part: Part) -> Numbers:
        """Return the first Rejection of each endpoint, 0 where it is eligible or not considered."""
        kind = self.asked.kind[part]
        reasons, standing = self.grid.reasons[kind], self.grid.listed[kind]
        unfit = ((bad[part], reason) for bad, reason in self._unfit)
        for bad, reason in chain(unfit, self._amiss(load, standing, part)):
            reasons[standing & bad] = reason
            standing &= ~bad
        return reasons

    @cached_property
    def _fit(self) -> Bools:
        """Who may serve a call, if it is not full."""
        fit = self.grid.listed.take(self.asked.kind, axis=0)
        for bad, _ in self._unfit:
            fit &= ~bad
        return fit

    @cached_property
    def _easy(self) -> Floats:
        """The score but for availability, where nobody is full."""
        return self._worth(self._latency_ms(np.zeros(1), ALL), self._fit, ALL)

    def _is_easy(self, load: Floats) -> bool:
        """True where nobody is struck for how things are now, or slower."""
        if self._ejected is not None or self._at_most is not None or self.grid.is_hurried:
            return False
        return bool(load.max(initial=0.0) < self._least_full)

    def _worth(self, latency_ms: Floats, standing: Bools, part: Part) -> Floats:
        """The score but for availability; -inf for who is struck."""
        merit = self.grid.merit.take(self.asked.kind[part], axis=0)
        by_cost, by_latency = self._weights[2, part], self._weights[3, part]
        parts = (self._cost[part], by_cost, 0.0), (latency_ms, by_latency, UNNOTICED_MS)
        for each, weight, unnoticed in parts:
            open_to = np.where(standing, each, np.inf)
            least = np.maximum(of_each(open_to, open_to.argmin(axis=1)), unnoticed)
            with np.errstate(invalid="ignore"):  # where nobody is left
                merit += weight * np.minimum(least[:, np.newaxis] / open_to, 1.0)
        return np.where(standing, merit, -np.inf)

    def _latency_ms(self, load: Floats, part: Part) -> Floats:
        latency: Floats = np.maximum(load, 1.0) * self._ttft_ms + self._decoding_ms[part]
        return latency

    def output_limits(self, limits: RoutingLimits) -> Numbers:
        asked, grid = self.asked, self.grid
        wanted = asked.tokens_out_max[:, np.newaxis]
        if (wanted == NO_LIMIT).any():
            prompt = np.minimum(asked.tokens_in_bound, 2 * asked.tokens_in_context + 64)
            room = np.maximum(grid.context_tokens - prompt[:, np.newaxis], 1)
            most = np.minimum(grid.output_tokens, limits.tokens_out_default)
            wanted = np.where(wanted == NO_LIMIT, np.minimum(most, room), wanted)
        if grid.generates.all():
            return wanted
        return np.where(grid.generates[asked.kind], wanted, 0)

    @cached_property
    def _unfit(self) -> tuple[_Strike, ...]:
        """Who is struck whenever the call comes."""
        asked, grid, strikes = self.asked, self.grid, []
        most = np.maximum(asked.tokens_out_max, 0)
        needed = asked.tokens_in_context + most
        if grid.context_tokens.min(initial=NO_LIMIT_TOKENS) < needed.max(initial=0):
            short = grid.context_tokens < needed[:, np.newaxis]
            strikes.append((short, Rejection.CONTEXT_TOO_SHORT))
        if grid.output_tokens.min(initial=NO_LIMIT_TOKENS) < most.max(initial=0):
            short = grid.output_tokens < most[:, np.newaxis]
            strikes.append((short, Rejection.OUTPUT_TOO_SHORT))
        ceiling = self._rates[0] * asked.tokens_in_bound[:, np.newaxis].astype(float)
        ceiling += self._rates[1] * (self.choices * self.tokens_out)
        ceiling += self._rates[2]
        picos = asked.max_cost_nanos * PICOS_PER_NANO
        strikes.append((ceiling > picos[:, np.newaxis], Rejection.COST_TOO_HIGH))
        return tuple(strikes)

    def _amiss(self, load: Floats, standing: Bools, part: Part) -> Iterator[_Strike]:
        """Who is struck as things are; `standing` is those not struck by what came before."""
        kind = self.asked.kind[part]
        if self.grid.is_hurried:
            latest_ms = self.grid.latency_ms_max[kind]
            yield self._latency_ms(load, part) > latest_ms, Rejection.TOO_SLOW
        if self._ejected is not None:
            # Were everything that is left ejected, trying one beats refusing: never eject all.
            others = (standing & ~self._ejected).any(axis=1, keepdims=True)
            yield self._ejected & others, Rejection.EJECTED
        yield load >= self._full[kind], Rejection.FULL
        if self._at_most is not None:
            yield load * self.grid.capacity >= self._at_most[kind], Rejection.FULL


def of_each(table: Floats, columns: Numbers) -> Floats:
    """Return what stands in one column of each row of a table that lies row by row in memory."""
    height, width = table.shape
    # Sooner than by two arrays of indices.
    return table.take(columns + np.arange(0, height * width, width))
