"""The course of a run on a grid of time that all runs of a scenario share, for plots and means."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from pricing.book import FloatArray
from simulations.measured.record import Run, Table
from simulations.scenario import Scenario

POINTS = 240


class Series(msgspec.Struct, frozen=True, eq=False):
    """Means over spans of equal length; NaN where an endpoint was away."""

    at_s: list[float]
    """The ends of the spans."""
    price: list[list[float | None]]
    """By endpoint, over the list price of the scenario as it is written."""
    load: list[list[float | None]]
    """By endpoint, as controllers see it."""
    offered_per_s: list[float]
    served_per_s: list[float]
    worth_usd_per_s: list[float]
    """Of the answers."""


def series_of(run: Run, scenario: Scenario) -> Series:
    """Bring a run onto the grid; `scenario` is the one as it is written."""
    edges = np.linspace(0.0, scenario.horizon_s, POINTS + 1)
    price = prices_over_list(run.ticks, scenario)
    demand, spans = run.demand, np.diff(edges)
    return Series(
        at_s=edges[1:].tolist(),
        price=_means(run.ticks, price, edges, len(run.endpoint_names)),
        load=_means(run.ticks, run.ticks["load"], edges, len(run.endpoint_names)),
        offered_per_s=(_sums(demand, "offered", edges) / spans).tolist(),
        served_per_s=(_sums(demand, "served", edges) / spans).tolist(),
        worth_usd_per_s=(_sums(demand, "worth_nanos", edges) / spans / 1e9).tolist(),
    )


def prices_over_list(ticks: Table, scenario: Scenario) -> FloatArray:
    """By row of the table of ticks, the price over the list price; a rate out where there is one,
    else in, else for the call, for all three move together. NaN while an endpoint is away."""
    bands = [each.band for _, each in scenario.endpoints]
    named = (
        ("price_out_micros", [each.list_out_micros for each in bands]),
        ("price_in_micros", [each.list_in_micros for each in bands]),
        ("price_call_nanos", [each.list_call_nanos for each in bands]),
    )
    endpoint = ticks["endpoint"].astype(np.int64)
    over = np.full(endpoint.size, np.nan)
    for column, listed in named:
        known = np.array(listed, dtype=np.float64)[endpoint]
        fits = np.isnan(over) & (known > 0.0)
        over[fits] = ticks[column][fits] / known[fits]
    over[~(ticks["present"] > 0.0)] = np.nan
    return over


def price_levels(run: Run, scenario: Scenario) -> tuple[FloatArray, FloatArray]:
    """By endpoint, the mean price over list by calls served after the warm-up, and these calls."""
    ticks, size = run.ticks, len(run.endpoint_names)
    counted = ticks["at_s"] > scenario.warm_up_s
    price = prices_over_list(ticks, scenario)
    served = np.where(counted & np.isfinite(price), ticks["served"], 0.0)
    endpoint = ticks["endpoint"].astype(np.int64)
    paid = np.bincount(endpoint, np.nan_to_num(price) * served, size)
    calls = np.bincount(endpoint, served, size).astype(np.float64)
    return np.divide(paid, calls, out=np.full(size, np.nan), where=calls > 0.0), calls


def mean_series(parts: Sequence[Series]) -> Series:
    """The mean over seeds, point by point, of what is known."""

    def mean(name: str) -> list[float]:
        rows = [getattr(each, name) for each in parts]
        return [float(each) for each in np.mean(rows, axis=0)]

    def by_endpoint(name: str) -> list[list[float | None]]:
        return plain(mean_known([known(getattr(each, name)) for each in parts]))

    return Series(
        at_s=parts[0].at_s,
        price=by_endpoint("price"),
        load=by_endpoint("load"),
        offered_per_s=mean("offered_per_s"),
        served_per_s=mean("served_per_s"),
        worth_usd_per_s=mean("worth_usd_per_s"),
    )


def known(rows: Sequence[Sequence[float | None]]) -> FloatArray:
    """Rows as an array, None as NaN."""
    return np.array(rows, dtype=np.float64)


def plain(array: FloatArray) -> list[list[float | None]]:
    """An array as rows, NaN as None."""
    return [[None if np.isnan(each) else float(each) for each in row] for row in array]


def mean_known(arrays: Sequence[FloatArray]) -> FloatArray:
    """The mean at each place of those that are a number there; NaN where none is."""
    stacked = np.array(arrays)
    told = np.isfinite(stacked)
    sums = np.where(told, stacked, 0.0).sum(axis=0)
    counts = told.sum(axis=0)
    mean: FloatArray = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return mean


def _means(
    table: Table, values: FloatArray, edges: FloatArray, endpoints: int
) -> list[list[float | None]]:
    """Means by endpoint and span; a span without a row takes over what was before."""
    place = np.clip(np.searchsorted(edges, table["at_s"], side="left") - 1, 0, edges.size - 2)
    told = np.isfinite(values)
    every = table["endpoint"].astype(np.int64) * (edges.size - 1) + place
    cell, shape = every[told], (endpoints, edges.size - 1)
    counts = np.bincount(cell, minlength=endpoints * shape[1]).reshape(shape)
    sums = np.bincount(cell, values[told], endpoints * shape[1]).reshape(shape)
    means = np.divide(sums, counts, out=np.full(shape, np.nan), where=counts > 0)
    # A row without a number is one too: an endpoint that is away leaves a gap.
    rows = np.bincount(every, minlength=endpoints * shape[1]).reshape(shape)
    latest = np.maximum.accumulate(np.where(rows > 0, np.arange(shape[1]), 0), axis=1)
    return plain(np.take_along_axis(means, latest, axis=1))


def _sums(table: Table, column: str, edges: FloatArray) -> FloatArray:
    """Sums of a column of the table of demand over the spans, its intervals cut where needed."""
    ends = np.unique(table["at_s"])
    place = np.searchsorted(ends, table["at_s"])
    total = np.concatenate(([0.0], np.cumsum(np.bincount(place, table[column], ends.size))))
    gone = np.interp(edges, np.concatenate(([0.0], ends)), total)
    summed: FloatArray = np.diff(gone)
    return summed
