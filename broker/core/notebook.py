"""Evidence in columns, newest last, as learning wants it: the oldest is dropped when it is full."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import numpy as np

from broker.core.columns import Bools, Floats, Numbers
from broker.core.evidence import Grade, Piece, Source, unpack

PIECES_MAX: Final = 50_000
VECTORS_MAX: Final = 4_000
"""The newest; groups are made of these."""
UNKNOWN: Final = -1
"""Stands for no domain, or for an endpoint that is not listed."""


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """Pieces of evidence in the order in which they came; arrays of one length."""

    endpoints: Numbers
    """Numbers; UNKNOWN for who is not listed any more."""
    domains: Numbers
    """Places in the names that were asked for, or UNKNOWN."""
    graded: Bools
    checks: Bools
    scores: Floats
    weights: Floats
    at_s: Floats
    with_vector: Numbers
    """The places of those that have a vector."""
    vectors: Floats
    """Theirs, a row for each."""


class Notebook:
    """Takes evidence piece by piece. Nothing of it is lost when it is taken twice."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._said: dict[UUID, int] = {}
        """The place of the latest feedback on each call, counted from the very first piece."""
        self._dropped = 0
        self._silenced: set[int] = set()

    def __len__(self) -> int:
        return len(self._pieces)

    def take(self, piece: Piece) -> None:
        """Write a piece down; of what is said of one call the last counts."""
        place = self._dropped + len(self._pieces)
        if piece.source is Source.FEEDBACK and piece.call_id is not None:
            before = self._said.get(piece.call_id)
            if before is not None:
                self._silenced.add(before)
            self._said[piece.call_id] = place
        self._pieces.append(piece)
        if len(self._pieces) > PIECES_MAX * 5 // 4:
            self._drop(len(self._pieces) - PIECES_MAX)

    def _drop(self, count: int) -> None:
        del self._pieces[:count]
        self._dropped += count
        self._silenced = {each for each in self._silenced if each >= self._dropped}
        self._said = {call: at for call, at in self._said.items() if at >= self._dropped}

    def read(
        self, numbers: Mapping[UUID, int], places: Mapping[str, int], encoder: str | None
    ) -> Heard:
        """Return all as columns; of vectors only those that `encoder` made."""
        pieces = self._pieces
        weights = np.array([each.weight for each in pieces])
        weights[[at - self._dropped for at in self._silenced]] = 0.0
        seen = [at for at, each in enumerate(pieces) if each.vector and each.encoder == encoder]
        seen = seen[-VECTORS_MAX:]
        vectors = [unpack(pieces[at].vector or b"") for at in seen]
        return Heard(
            endpoints=_codes([numbers.get(each.endpoint_id, UNKNOWN) for each in pieces]),
            domains=_codes([places.get(each.domain or "", UNKNOWN) for each in pieces]),
            graded=np.array([each.grade is Grade.GRADED for each in pieces], dtype=bool),
            checks=np.array([each.source is Source.CHECK for each in pieces], dtype=bool),
            scores=np.array([each.score for each in pieces], dtype=np.float64),
            weights=weights,
            at_s=np.array([each.at.timestamp() for each in pieces], dtype=np.float64),
            with_vector=_codes(seen),
            vectors=np.array(vectors) if seen else np.zeros((0, 0)),
        )

    @property
    def domains(self) -> set[str]:
        """Every domain that is spoken of."""
        return {each.domain for each in self._pieces if each.domain}


def _codes(values: list[int]) -> Numbers:
    return np.array(values, dtype=np.int64)
