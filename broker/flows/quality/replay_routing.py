"""Replays routing over a table of known answers: learns of some rows, and routes the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from broker.core.columns import Bools, Floats, Numbers
from broker.core.quality.domains import Recogniser, learn
from broker.core.quality.fitting import calibration_error, calibration_error_by_chance
from broker.core.quality.from_tables import Evidence, Learned, learn_quality
from broker.core.quality.frontier import Measures, Replay, measure, replay_of
from broker.core.quality.groups import make_groups
from broker.core.quality.spending import Spent, replay_budget
from broker.core.quality.worth import choose
from broker.encoding.encoder import Encoder
from broker.errors import RequestMalformed
from broker.flows.quality.learn_domains import encode_strangers
from broker.flows.quality.replay_cascades import (
    CascadeReport,
    asked_of,
    expect_held_out,
    replay_cascades,
)
from broker.flows.quality.replay_feedback import LearnedBy, Lesson, replay_feedback
from broker.flows.quality.routing_table import RoutingTable, require_alike

LEAST_WORTH = 1e-4
"""Score of about a call with the dearest model at the lowest price of money,"""
DECADES = 10
"""and by so many powers of ten the highest is above that,"""
STEPS = 16
"""in so many steps each."""
_TINY_USD = 1e-12
EXAMPLES_MIN = 8
"""Tasks with fewer rows to learn from are taken together."""
RESAMPLES = 200
BUDGETS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of the way from the cheapest model's cost to the best router's, in ratios."""
FREE_SHARE = 1e-3
"""Where the cheapest model is free: budgets begin at so much of the best router's cost."""
SHIFT = 5.0
SURE_SHARE = 0.5
"""Of rows that must say how sure a model was, for its word to count; where one's does, cascades are
replayed."""
RARE = "(rare)"
_ROUNDING = 1e-9
_SEED = 1


