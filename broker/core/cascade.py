"""Whether an answer is kept or the next endpoint is asked: by what that would bring, not by doubt.

How sure a model is of its answer is the mean log-probability of its tokens, or what else it tells,
as a probability p. It is calibrated by Platt's curve over `-log(1 - p)`, which spreads out what
sure models crowd near 1 (Zellinger and Thomson, "Rational Tuning of LLM Cascades via Probabilistic
Modeling", 2025): `P(good) = 1 / (1 + exp(-(start + slope * -log(1 - p))))`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence

import msgspec
import numpy as np

from broker.core.columns import Floats

SURENESS_MAX = 12.0
"""`-log(1 - p)` of a model that is surer than this says no more."""


class Curve(msgspec.Struct, frozen=True):
    """A calibration of a model in a domain."""

    start: float
    slope: float

    def chance(self, confidence: float) -> float:
        """Return P(good) of an answer with a confidence within 0..1."""
        return _chance(self.start + self.slope * float(sureness(np.array([confidence]))[0]))


USUAL = Curve(-1.5, 1.3)
"""Where nothing was learned: 0.5 of mean token probability is worth 0.35, 0.9 is worth 0.82."""


class Stage(msgspec.Struct, frozen=True):
    """A model to be asked, as callers name models, and from which P(good) on its answer is kept."""

    model: str
    keep_from: float


class Below(enum.StrEnum):
    """What becomes of an answer below the confidence that was asked for, with nobody to ask."""

    FLAG = "flag"
    """It is delivered, and said to be below."""
    REFUSE = "refuse"
    """Nothing is delivered: fail closed."""
    DEAREST = "dearest"
    """The dearest endpoint there is answers last, and that is delivered: fail expensive."""


class Cascade(msgspec.Struct, frozen=True):
    """How a call may be answered more than once, by at most one after the other."""

    stages: tuple[Stage, ...] = ()
    """Named by the caller; empty where the broker chooses who is next, and decides by benefit."""
    keep_from: float | None = None
    """An answer below it, with nobody left to ask, is below what was asked for."""
    pays_all: bool = True
    """False: only the answer that is kept is paid."""
    below: Below = Below.FLAG
    agreement: str | None = None
    """Who answers a second time, for the two to be compared: SAMPLE, or a model; None: nobody."""
    buffer_bytes: int = 65_536
    """So much of a stream is held back to be judged, at most."""
    decide_after_tokens: int | None = None
    """A stream is judged by so many of its first tokens; None: by all that is held back."""
    hides_logprobs: bool = False
    """They were asked for by the broker alone."""
    named: str | None = None
    """The model that the request itself names, in whose place the first stage is asked."""
    of_models: bool = False
    """It came as `models`, which stand in for each other: nobody asked how good answers are."""

    @property
    def falls_back(self) -> bool:
        """Answers are kept whatever they are worth: a stage is for where none before can answer."""
        return bool(self.stages) and not any(each.keep_from for each in self.stages)

    @property
    def keeps_any(self) -> bool:
        """It falls back, and no answer need be judged before its caller has it."""
        return self.falls_back and not self.keep_from and self.agreement is None


SAMPLE = "sample"
"""The same endpoint answers once more."""


class Other(enum.StrEnum):
    """Whose answer another is compared with: models err alike with themselves more than with
    others."""

    SAMPLE = "sample"
    """Of the same model."""
    MODEL = "model"
    """Of another."""


class Judged(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was thought of an answer; nothing of its text."""

    kept: bool
    reason: str
    confidence: float | None = None
    """The mean probability of its tokens."""
    chance: float | None = None
    """P(good), calibrated; None where nothing tells."""
    flaw: str | None = None
    """Of its form, see `broker.core.answers.answer_checks`."""
    agreement: float | None = None
    """With another answer, 0 to 1."""
    tokens: int | None = None
    """So many of its first tokens alone were judged."""
    compared: Other | None = None
    """Whose the other answer was; older stories do not tell."""


FLAWED = 0.05
"""P(good) of an answer of a form other than asked for."""
AGREES = 1.5
"""What full agreement with a second answer adds to the odds of being good, as a logarithm, and none
takes away, where nothing was learned of it."""
AS_USUAL = Curve(0.0, 1.0)
"""Of agreement, where nothing was learned: it is worth what AGREES says."""

ALIKE = 0.25
"""How far two models' answers to a prompt are good or bad together, beyond what is expected of
either: as a correlation, below the 0.3 that is usual, for too much of it would ask too few."""


class Kept(msgspec.Struct, frozen=True):
    """Whether an answer is kept, and why, in words."""

    kept: bool
    reason: str


def sureness(confidences: Floats) -> Floats:
    """Return `-log(1 - p)` of confidences within 0..1, at most SURENESS_MAX."""
    doubts = np.maximum(1.0 - np.clip(confidences, 0.0, 1.0), math.exp(-SURENESS_MAX))
    return np.asarray(-np.log(doubts))


def confidence_of(logprobs: Sequence[float]) -> float | None:
    """Return the geometric mean of token probabilities; None of no token."""
    finite = [min(each, 0.0) for each in logprobs if math.isfinite(each)]
    return math.exp(sum(finite) / len(finite)) if finite else None


def concord(agreements: Floats) -> Floats:
    """Return what agreement, 0 to 1, usually adds to the odds of being good, as a logarithm."""
    return np.asarray(AGREES * (2.0 * agreements - 1.0))


def agreed(chance: float | None, agreement: float, curve: Curve = AS_USUAL) -> float:
    """Return P(good) of an answer that agrees so far, 0 to 1, with another of the same prompt:
    `curve` is over what that usually adds to the odds."""
    own = 0.5 if chance is None else min(max(chance, 1e-6), 1.0 - 1e-6)
    usual = float(concord(np.array([agreement]))[0])
    return _chance(math.log(own / (1.0 - own)) + curve.start + curve.slope * usual)


def _chance(odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(min(odds, 30.0), -30.0)))


def above(chance: float | None, threshold: float) -> Kept:
    """Decide by a threshold; an answer of which nothing is known is not kept."""
    if chance is None:
        return Kept(False, f"its confidence is not known; {threshold:.2f} was asked for")
    words = "at least" if chance >= threshold else "below"
    return Kept(chance >= threshold, f"confidence {chance:.2f} is {words} {threshold:.2f}")


def following_when(chance: float | None, expected: float, following: float) -> float:
    """Return P(next good) where P(first good) is `chance` and was expected to be `expected`: what
    is hard for one model is hard for others, and as much as ALIKE says."""
    if chance is None:
        return following
    own, other = (min(max(each, 0.05), 0.95) for each in (expected, following))
    spreads = math.sqrt(other * (1.0 - other) / (own * (1.0 - own)))
    return min(max(following + ALIKE * spreads * (chance - own), 0.0), 1.0)


def worth_it(chance: float | None, following: float, price: float) -> Kept:
    """Decide by benefit: `following` is P(good) of the next answer, `price` what it costs over what
    a good answer is worth."""
    own = 0.5 if chance is None else chance
    gain = following - own
    words = f"the next is worth {gain:+.2f} and costs {price:.2f} of a good answer"
    return Kept(gain <= price, words)
