"""The best that a market can do, as linear programs: the yardstick of every price.

Welfare (arcs a of class c to endpoint e, working on resource r):

    max  sum_a x_a (value_a - cost_a)     flow x_a >= 0, calls per second
    s.t. sum_{a of c} x_a        <= wanted_c      dual u_c: surplus of one more call of the class
         sum_{a on r} work_a x_a <= capacity_r    dual l_r: worth of one more slot

With price_a = cost_a + work_a * l_r every class finds its flow no worse than any other: the duals
are prices of a competitive equilibrium, and by strong duality no policy, dynamic or not, makes more
than sum wanted*u + sum capacity*l (Shapley & Shubik 1971 for assignment; Gallego & van Ryzin 1994
for the fluid as a bound).

Revenue: whoever sets one price for all callers of a segment chooses how often each price of a menu
stands (deterministic linear program of Gallego & van Ryzin, "A multiproduct dynamic pricing
problem", Operations Research 45, 1997). Those who value a call less stay away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pricing.book import FloatArray, IntArray
from pricing.fluid import FluidMarket

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# scipy's optimizers take longer to import than all the rest of a command, and most commands never
# solve a market: they are imported where they are used.

SMALL_ARCS = 2_000
"""A market with fewer arcs is solved whole: looking for the right ones takes as long."""
ARCS_AT_ONCE = 8
"""How many arcs of each class, and as many of each resource, are handed to the solver at once."""
ROUNDS_MAX = 50
_TOLERANCE = 1e-9
"""Of the largest margin: a reduced cost below this is none."""
_GOLDEN = 0.6180339887498949


class EquilibriumUnsolved(ArithmeticError):
    """The solver gave up; its own words are the message."""


@dataclass(frozen=True, slots=True, eq=False)
class WelfareOptimum:
    """Money per second; `flow` by arc in calls per second, the duals as in the module."""

    welfare: float
    flow: FloatArray
    class_surplus: FloatArray
    congestion: FloatArray
    """Money per slot-second, by resource."""

    def prices(self, market: FluidMarket) -> FloatArray:
        """What a call costs on each arc: marginal cost + work * dual."""
        prices: FloatArray = market.cost + market.work * self.congestion[market.arc_resource]
        return prices


@dataclass(frozen=True, slots=True, eq=False)
class RevenueOptimum:
    """Money per second; `price_share[s, k]` how much of the time `menu[s, k]` stands."""

    revenue: float
    menu: FloatArray
    price_share: FloatArray
    congestion: FloatArray


def welfare_optimum(market: FluidMarket, before: WelfareOptimum | None = None) -> WelfareOptimum:
    """The welfare optimum and its prices, exact. Raises EquilibriumUnsolved.

    Only arcs that are best for their class or for their resource are handed to the solver at first,
    and others are added while any is worth more than the prices found (column generation; Dantzig &
    Wolfe, "Decomposition principle for linear programs", 1960). When none is, the prices prove the
    optimum of the whole market. `before` is the optimum of a similar market, from whose prices and
    flows this one is a step.
    """
    everything = np.arange(market.value.size)
    if everything.size <= SMALL_ARCS:
        return _solved(market, everything)
    margin = market.value - market.cost
    tolerance = _TOLERANCE * float(np.abs(margin).max())
    congestion = np.zeros(market.capacity.size)
    if before is not None and before.congestion.shape == congestion.shape:
        congestion = before.congestion
    surplus = _surplus_at(market, margin, congestion)
    arcs = _best(market, everything, _reduced(market, margin, surplus, congestion))
    if before is not None and before.flow.shape == everything.shape:
        arcs = np.union1d(arcs, np.flatnonzero(before.flow))
    for _ in range(ROUNDS_MAX):
        best = _solved(market, arcs)
        reduced = _reduced(market, margin, best.class_surplus, best.congestion)
        missing = np.flatnonzero(reduced > tolerance)
        if not missing.size:
            return best
        arcs = np.union1d(arcs, _best(market, missing, reduced))
    return _solved(market, everything)


def revenue_optimum(market: FluidMarket, segment: IntArray, prices_max: int = 40) -> RevenueOptimum:
    """The most that one price at a time for each segment earns after cost.

    `segment` (classes) tells whose callers cannot be told apart. A menu holds the values of its
    segment's calls, for no other price can be best; of more than `prices_max` it holds quantiles,
    and the result may then fall short of the bound by the gaps between them.
    Raises EquilibriumUnsolved.
    """
    from scipy.sparse import block_array

    menu = _menus(market, segment, prices_max)
    segments, prices = menu.shape
    classes, resources = market.wanted.size, market.capacity.size
    # A variable for each arc at each price that its class pays, then one for each price's share.
    arc, place = np.nonzero(market.value[:, np.newaxis] >= menu[segment[market.arc_class]])
    flows, shares = np.arange(arc.size), np.arange(menu.size)
    sold = _matrix(
        market.arc_class[arc] * prices + place,
        flows,
        np.ones(arc.size),
        (classes * prices, arc.size),
    )
    offered = _matrix(
        np.arange(classes * prices),
        (segment[:, np.newaxis] * prices + np.arange(prices)).ravel(),
        np.repeat(-market.wanted, prices),
        (classes * prices, menu.size),
    )
    used = _matrix(market.arc_resource[arc], flows, market.work[arc], (resources, arc.size))
    whole = _matrix(shares // prices, shares, np.ones(menu.size), (segments, menu.size))
    gain = menu[segment[market.arc_class[arc]], place] - market.cost[arc]
    value, best, duals = _maximum(
        np.concatenate((gain, np.zeros(menu.size))),
        block_array([[sold, offered], [used, None], [None, whole]], format="csr"),
        np.concatenate((np.zeros(classes * prices), market.capacity, np.ones(segments))),
    )
    congestion = duals[classes * prices :][:resources]
    return RevenueOptimum(value, menu, best[arc.size :].reshape(menu.shape), congestion)


def _menus(market: FluidMarket, segment: IntArray, prices_max: int) -> FloatArray:
    """Prices by segment, ascending, filled up with infinity, at which nothing is sold."""
    of_arc = segment[market.arc_class]
    values = [
        np.unique(market.value[of_arc == each]) for each in range(segment.max(initial=-1) + 1)
    ]
    menus = [
        each
        if each.size <= prices_max
        else np.quantile(each, np.linspace(0.0, 1.0, prices_max), method="nearest")
        for each in values
    ]
    menu = np.full((len(menus), max((each.size for each in menus), default=0)), np.inf)
    for row, each in zip(menu, menus, strict=True):
        row[: each.size] = each
    return menu


def _surplus_at(market: FluidMarket, margin: FloatArray, congestion: FloatArray) -> FloatArray:
    """What a call of each class gains at these prices, where it goes to the arc best for it."""
    surplus = np.zeros(market.wanted.size)
    gain = margin - market.work * congestion[market.arc_resource]
    np.maximum.at(surplus, market.arc_class, gain)
    return surplus


def _reduced(
    market: FluidMarket, margin: FloatArray, surplus: FloatArray, congestion: FloatArray
) -> FloatArray:
    """What one more call on each arc would gain over these prices; above zero for none at best."""
    reduced: FloatArray = (
        margin - surplus[market.arc_class] - market.work * congestion[market.arc_resource]
    )
    return reduced


def _best(market: FluidMarket, arcs: IntArray, reduced: FloatArray) -> IntArray:
    """Of these arcs the best few of each class and of each resource."""
    # Among equals the places are spread, or all classes would be sent to the same few endpoints.
    spread = (arcs * _GOLDEN) % 1.0
    order = np.lexsort((spread, -reduced[arcs]))
    chosen = np.zeros(arcs.size, dtype=bool)
    for group in (market.arc_class[arcs[order]], market.arc_resource[arcs[order]]):
        by_group = np.argsort(group, kind="stable")
        first = np.searchsorted(group[by_group], group[by_group])
        chosen[by_group[np.arange(arcs.size) - first < ARCS_AT_ONCE]] = True
    best: IntArray = np.sort(arcs[order[chosen]])
    return best


def _rows(market: FluidMarket) -> int:
    return market.wanted.size + market.capacity.size


def _solved(market: FluidMarket, arcs: IntArray) -> WelfareOptimum:
    """The optimum over these arcs alone."""
    classes = market.wanted.size
    places = np.arange(arcs.size)
    rows = _matrix(
        np.concatenate((market.arc_class[arcs], classes + market.arc_resource[arcs])),
        np.concatenate((places, places)),
        np.concatenate((np.ones(arcs.size), market.work[arcs])),
        (_rows(market), arcs.size),
    )
    most = np.concatenate((market.wanted, market.capacity))
    welfare, best, duals = _maximum((market.value - market.cost)[arcs], rows, most)
    flow = np.zeros(market.value.size)
    flow[arcs] = best
    return WelfareOptimum(welfare, flow, duals[:classes], duals[classes:])


def _matrix(
    rows: IntArray, columns: IntArray, values: FloatArray, shape: tuple[int, int]
) -> csr_array:
    from scipy.sparse import csr_array

    return csr_array((values, (rows, columns)), shape=shape)


def _maximum(
    gain: FloatArray, rows: csr_array, most: FloatArray
) -> tuple[float, FloatArray, FloatArray]:
    """The maximum of `gain @ x` with `rows @ x <= most` and `x >= 0`: value, x, duals."""
    from scipy.optimize import linprog

    if not gain.size:
        return 0.0, gain, np.zeros(most.size)
    # Money may come in micro-dollars and the solver's tolerances are absolute, so it is scaled.
    scale = float(np.abs(gain).max()) or 1.0
    # Among ties a simplex wanders from vertex to vertex, which an interior point does not.
    found = linprog(-gain / scale, A_ub=rows, b_ub=most, method="highs-ipm")
    if found.x is None or found.status != 0:
        raise EquilibriumUnsolved(found.message)
    duals: FloatArray = -scale * found.ineqlin.marginals
    return -scale * float(found.fun), found.x, np.maximum(duals, 0.0)