class Report(msgspec.Struct, frozen=True):
    """What came of it; `intervals` are 95 % by bootstrap, `ablations` accuracy at best quality.

    `rows_left_out` were to be routed and lack a score or a cost of some model; those to learn from
    that do are learned from.

    `ece` is how far expected scores were off, `ece_by_chance` how far it would seem so if they were
    right, for so few rows.
    """

    rows: int
    rows_train: int
    rows_left_out: int
    models: tuple[str, ...]
    best_single: str
    cheapest: str
    accuracy_max_quality: float
    cost_saved_at_best_single: float | None
    aiq: float
    best_single_accuracy: float
    task_oracle_accuracy: float
    ece: float
    ece_by_chance: float
    ece_domain: float
    domain_accuracy: float
    measures: Measures
    intervals: dict[str, tuple[float, float]]
    ablations: dict[str, float]
    budgets: list[Spent]
    points: list[tuple[float, float]]
    """(USD a call, accuracy) at each price."""
    singles: dict[str, tuple[float, float]]
    """The same of each model alone."""
    cascade: CascadeReport | None = None
    """Of cascades, where the rows say how sure models were."""
    feedback: list[LearnedBy] | None = None
    """Of learning from one model's score of each prompt alone, where that was asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class _Case:
    """A table of which some rows were learned from and the others are to be routed."""

    train: RoutingTable
    test: RoutingTable
    labels: Numbers
    """Of the rows learned from."""
    learned: Learned
    vectors: Floats
    """Of the rows to be routed."""
    train_vectors: Floats
    strangers: Floats


def replay_routing(
    train: RoutingTable,
    test: RoutingTable,
    encoder: Encoder,
    *,
    resamples: int = RESAMPLES,
    feedback_calls: int = 0,
) -> Report:
    """Learn from `train`, route `test`. Raises RequestMalformed where there is too little.

    With `feedback_calls`, learn from the feedback on so many calls alone as well.
    """
    wanted, test = len(test.prompts), test.rows(test.whole)
    if not test.prompts:
        raise RequestMalformed("No row to be routed has a score and a cost of every model.")
    case = _learn(train, test, encoder)
    expected = case.learned.estimate(case.vectors)
    costs = _expected_costs(case, case.vectors, test)
    best, cheapest = int(_means(train.scores).argmax()), int(_means(train.costs_usd).argmin())
    choices = np.array([choose(expected, costs, price) for price in _prices(costs)])
    replay = replay_of(choices, test.scores, test.costs_usd, best, cheapest)
    everyone = np.arange(len(test.prompts))
    told = measure(replay, everyone)
    foretold = expected[everyone, choices[0]], test.scores[everyone, choices[0]]
    confidence, right = _recognised(case)
    return Report(
        rows=len(test.prompts),
        rows_train=len(train.prompts),
        rows_left_out=wanted - len(test.prompts),
        models=test.models,
        best_single=test.models[best],
        cheapest=test.models[cheapest],
        accuracy_max_quality=told.accuracy_max_quality,
        cost_saved_at_best_single=told.cost_saved_at_best_single,
        aiq=told.aiq,
        best_single_accuracy=told.best_single_accuracy,
        task_oracle_accuracy=_task_oracle(train, test, best),
        ece=calibration_error(*foretold),
        ece_by_chance=calibration_error_by_chance(*foretold),
        ece_domain=calibration_error(confidence, right),
        domain_accuracy=float(right.mean()),
        measures=told,
        intervals=_intervals(replay, resamples),
        ablations=_ablations(case),
        budgets=_budgets(case, (expected, costs), told) if test.metered else [],
        points=list(zip(*(each.tolist() for each in replay.points(everyone)), strict=True)),
        singles=_alone(test),
        cascade=_cascade(case, (expected, costs), replay),
        feedback=_feedback(case, feedback_calls, told.accuracy_max_quality),
    )


def _alone(test: RoutingTable) -> dict[str, tuple[float, float]]:
    means = zip(
        test.costs_usd.mean(axis=0).tolist(), test.scores.mean(axis=0).tolist(), strict=True
    )
    return dict(zip(test.models, means, strict=True))


def _feedback(case: _Case, calls: int, full_accuracy: float) -> list[LearnedBy] | None:
    if not calls:
        return None
    whole = case.train.whole
    if not whole.any():
        raise RequestMalformed("No row to learn from has a score and a cost of every model.")
    train, test = (case.train_vectors[whole], case.train.scores[whole]), case.test.scores
    lesson = Lesson(case.learned.recogniser, train, (case.vectors, test))
    return replay_feedback(lesson, calls, full_accuracy)


def _prices(costs_usd: Floats) -> Floats:
    """Return prices of money, score per dollar, for calls of such costs. The first is quality
    alone; the next is a power of ten, so that tables much alike are replayed at the same ones."""
    dearest = max(float(_means(costs_usd).max()), _TINY_USD)
    lowest = 10.0 ** round(np.log10(LEAST_WORTH / dearest))
    highest = lowest * 10.0**DECADES
    return np.concatenate(([0.0], np.geomspace(lowest, highest, DECADES * STEPS + 1)))


def _cascade(case: _Case, expected: tuple[Floats, Floats], replay: Replay) -> CascadeReport | None:
    whole = case.train.whole
    train, test, own = case.train.rows(whole), case.test, case.labels[whole]
    told = _told(train) & _told(test)
    if len(test.models) < 2 or len(train.prompts) < EXAMPLES_MIN or not told.any():
        return None
    train, test = (
        replace(each, confidences=np.where(told, each.confidences, np.nan))
        for each in (train, test)
    )
    vectors = case.train_vectors[whole]
    costs = _expected_costs(case, vectors, train)
    held_out = expect_held_out(case.learned, Evidence(vectors, own, train.scores))
    labels = case.learned.recogniser.among_known(case.learned.recogniser.standardise(case.vectors))
    seen = asked_of(train, held_out, costs, own)
    asked = asked_of(test, *expected, labels.argmax(axis=1))
    places = np.flatnonzero(told).tolist()
    return replay_cascades(seen, asked, test.models, places, replay, _prices(expected[1]))


def _told(table: RoutingTable) -> Bools:
    """Say which models told how sure they were, of most rows."""
    known = np.isfinite(table.confidences).sum(axis=0)
    return np.asarray(known > SURE_SHARE * len(table.prompts))


def _means(values: Floats) -> Floats:
    """Return the mean of each column, of what is known in it."""
    known = np.isfinite(values)
    return np.asarray(np.where(known, values, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1))


def _learn(train: RoutingTable, test: RoutingTable, encoder: Encoder) -> _Case:
    require_alike(train, test)
    names, labels = _labelled(train)
    vectors = np.array([encoder.encode(each) for each in train.prompts], dtype=np.float64)
    strangers = encode_strangers(encoder)
    recogniser = learn(names, labels, vectors, strangers, encoder.meaning)
    groups = make_groups(recogniser, vectors, labels)
    learned = learn_quality(groups, Evidence(vectors, labels, train.scores))
    routed = np.array([encoder.encode(each) for each in test.prompts], dtype=np.float64)
    return _Case(train, test, labels, learned, routed, vectors, strangers)


def _labelled(train: RoutingTable) -> tuple[list[str], Numbers]:
    """Return the tasks that are common enough to be domains, and each row's."""
    if len(train.prompts) < EXAMPLES_MIN:
        raise RequestMalformed(f"There are fewer than {EXAMPLES_MIN} rows to learn from.")
    counts = Counter(train.tasks)
    common = [each if counts[each] >= EXAMPLES_MIN else RARE for each in train.tasks]
    names = sorted(set(common))
    return names, np.array([names.index(each) for each in common], dtype=np.int64)


