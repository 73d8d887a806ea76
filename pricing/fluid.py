"""A market as a fluid: classes of calls that arrive at rates, and slots that work on them.

Randomness is gone and only rates are left, as in the deterministic problems that bound what any
policy can reach (Gallego & van Ryzin, "Optimal dynamic pricing of inventories with stochastic
demand over finite horizons", Management Science 40, 1994). Sparse: an arc is a class of calls
together with an endpoint that can serve it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pricing.book import FloatArray, IntArray


class FluidMalformed(ValueError):
    """The parts of a fluid market do not fit each other, or are no finite numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class FluidMarket:
    """Money is in any one unit; for prices as a book has them, in micro-dollars.

    `wanted` (classes) calls per second, `capacity` (resources) slots, `resource` (endpoints) the
    place in `capacity` that an endpoint works on. By arc: `arc_class`, `arc_endpoint`, `value` and
    `cost` money per call, `work` slot-seconds per call.
    """

    wanted: FloatArray
    capacity: FloatArray
    resource: IntArray
    arc_class: IntArray
    arc_endpoint: IntArray
    value: FloatArray
    cost: FloatArray
    work: FloatArray
    rate_work: FloatArray | None = None
    """Shape (3, endpoints): slot-seconds that a million tokens in, a million tokens out, and a
    thousand calls take, which turns money per slot-second into rates. None: in proportion to the
    list rates."""

    def __post_init__(self) -> None:
        arcs = self.arc_class.shape
        by_arc = (self.arc_endpoint, self.value, self.cost, self.work)
        if len(arcs) != 1 or any(each.shape != arcs for each in by_arc):
            raise FluidMalformed("the arrays of the arcs differ in length")
        for name, places, size in (
            ("class", self.arc_class, self.wanted.size),
            ("endpoint", self.arc_endpoint, self.resource.size),
            ("resource", self.resource, self.capacity.size),
        ):
            if places.size and not (places.min() >= 0 and places.max() < size):
                raise FluidMalformed(f"there is no {name} of such a number")
        for name in ("wanted", "capacity", "value", "cost", "work"):
            if not np.isfinite(getattr(self, name)).all():
                raise FluidMalformed(f"{name} is finite")
        for name in ("wanted", "capacity", "work"):
            array = getattr(self, name)
            if array.size and array.min() < 0.0:
                raise FluidMalformed(f"{name} is not below zero")
        if self.rate_work is not None and self.rate_work.shape != (3, self.resource.size):
            raise FluidMalformed("the work of rates has the shape (3, endpoints)")

    @classmethod
    def dense(
        cls,
        wanted: FloatArray,
        capacity: FloatArray,
        value: FloatArray,
        work: FloatArray,
        cost: FloatArray | float = 0.0,
    ) -> FluidMarket:
        """A market in which each endpoint has its own slots, from matrices (classes, endpoints).

        A value that is not finite says that the endpoint cannot serve the class. `cost` is money
        per slot-second, one for all or one per endpoint.
        """
        classes, endpoints = np.nonzero(np.isfinite(value))
        arc_work = np.broadcast_to(work, value.shape)[classes, endpoints]
        per_slot_s = np.broadcast_to(np.asarray(cost, dtype=np.float64), value.shape[1:])
        return cls(
            wanted=np.asarray(wanted, dtype=np.float64),
            capacity=np.asarray(capacity, dtype=np.float64),
            resource=np.arange(value.shape[1]),
            arc_class=classes,
            arc_endpoint=endpoints,
            value=value[classes, endpoints],
            cost=per_slot_s[endpoints] * arc_work,
            work=arc_work,
        )

    @property
    def arc_resource(self) -> IntArray:
        """What each arc takes slots of."""
        return self.resource[self.arc_endpoint]

    def only(self, endpoints: IntArray) -> FluidMarket:
        """The same market with these endpoints alone, renumbered in their order."""
        place = np.full(self.resource.size, -1)
        place[endpoints] = np.arange(endpoints.size)
        kept = np.flatnonzero(place[self.arc_endpoint] >= 0)
        return FluidMarket(
            wanted=self.wanted,
            capacity=self.capacity,
            resource=self.resource[endpoints],
            arc_class=self.arc_class[kept],
            arc_endpoint=place[self.arc_endpoint[kept]],
            value=self.value[kept],
            cost=self.cost[kept],
            work=self.work[kept],
            rate_work=None if self.rate_work is None else self.rate_work[:, endpoints],
        )
