"""What is known of how well an endpoint answered, piece by piece: a score, its source, its weight.

Nothing of a caller's prompt or of an answer is in it. Words can be read back from a vector, so only
prompts of suites, which are kept as they are, have theirs.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from broker.core.cascade import Other
from broker.core.columns import Floats


class Source(enum.StrEnum):
    """Who says how good an answer was."""

    EVAL = "eval"
    """An evaluation suite, by its references."""
    FEEDBACK = "feedback"
    """The consumer who had the answer."""
    CHECK = "check"
    """An automatic check of the answer's form."""
    JUDGE = "judge"
    """Another model."""


class Grade(enum.StrEnum):
    """What kind a score is of. The two are never counted together."""

    BINARY = "binary"
    """Right or wrong: 1 or 0."""
    GRADED = "graded"
    """Anything within 0..1."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of evidence; `score` and `weight` within 0..1."""

    at: datetime
    endpoint_id: UUID
    source: Source
    grade: Grade
    score: float
    domain: str | None = None
    """What the prompt was about, as far as that is known."""
    weight: float = 1.0
    account_id: UUID | None = None
    """Who says so, where somebody does."""
    call_id: UUID | None = None
    encoder: str | None = None
    """The name of the encoder that made the vector."""
    vector: bytes | None = None
    """Of a suite's prompt, as `pack` packs it."""
    confidence: float | None = None
    """How sure the model was: the mean probability of the answer's tokens, where that is known."""
    agreement: float | None = None
    """How far another answer to the prompt was like it, 0 to 1, where the two were compared."""
    compared: Other | None = None
    """Whose that was, where it is known."""
    groups: str | None = None
    """Which groups of prompts a caller's prompt was of, as its recogniser told them."""
    run_id: UUID | None = None
    """Of an examination: that of a later one replaces this; ids rise with time."""

    def __post_init__(self) -> None:
        of_suite = self.source in (Source.EVAL, Source.JUDGE)
        assert of_suite or self.vector is None, "no vector of a caller's prompt is kept"
        assert 0.0 <= self.score <= 1.0, f"a score is within 0..1, not {self.score}"
        assert 0.0 <= self.weight <= 1.0, f"a weight is within 0..1, not {self.weight}"
        assert 0.0 <= (self.confidence or 0.0) <= 1.0, f"{self.confidence} is no probability"
        assert 0.0 <= (self.agreement or 0.0) <= 1.0, f"{self.agreement} is not within 0..1"
        binary = self.grade is Grade.BINARY
        assert not binary or self.score in (0.0, 1.0), f"{self.score} is neither right nor wrong"


def pack(vector: NDArray[np.floating]) -> bytes:
    """Return a vector in half precision: two bytes a number."""
    return vector.astype("<f2").tobytes()


def unpack(packed: bytes) -> Floats:
    """Return what `pack` packed."""
    return np.frombuffer(packed, "<f2").astype(np.float64)
