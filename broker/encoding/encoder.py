"""What turns a prompt into numbers, which `broker.core.quality.domains` can learn from."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]


class Encoder(Protocol):
    """Vectors are comparable only where `name` is the same."""

    @property
    def name(self) -> str:
        """Which encoder, weights and layout made a vector."""

    @property
    def length(self) -> int:
        """How many numbers a vector has."""

    @property
    def meaning(self) -> int:
        """So many of the numbers, the first, say what a prompt means; the others how it looks."""

    def encode(self, prompt: str) -> Vector:
        """Return the vector of a prompt, also of an empty or a very long one; never raises."""
