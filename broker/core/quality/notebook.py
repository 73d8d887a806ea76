"""Evidence in columns, newest last, as learning wants it.

When it is full, every source at every endpoint has room for as much as every other, so that no
flood of one kind drives out what others said; of each kind the oldest is dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar, cast
from uuid import UUID

import numpy as np

from broker.core.cascade import Other
from broker.core.columns import Bools, Floats, Numbers
from broker.core.quality.evidence import Grade, Piece, Source, unpack
from broker.core.quality.groups import GROUPINGS, Groups

PIECES_MAX: Final = 50_000
VECTORS_MAX: Final = 4_000
"""The newest; groups are made of these."""
UNKNOWN: Final = -1
"""Stands for no domain, or for an endpoint that is not listed."""
NOBODY: Final = 0
"""Stands for no account."""
OTHERS: Final = tuple(Other)
_OTHER_PLACES: Final = {None: UNKNOWN} | {each: at for at, each in enumerate(OTHERS)}


_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """The pieces of which it is known which groups of prompts they are of; arrays of one length."""

    at: Numbers
    """Their places."""
    groups: Numbers
    """Theirs, a row for each; see `broker.core.quality.groups`."""
    prompts: Numbers
    """Theirs, counted from 0: those of one prompt have the same."""
    odds: Floats
    """Of the first of them: what their prompts make one take them for, by the places of domains,
    and last by no domain. (so many, domains + 1). The others are of the domain that they name."""


NONE_PLACED: Final = Placed(
    at=np.zeros(0, dtype=np.int64),
    groups=np.zeros((0, GROUPINGS), dtype=np.int64),
    prompts=np.zeros(0, dtype=np.int64),
    odds=np.zeros((0, 0)),
)


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """Pieces of evidence in the order in which they came; arrays of one length."""

    endpoints: Numbers
    """Numbers; UNKNOWN for who is not listed any more."""
    domains: Numbers
    """Places in the names that were asked for, or UNKNOWN."""
    accounts: Numbers
    """Who said so; NOBODY where no account did."""
    graded: Bools
    checks: Bools
    scores: Floats
    weights: Floats
    at_s: Floats
    confidences: Floats
    """How sure who answered was; NaN where nobody knows."""
    agreements: Floats
    """How far another answer was like it; NaN where none was compared."""
    others: Numbers
    """Whose that was, as a place in OTHERS; UNKNOWN where nobody knows."""
    placed: Placed = NONE_PLACED
    voices: tuple[UUID | None, ...] = ()
    """The accounts that `accounts` are places of."""


def heard_together(endpoints: Numbers, domains: Numbers, scores: Floats, graded: Bools) -> Heard:
    """Return answers of one moment that nobody in particular judged, of no known groups; each
    weighs 1. Arrays are of one length."""
    unknown = np.full(scores.size, np.nan)
    return Heard(
        endpoints=endpoints,
        domains=domains,
        accounts=np.full(scores.size, NOBODY),
        graded=graded,
        checks=np.zeros(scores.size, dtype=bool),
        scores=scores,
        weights=np.ones(scores.size),
        at_s=np.zeros(scores.size),
        confidences=unknown,
        agreements=unknown,
        others=np.full(scores.size, UNKNOWN),
    )


class Notebook:
    """Takes evidence piece by piece. Nothing of it is lost when it is taken twice."""

    def __init__(self) -> None:
        self._pieces: dict[int, Piece] = {}
        """By the place of each, counted from the very first, in their order."""
        self._taken = 0
        self._said: dict[UUID, int] = {}
        """The place of the latest feedback on each call."""
        self._runs: dict[tuple[UUID, str | None], tuple[UUID, list[int]]] = {}
        """The latest examination of each endpoint in each domain, and the places of its pieces."""
        self._same: dict[object, object] = {}
        """What pieces have alike, once: who answered and who says so, domains, suites' prompts."""

    def __len__(self) -> int:
        return len(self._pieces)

    def take(self, piece: Piece) -> None:
        """Write a piece down; of what is said of one call only the last is kept, and so of the
        examinations of an endpoint in a domain."""
        if piece.run_id is not None and not self._is_of_latest(piece, piece.run_id):
            return
        if piece.source is Source.FEEDBACK and piece.call_id is not None:
            self._pieces.pop(self._said.get(piece.call_id, -1), None)
            self._said[piece.call_id] = self._taken
        self._pieces[self._taken] = self._spared(piece)
        self._taken += 1
        if len(self._pieces) > 2 * PIECES_MAX:
            self._drop()

    def _spared(self, piece: Piece) -> Piece:
        """Return the same in a third of the memory: without what nobody asks for any more."""
        same = self._once
        return replace(
            piece,
            endpoint_id=same(piece.endpoint_id),
            account_id=same(piece.account_id),
            domain=same(piece.domain),
            encoder=same(piece.encoder),
            vector=same(piece.vector),
            run_id=None,
        )

    def _once(self, value: _Value) -> _Value:
        """Return the first that equalled this."""
        return cast(_Value, self._same.setdefault(value, value))

    def _is_of_latest(self, piece: Piece, run_id: UUID) -> bool:
        """Make room for a piece of an examination; False where there has been a later one."""
        key = piece.endpoint_id, piece.domain
        latest, places = self._runs.get(key, (run_id, []))
        if run_id.int < latest.int:
            return False
        if run_id != latest:
            for place in places:
                self._pieces.pop(place, None)
            places = []
        places.append(self._taken)
        self._runs[key] = run_id, places
        return True

    def _drop(self) -> None:
        counts = Counter(map(_kind, self._pieces.values()))
        share = share_of(counts.values(), PIECES_MAX)
        too_many = {kind: count - share for kind, count in counts.items() if count > share}
        for place, piece in list(self._pieces.items()):
            kind = _kind(piece)
            if too_many.get(kind):
                too_many[kind] -= 1
                del self._pieces[place]
        self._said = {call: at for call, at in self._said.items() if at in self._pieces}
        self._same.clear()

    def read(
        self,
        numbers: Mapping[UUID, int],
        places: Mapping[str, int],
        known: tuple[Groups, str] | None = None,
    ) -> Heard:
        """Return all as columns. `known` are groups, and the name of the encoder whose vectors
        they take."""
        # Here, for whoever reads so much does it beside the calls.
        if len(self._pieces) > PIECES_MAX * 5 // 4:
            self._drop()
        pieces = list(self._pieces.values())
        accounts: dict[UUID | None, int] = {None: NOBODY}
        return Heard(
            endpoints=_codes([numbers.get(each.endpoint_id, UNKNOWN) for each in pieces]),
            domains=_codes([places.get(each.domain or "", UNKNOWN) for each in pieces]),
            accounts=_codes(
                [accounts.setdefault(each.account_id, len(accounts)) for each in pieces]
            ),
            graded=np.array([each.grade is Grade.GRADED for each in pieces], dtype=bool),
            checks=np.array([each.source is Source.CHECK for each in pieces], dtype=bool),
            scores=np.array([each.score for each in pieces], dtype=np.float64),
            weights=np.array([each.weight for each in pieces], dtype=np.float64),
            at_s=np.array([each.at.timestamp() for each in pieces], dtype=np.float64),
            confidences=_told([each.confidence for each in pieces]),
            agreements=_told([each.agreement for each in pieces]),
            others=_codes([_OTHER_PLACES[each.compared] for each in pieces]),
            placed=_placed(pieces, places, *known) if known else NONE_PLACED,
            voices=tuple(accounts),
        )

    @property
    def domains(self) -> Counter[str]:
        """Every domain that is spoken of, and in how many pieces."""
        return Counter(each.domain for each in self._pieces.values() if each.domain)


