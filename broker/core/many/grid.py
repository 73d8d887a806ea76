"""What calls of several kinds see of one market: a row for each kind, a column for each endpoint.

It is made of the very shortlists that `route` decides on, laid side by side, so that many calls can
be decided about together; it holds for as long as its market does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.core.candidates.eligibility import shortlist
from broker.core.candidates.scoring import normal
from broker.core.columns import Bools, Floats, Numbers
from broker.core.market import Market, Shortlist
from broker.core.requirements import Requirements
from broker.core.routing import wishes
from pricing.money import PICOS_PER_NANO
from pricing.tiers import Tier


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Arrays of shape (kinds, endpoints), or (kinds, 1) where all endpoints are alike, if nothing
    else is said. Build it with `build_grid`."""

    market: Market
    kinds: tuple[Requirements, ...]
    """What calls have in common; their own tokens and limits of cost are passed over."""
    numbers: Numbers
    """(endpoints,): those that may serve a call of any of the kinds, ascending."""
    servers: Numbers
    """(endpoints,): the deployment of each, as a place in `deployments`."""
    deployments: Numbers
    shared: bool
    """True where there are several endpoints on any of them."""
    capacity: Floats
    """(endpoints,)"""
    listed: Bools
    """Who meets the terms."""
    reasons: Numbers
    """The Rejection of who does not, 0 for who was not even considered."""
    exists: Bools
    """(kinds,): False where there is no such model, for which `route` answers None."""
    rates: Numbers
    """(3, kinds, endpoints): micro-dollars per million tokens in and out, nano-dollars a call."""
    prices: Floats
    """(3, kinds, endpoints): the same in pico-dollars."""
    context_tokens: Numbers
    """(endpoints,)"""
    output_tokens: Numbers
    """(endpoints,)"""
    merit: Floats
    """What quality and domain fit add to the score."""
    weights: Floats
    """(5, kinds, 1): of the parts of a score."""
    choices: Numbers
    generates: Bools
    yields: Bools
    """Kinds whose tier leaves room to others."""
    latency_ms_max: Floats
    """Infinite where the kind sets none."""
    is_hurried: bool
    """True where any kind sets one."""
    wishes: Numbers
    """Places in the order of providers that callers wish for."""
    wishful: Bools
    """(kinds,): those that have one."""


def build_grid(kinds: Sequence[Requirements], market: Market) -> Grid:
    """Lay the shortlists of these kinds of calls side by side. What a call says of its prompt, its
    conversation or the value of its answer is for `route` alone, and no kind may have it."""
    assert all((x.prompt, x.home, x.value_nanos) == (None, None, None) for x in kinds)
    lists = [shortlist(each, market) for each in kinds]
    known = [each for each in lists if each is not None]
    every = [np.zeros(0, dtype=np.int64), *(each.numbers for each in known)]
    numbers = np.unique(np.concatenate(every + [each.rejected for each in known]))
    columns = market.columns
    deployments, servers = np.unique(columns.deployment[numbers], return_inverse=True)
    shape = (len(kinds), numbers.size)
    listed, reasons = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=np.int64)
    rates, merit = np.zeros((3, *shape), dtype=np.int64), np.zeros(shape)
    weights = np.array([normal(each.weights) for each in kinds]).reshape(-1, 5)
    for row, found in enumerate(lists):
        if found is None:
            continue
        places = np.searchsorted(numbers, found.numbers)
        listed[row, places] = True
        reasons[row, np.searchsorted(numbers, found.rejected)] = found.reasons
        rates[:, row, places] = _rates(kinds[row], market, found)
        merit[row, places] = weights[row, 0] * found.quality + weights[row, 1] * found.domain_fit
    wishful = np.array([bool(each.providers_order) for each in kinds], dtype=bool)
    return Grid(
        market=market,
        kinds=tuple(kinds),
        numbers=numbers,
        servers=servers,
        deployments=deployments,
        shared=deployments.size < servers.size,
        capacity=columns.capacity[numbers],
        listed=listed,
        reasons=reasons,
        exists=np.array([each is not None for each in lists], dtype=bool),
        rates=rates,
        prices=rates * np.array([1.0, 1.0, PICOS_PER_NANO])[:, np.newaxis, np.newaxis],
        context_tokens=columns.context_tokens[numbers],
        output_tokens=columns.output_tokens[numbers],
        merit=merit,
        weights=weights.T[:, :, np.newaxis],
        choices=_column(each.choices for each in kinds),
        generates=_column(each.task.generates for each in kinds),
        yields=_column(each.tier.yields for each in kinds),
        latency_ms_max=_column(
            np.inf if each.latency_ms_max is None else each.latency_ms_max for each in kinds
        ),
        is_hurried=any(each.latency_ms_max is not None for each in kinds),
        wishes=np.array([wishes(each, market, numbers) for each in kinds]),
        wishful=wishful,
    )


def _column(values: Iterable[Any]) -> NDArray[Any]:
    return np.array(list(values))[:, np.newaxis]


def _rates(kind: Requirements, market: Market, found: Shortlist) -> Numbers:
    if kind.tier is Tier.STANDARD or market.quoted:
        return market.book.matrix(len(market.endpoints))[:, found.numbers]
    rates = [market.rate(number, kind.tier) for number in found.numbers.tolist()]
    rows = [(each.rate_in_micros, each.rate_out_micros, each.rate_call_nanos) for each in rates]
    return np.array(rows, dtype=np.int64).reshape(-1, 3).T
