"""Writes what a study found as tables: CSV always, Parquet where polars or pyarrow is installed.

runs        a row for each point, policy and seed, a column for each measure
summary     a row for each point, policy and measure: mean, interval, seeds
paired      the same against the best static price, seed by seed
providers   a row for each provider of a run
endpoints   a row for each endpoint of a run
refusals    a row for each way a run's calls ended
course      the mean course of prices, load and demand over time
tuning      what the search for the best static price tried
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from simulations.cell import Outcome
from simulations.measures import MEASURES
from simulations.studies.plan import BEST_STATIC
from simulations.studies.results import Point, Results

Row = dict[str, Any]


def rows_of(results: Results) -> dict[str, list[Row]]:
    """Return all tables by name; a number that there is not is None."""
    return {name: list(make(results)) for name, make in _TABLES.items()}


def write_tables(results: Results, folder: Path) -> list[Path]:
    """Write every table that has rows; return the files."""
    written = []
    for name, rows in rows_of(results).items():
        if not rows:
            continue
        path = folder / f"{name}.csv"
        with path.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        written.append(path)
        if parquet := _write_parquet(rows, folder / f"{name}.parquet"):
            written.append(parquet)
    return written


def _write_parquet(rows: list[Row], path: Path) -> Path | None:
    if find_spec("polars"):
        import_module("polars").DataFrame(rows, infer_schema_length=None).write_parquet(path)
    elif find_spec("pyarrow"):
        table = import_module("pyarrow").Table.from_pylist(rows)
        import_module("pyarrow.parquet").write_table(table, path)
    else:
        return None
    return path


def _place(outcome: Outcome) -> Row:
    return _at(outcome.point) | {"policy": outcome.policy, "seed": outcome.seed}


def _at(point: Point) -> Row:
    return dict(point)


def _runs(results: Results) -> Iterator[Row]:
    for each in results.outcomes:
        yield _place(each) | {name: each.figures.get(name) for name in MEASURES}


def _summary(results: Results) -> Iterator[Row]:
    for point in results.plan.points:
        for policy in results.policies:
            for name in MEASURES:
                found = results.interval(name, policy, point)
                yield _at(point) | {
                    "policy": policy,
                    "measure": name,
                    "mean": _known(found.mean),
                    "low": _known(found.low),
                    "high": _known(found.high),
                    "seeds": found.count,
                }


def _paired(results: Results) -> Iterator[Row]:
    others = [each for each in results.policies if each != BEST_STATIC]
    if BEST_STATIC not in results.policies:
        return
    for point in results.plan.points:
        for policy in others:
            for name in MEASURES:
                found = results.difference(name, (policy, BEST_STATIC), point)
                yield _at(point) | {
                    "policy": policy,
                    "against": BEST_STATIC,
                    "measure": name,
                    "mean": _known(found.gap.mean),
                    "low": _known(found.gap.low),
                    "high": _known(found.gap.high),
                    "chance": _known(found.chance),
                    "seeds": found.gap.count,
                }


def _providers(results: Results) -> Iterator[Row]:
    for each in results.outcomes:
        for provider in each.providers:
            yield _place(each) | {
                "provider": provider.name,
                "sales_usd": provider.sales_usd,
                "take_usd": provider.take_usd,
                "serving_usd": provider.serving_usd,
                "servers_usd": provider.servers_usd,
                "profit_usd": provider.profit_usd,
                "break_even": _known(provider.break_even),
                "served": provider.served,
                "utilisation": provider.utilisation,
            }


def _endpoints(results: Results) -> Iterator[Row]:
    for each in results.outcomes:
        for endpoint in each.endpoints:
            told = asdict(endpoint)
            yield _place(each) | {"endpoint": told.pop("name")} | told


def _refusals(results: Results) -> Iterator[Row]:
    for each in results.outcomes:
        for code, calls in each.codes.items():
            yield _place(each) | {"code": code, "calls": calls}


def _course(results: Results) -> Iterator[Row]:
    for point in results.plan.points:
        for policy in results.policies:
            course = results.course(policy, point)
            if course is None:
                continue
            names = [each.name for each in results.of(policy, point)[0].endpoints]
            for place, at_s in enumerate(course.at_s):
                yield _at(point) | {
                    "policy": policy,
                    "at_s": at_s,
                    "offered_per_s": course.offered_per_s[place],
                    "served_per_s": course.served_per_s[place],
                    "worth_usd_per_s": course.worth_usd_per_s[place],
                    **{f"price {each}": course.price[i][place] for i, each in enumerate(names)},
                    **{f"load {each}": course.load[i][place] for i, each in enumerate(names)},
                }


def _tuning(results: Results) -> Iterator[Row]:
    for point, tuned in results.tuned.items():
        for factor, welfare in tuned.tried:
            yield _at(point) | {
                "list_times": factor,
                "welfare_usd_per_h": welfare,
                "is_best": factor == tuned.factor,
            }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


_TABLES: Mapping[str, Callable[[Results], Iterator[Row]]] = {
    "runs": _runs,
    "summary": _summary,
    "paired": _paired,
    "providers": _providers,
    "endpoints": _endpoints,
    "refusals": _refusals,
    "course": _course,
    "tuning": _tuning,
}