def share_of(counts: Collection[int], total: int) -> int:
    """Return how much each may have, at most, so that all have `total` at most together; one at
    least, however many they are."""
    left, others = total, len(counts)
    for count in sorted(counts):
        if count * others > left:
            return max(left // others, 1)
        left, others = left - count, others - 1
    return max(counts, default=0)


def _kind(piece: Piece) -> tuple[Source, UUID]:
    return piece.source, piece.endpoint_id


def _placed(
    pieces: Sequence[Piece], places: Mapping[str, int], known: Groups, encoder: str
) -> Placed:
    """Place the newest vectors, and the calls that were placed in these very groups."""
    seen = [at for at, each in enumerate(pieces) if each.vector and each.encoder == encoder]
    seen = seen[-VECTORS_MAX:]
    found, odds = NONE_PLACED.groups, NONE_PLACED.odds
    if seen:
        # All who were examined were asked the same.
        asked: dict[bytes, int] = {}
        of_each = [asked.setdefault(pieces[at].vector or b"", len(asked)) for at in seen]
        found, told = known.of_with_odds(np.array([unpack(each) for each in asked]))
        found, odds = found[of_each], by_place(told, known.recogniser.names, places)[of_each]
    calls = [
        (at, groups)
        for at, each in enumerate(pieces)
        if each.groups and (groups := known.read(each.groups)) is not None
    ]
    at = [*seen, *(each for each, _ in calls)]
    rows = _codes([group for _, groups in calls for group in groups]).reshape(-1, GROUPINGS)
    prompts: dict[object, int] = {}
    own = [prompts.setdefault(_prompt(pieces[each]) or each, len(prompts)) for each in at]
    return Placed(_codes(at), np.vstack((found, rows)), _codes(own), odds)


def by_place(odds: Floats, names: Sequence[str], places: Mapping[str, int]) -> Floats:
    """Return the odds of domains of these names by their places; of who has none, as of no
    domain."""
    told = np.zeros((len(odds), len(places) + 1))
    for column, name in zip(odds.T, names, strict=True):
        told[:, places.get(name, len(places))] += column
    return told


def _prompt(piece: Piece) -> bytes | UUID | None:
    """Return what tells a piece's prompt from others', None where nothing does."""
    return piece.vector or piece.call_id


def _told(values: list[float | None]) -> Floats:
    """Return numbers, NaN where there is none."""
    return np.array([np.nan if each is None else each for each in values], dtype=np.float64)


def _codes(values: list[int]) -> Numbers:
    return np.array(values, dtype=np.int64)
