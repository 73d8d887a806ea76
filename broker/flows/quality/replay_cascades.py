"""Replays cascades over a table that says how sure models were, beside routing without them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from broker.core.columns import Floats, Numbers
from broker.core.quality.cascade_replay import Asked, Calibration, Cascader, CascadeReplay
from broker.core.quality.from_tables import Evidence, Learned, learn_quality
from broker.core.quality.frontier import Measures, Replay, measure, reached
from broker.flows.quality.routing_table import RoutingTable

FOLDS = 4
_UNTOLD = 0.5
"""So sure is who never says so; any constant does, for it tells nothing."""
_RESAMPLES = 100
_SEED = 1


class CascadeReport(msgspec.Struct, frozen=True):
    """What cascades of two come to; `intervals` are 95 % by bootstrap."""

    measures: Measures
    intervals: dict[str, tuple[float, float]]
    gain_at_router_cost: float
    """Accuracy beyond that of routing alone, the mean over what routing may cost."""
    escalated: float
    """Share of calls with a second answer, at the least cost that reaches the best single model."""
    latency_ms: float | None
    """Mean at that point, both answers counted."""
    random_accuracy: float
    """There, of whoever asks as many again but by lot."""
    ece: float
    """Of calibrated confidence, the mean over the models that told theirs."""
    calibrations: list[Calibration]
    points: list[tuple[float, float]]
    """(USD a call, accuracy) at each price."""


def asked_of(table: RoutingTable, expected: Floats, costs_usd: Floats, domains: Numbers) -> Asked:
    """Return a table's rows for cascades; who does not say how sure it is, is so as usual."""
    told = np.isfinite(table.confidences)
    sums = np.where(told, table.confidences, 0.0).sum(axis=0)
    usual = np.where(told.any(axis=0), sums / np.maximum(told.sum(axis=0), 1), _UNTOLD)
    return Asked(
        expected=expected,
        costs_usd=costs_usd,
        scores=table.scores,
        confidences=np.where(told, table.confidences, usual),
        paid_usd=table.costs_usd,
        latency_ms=table.latency_ms,
        domains=domains,
    )


def expect_held_out(learned: Learned, seen: Evidence) -> Floats:
    """Return what is expected of rows by what was learned of the others."""
    folds = np.arange(len(seen.labels)) % FOLDS
    expected = np.zeros(seen.scores.shape)
    for fold in range(FOLDS):
        out = folds == fold
        others = Evidence(seen.vectors[~out], seen.labels[~out], seen.scores[~out])
        told = learn_quality(learned.groups, others)
        expected[out] = told.estimate(seen.vectors[out])
    return expected


def replay_cascades(
    seen: Asked,
    asked: Asked,
    models: tuple[str, ...],
    told: Sequence[int],
    routed: Replay,
    prices: Floats,
) -> CascadeReport:
    """Learn cascades of some rows and play them on others, beside routing alone; `told` are the
    places of the models that told how sure they were, one or more."""
    cascader = Cascader(seen)
    replay = cascader.play(asked, prices.tolist(), (routed.best, routed.cheapest))
    everyone = np.arange(len(asked.scores))
    costs, gains = replay.points(everyone)
    at = _cheapest_enough(costs, gains, float(asked.scores[:, routed.best].mean()))
    calibrations = cascader.calibrations(asked, models, told)
    return CascadeReport(
        measures=measure(replay, everyone),
        intervals=_intervals(replay),
        gain_at_router_cost=_gain(replay, routed, everyone),
        escalated=float((replay.begun[at] != replay.choices[at]).mean()),
        latency_ms=_latency_ms(replay, asked, at),
        random_accuracy=_by_lot(replay, asked, at),
        ece=float(np.mean([each.ece for each in calibrations])),
        calibrations=calibrations,
        points=list(zip(costs.tolist(), gains.tolist(), strict=True)),
    )


def _cheapest_enough(costs: Floats, gains: Floats, wanted: float) -> int:
    """Return the place of the least cost that is as good as wanted; else of the best."""
    enough = np.flatnonzero(gains >= wanted)
    if not enough.size:
        return int(gains.argmax())
    return int(enough[costs[enough].argmin()])


def _gain(replay: CascadeReplay, routed: Replay, calls: Numbers) -> float:
    costs, _ = routed.points(calls)
    spent = np.linspace(float(costs.min()), float(costs.max()), 101)
    with_it = reached(*replay.points(calls), spent)
    return float((with_it - reached(*routed.points(calls), spent)).mean())


def _latency_ms(replay: CascadeReplay, asked: Asked, at: int) -> float | None:
    if not np.isfinite(asked.latency_ms).all():
        return None
    rows = np.arange(len(asked.scores))
    first, last = replay.begun[at], replay.choices[at]
    both = first != last
    waited = asked.latency_ms[rows, first] + np.where(both, asked.latency_ms[rows, last], 0.0)
    return float(waited.mean())


def _by_lot(replay: CascadeReplay, asked: Asked, at: int) -> float:
    """Return the accuracy of whoever begins alike and asks again as often, but anywhere."""
    rows = np.arange(len(asked.scores))
    first, last = replay.begun[at], replay.choices[at]
    both = first != last
    if not both.any():
        return float(asked.scores[rows, first].mean())
    usual = asked.scores.mean(axis=0)[last[both]].mean()
    own = float(asked.scores[rows, first].mean())
    return own + float(both.mean()) * (float(usual) - own)


def _intervals(replay: CascadeReplay) -> dict[str, tuple[float, float]]:
    random = np.random.default_rng(_SEED)
    count = len(replay.scores)
    drawn: dict[str, list[float]] = {}
    for _ in range(_RESAMPLES):
        told = msgspec.structs.asdict(measure(replay, random.integers(0, count, count)))
        for name, value in told.items():
            if value is not None:
                drawn.setdefault(name, []).append(value)
    return {
        name: (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975)))
        for name, values in drawn.items()
    }
