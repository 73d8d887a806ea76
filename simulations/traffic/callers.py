"""The calls of all classes in order of time, as columns: when, how long, worth what.

Each class draws moments, lengths and values from sources of its own, in blocks, so what it asks
for is the same however time is cut and whatever becomes of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pricing.book import FloatArray, IntArray
from simulations.chance import generator
from simulations.demand import ConsumerClass, Lengths, Shape, Trace, Value
from simulations.traffic.arrivals import moments

CALLS_AT_ONCE = 2_048
"""About so many are drawn together."""
_NANOS_PER_USD = 1e9


@dataclass(frozen=True, slots=True, eq=False)
class Calls:
    """Calls by arrival; arrays of one length."""

    consumer_class: IntArray
    arrival_s: FloatArray
    tokens_in: IntArray
    tokens_out: IntArray
    offer_nanos: FloatArray
    """What an answer would be worth, and so the most that is paid; may be infinite."""

    @property
    def size(self) -> int:
        """How many."""
        return self.arrival_s.size

    def only(self, places: IntArray | slice) -> Calls:
        """Those at these places."""
        return Calls(*(getattr(self, name)[places] for name in self.__slots__))


class Callers:
    """All classes of a scenario."""

    def __init__(self, classes: tuple[ConsumerClass, ...], seed: int) -> None:
        self._classes = [_Class(place, each, seed) for place, each in enumerate(classes)]

    def until(self, to_s: float) -> Calls:
        """The calls before `to_s` that have not been handed out before, in order of time."""
        parts = [each.until(to_s) for each in self._classes]
        columns = [
            np.concatenate([getattr(part, name) for part in parts]) for name in Calls.__slots__
        ]
        calls = Calls(*columns)
        return calls.only(np.argsort(calls.arrival_s, kind="stable"))

    def each(self, horizon_s: float) -> Iterator[tuple[int, float, int, int, float]]:
        """All calls before the horizon, (class, moment, tokens in, tokens out, worth)."""
        for calls in self.blocks(horizon_s):
            columns = (getattr(calls, name).tolist() for name in Calls.__slots__)
            yield from zip(*columns, strict=True)

    def blocks(self, horizon_s: float) -> Iterator[Calls]:
        """All calls before the horizon, in blocks of about as many as are drawn together."""
        from_s, span_s = 0.0, 1.0
        while from_s < horizon_s:
            from_s = min(from_s + span_s, horizon_s)
            calls = self.until(from_s)
            yield calls
            span_s *= min(max(CALLS_AT_ONCE / max(calls.size, 1), 0.5), 2.0)


class _Class:
    """One class: blocks of its calls, cut where they are asked for."""

    def __init__(self, place: int, of: ConsumerClass, seed: int) -> None:
        self._place = place
        self._of = of
        self._moments = moments(of.arrivals, generator(seed, "arrivals", of.name))
        self._lengths = generator(seed, "lengths", of.name)
        self._values = generator(seed, "values", of.name)
        self._drawn = 0
        self._kept = self._block(np.zeros(0))

    def until(self, to_s: float) -> Calls:
        blocks = [self._kept]
        while not blocks[-1].size or blocks[-1].arrival_s[-1] < to_s:
            arrival_s = next(self._moments, None)
            if arrival_s is None:
                break
            blocks.append(self._block(arrival_s))
        calls = Calls(
            *(np.concatenate([getattr(each, name) for each in blocks]) for name in Calls.__slots__)
        )
        end = int(np.searchsorted(calls.arrival_s, to_s))
        self._kept = calls.only(slice(end, None))
        return calls.only(slice(end))

    def _block(self, arrival_s: FloatArray) -> Calls:
        of, size = self._of, arrival_s.size
        tokens_in, tokens_out = self._told_lengths(size)
        if tokens_in is None:
            tokens_in = lengths(of.tokens_in, size, self._lengths)
        if tokens_out is None:
            tokens_out = lengths(of.tokens_out, size, self._lengths)
        self._drawn += size
        offer = values(of.value, size, self._values) * _NANOS_PER_USD
        if of.value.by_length:
            offer *= (tokens_in + tokens_out) / of.tokens_mean
        places = np.full(size, self._place)
        return Calls(places, arrival_s, tokens_in, tokens_out, offer)

    def _told_lengths(self, size: int) -> Iterator[IntArray | None]:
        """Lengths in and out where the class plays a trace that has them."""
        trace, here = self._of.arrivals, slice(self._drawn, self._drawn + size)
        for name in ("tokens_in", "tokens_out"):
            told = getattr(trace, name) if isinstance(trace, Trace) else ()
            yield np.array(told[here], dtype=np.int64) if told else None


def lengths(spec: Lengths, size: int, rng: np.random.Generator) -> IntArray:
    """So many token counts, at least 1."""
    if spec.cv == 0.0:
        return np.full(size, max(round(spec.mean), 1))
    sigma = math.sqrt(math.log1p(spec.cv**2))
    drawn = rng.lognormal(math.log(spec.mean) - sigma**2 / 2.0, sigma, size)
    return np.clip(np.rint(drawn), 1, spec.most).astype(np.int64)


def values(spec: Value, size: int, rng: np.random.Generator) -> FloatArray:
    """So many values in USD, of calls of the mean length."""
    match spec.shape:
        case Shape.FIXED:
            drawn = np.full(size, spec.mean_usd)
        case Shape.UNIFORM:
            drawn = rng.uniform(0.0, 2.0 * spec.mean_usd, size)
        case Shape.EXPONENTIAL:
            drawn = rng.exponential(spec.mean_usd, size)
        case Shape.LOGNORMAL:
            sigma = math.sqrt(math.log1p(spec.cv**2))
            drawn = rng.lognormal(math.log(spec.mean_usd) - sigma**2 / 2.0, sigma, size)
        case Shape.ISOELASTIC:
            drawn = spec.mean_usd * (1.0 - rng.random(size)) ** (-1.0 / spec.elasticity)
    capped: FloatArray = np.minimum(drawn, spec.most_usd)
    return capped