def _expected_costs(case: _Case, vectors: Floats, table: RoutingTable) -> Floats:
    """Return what each model is expected to cost: as priced, or as its domain cost on average."""
    if not table.metered:
        return table.costs_usd
    recogniser, costs = case.learned.recogniser, case.train.costs_usd
    usual, known = _means(costs), np.isfinite(costs)
    costs = np.where(known, costs, 0.0)
    by_domain = np.array(
        [
            (costs[own].sum(axis=0) + 5.0 * usual) / (known[own].sum(axis=0) + 5.0)
            for each in range(len(recogniser.names))
            for own in [case.labels == each]
        ]
    )
    return np.asarray(recogniser.among_known(recogniser.standardise(vectors)) @ by_domain)


def _recognised(case: _Case) -> tuple[Floats, Floats]:
    """Return how likely each row's likeliest domain is, and whether it is the right one."""
    recogniser: Recogniser = case.learned.recogniser
    odds = recogniser.among_known(recogniser.standardise(case.vectors))
    names, likeliest = recogniser.names, odds.argmax(axis=1)
    told = [each if each in names else RARE for each in case.test.tasks]
    right = [names[at] == task for at, task in zip(likeliest, told, strict=True)]
    return odds.max(axis=1), np.array(right, dtype=float)


def _task_oracle(train: RoutingTable, test: RoutingTable, best: int) -> float:
    """Return the accuracy of who is told each task and takes its best model in training."""
    tasks = np.array(train.tasks)
    winner = {each: int(_means(train.scores[tasks == each]).argmax()) for each in set(train.tasks)}
    chosen = [winner.get(each, best) for each in test.tasks]
    return float(test.scores[np.arange(len(chosen)), chosen].mean())


def _intervals(replay: Replay, resamples: int) -> dict[str, tuple[float, float]]:
    random = np.random.default_rng(_SEED)
    count = len(replay.scores)
    drawn: dict[str, list[float]] = {}
    for _ in range(resamples):
        told: Mapping[str, float | None] = msgspec.structs.asdict(
            measure(replay, random.integers(0, count, count))
        )
        for name, value in told.items():
            if value is not None:
                drawn.setdefault(name, []).append(value)
    return {
        name: (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975)))
        for name, values in drawn.items()
    }


def _ablations(case: _Case) -> dict[str, float]:
    """Return the accuracy at best quality of the router without each of its parts."""
    learned, scores = case.learned, case.test.scores
    vectors, recogniser = case.vectors, learned.recogniser
    rows = np.arange(len(scores))

    def of(quality: Floats) -> float:
        return float(scores[rows, quality.argmax(axis=1)].mean())

    standard = recogniser.standardise(vectors)
    likeliest = recogniser.among_known(standard).argmax(axis=1)
    usual = learned.by_domain.mean(axis=0)
    gains = learned.gain[learned.groups.of(vectors)].mean(axis=1)
    size = recogniser.meaning
    seen, odd = (each[:, :size] for each in (case.train_vectors, case.strangers))
    meaning = learn(recogniser.names, case.labels, seen, odd)
    without_shape = meaning.among_known(meaning.standardise(vectors[:, :size]))
    return {
        "whole": of(learned.estimate(vectors)),
        "domains only": of(replace(learned, local_share=0.0).estimate(vectors)),
        "groups only": of(usual + gains),
        "likeliest domain only": of(learned.by_domain[likeliest]),
        "domains by meaning only": of(without_shape @ learned.by_domain),
    }


def _budgets(case: _Case, expected: tuple[Floats, Floats], told: Measures) -> list[Spent]:
    """Spend budgets between the cheapest model and the best quality; then with each price risen."""
    train, test = case.train, case.test
    seen = (
        case.learned.estimate(case.train_vectors),
        _expected_costs(case, case.train_vectors, train),
    )
    low, high = float(test.costs_usd.mean(axis=0).min()), told.cost_max_quality_usd
    if high <= low * (1.0 + _ROUNDING):
        return []  # quality costs no more than the cheapest model, or nobody costs anything
    low = low or high * FREE_SHARE
    actual = test.scores, test.costs_usd
    level = np.ones(len(test.models))
    spent = []
    for share in BUDGETS:
        budget = low * (high / low) ** share
        spent.append(replay_budget(budget, seen, expected, actual, (level, None)))
        for place, name in enumerate(test.models):
            risen = level.copy()
            risen[place] = SHIFT
            spent.append(replay_budget(budget, seen, expected, actual, (risen, name)))
    return spent
