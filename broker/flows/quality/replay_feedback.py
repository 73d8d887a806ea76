"""Replays learning from feedback alone: of each prompt one model answers, and its score is told.

The calls explore as live ones that allow it (`broker.core.quality.exploring`), and what is told is
learned from as it is live (`broker.core.quality.learning`); nothing is declared of any model.
Domains are known, by the examples that teach them.

After a thousand calls 4 % are missed of what who was told all reaches (25 tables made of two):
1 because the prompts are fewer, 3 because one model answers each. None of these missed less beyond
its noise: other priors, wider or narrower draws, a least quality that is lower or optimistic,
drawing between the best two, learning after each call, groups, the true domain of each call. To fit
cells to all that prompts may be taken for, where each call counts for its likeliest domain now,
missed 0.4 less, 0.1 by chance; but such odds of a call are not kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

import msgspec
import numpy as np

from broker.core.columns import Floats, Numbers
from broker.core.quality.domains import Recogniser
from broker.core.quality.exploring import draw, good_enough, propensities, spread_of
from broker.core.quality.learning import Beside, learn, undeclared
from broker.core.quality.lessons import Lessons
from broker.core.quality.notebook import UNKNOWN, heard_together

LEARNS_EVERY: Final = 20
"""Calls; live it is every few seconds."""
STREAMS: Final = 10
"""Orders in which the prompts come; figures are means over these."""


class LearnedBy(msgspec.Struct, frozen=True):
    """Accuracy on the rows to be routed after so many calls: the mean, the worst and best stream.
    `share` is the mean over that of who was told all models' scores of all rows."""

    calls: int
    accuracy: float
    lowest: float
    highest: float
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What is learned from, and what is routed then."""

    recogniser: Recogniser
    train: tuple[Floats, Floats]
    """Vectors, and the scores of all models, of which one a prompt is told."""
    test: tuple[Floats, Floats]


def replay_feedback(lesson: Lesson, calls: int, full_accuracy: float) -> list[LearnedBy]:
    """Learn from up to `calls` calls; return what was reached at a fifth, half and all of them."""
    count = min(calls, len(lesson.train[0]))
    marks = sorted({max(count // 5, 1), max(count // 2, 1), count})
    reached = np.array([_stream(lesson, marks, seed) for seed in range(STREAMS)])
    return [
        LearnedBy(
            calls=mark,
            accuracy=float(column.mean()),
            lowest=float(column.min()),
            highest=float(column.max()),
            share=float(column.mean()) / full_accuracy if full_accuracy else 1.0,
        )
        for mark, column in zip(marks, reached.T, strict=True)
    ]


def _stream(lesson: Lesson, marks: list[int], seed: int) -> list[float]:
    vectors, scores = lesson.train
    random = Random(seed)  # noqa: S311 - draws no secret
    order = random.sample(range(len(vectors)), marks[-1])
    among = _among(lesson.recogniser, vectors[order])
    labels = _labels(lesson.recogniser, vectors[order])
    told, chosen = scores[order], np.zeros(marks[-1], dtype=np.int64)
    tested = _among(lesson.recogniser, lesson.test[0])
    known, reached = _learn(lesson, labels[:0], chosen[:0], np.zeros(0)), []
    for call in range(marks[-1]):
        if call % LEARNS_EVERY == 0:
            known = _learn(
                lesson, labels[:call], chosen[:call], told[np.arange(call), chosen[:call]]
            )
        chosen[call] = _choose(known, among[call], random)
        if call + 1 in marks:
            seen = slice(call + 1)
            got = told[np.arange(call + 1), chosen[seen]]
            expected = tested @ _by_domain(_learn(lesson, labels[seen], chosen[seen], got))
            best = expected.argmax(axis=1)
            reached.append(float(lesson.test[1][np.arange(len(best)), best].mean()))
    return reached


def _choose(known: Lessons, among: Floats, random: Random) -> int:
    quality = among @ _by_domain(known)
    spread = spread_of(quality, among @ known.weight[: among.size])
    chances = propensities(quality, spread, good_enough(quality, None), random)
    return draw(chances, random)


def _learn(lesson: Lesson, labels: Numbers, chosen: Numbers, got: Floats) -> Lessons:
    names, models = lesson.recogniser.names, lesson.train[1].shape[1]
    # As words that name no grade are taken: of a scale, 0 and 1 are but the ends.
    heard = heard_together(chosen, labels, got, np.ones(got.size, dtype=bool))
    beside = Beside(np.full((len(names) + 1, models), np.nan))
    return learn(heard, undeclared(names, models), beside, 0.0)


def _by_domain(known: Lessons) -> Floats:
    return known.table[: len(known.places)]


def _among(recogniser: Recogniser, vectors: Floats) -> Floats:
    return recogniser.among_known(recogniser.standardise(vectors))


def _labels(recogniser: Recogniser, vectors: Floats) -> Numbers:
    likeliest = recogniser.probabilities(vectors).argmax(axis=1)
    return np.where(likeliest < len(recogniser.names), likeliest, UNKNOWN)
