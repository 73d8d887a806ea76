"""How long things of one kind take where there is little to do: a mean of groups of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

FEW: Final = 4.0
"""With so few under way there is little to do. As 4 / 2 + sqrt(4) = 4, time alone cuts no lower."""
GROUP: Final = 8
"""So many are judged together."""
_STEP: Final = 0.3
"""Of the way that what is usual goes towards a group's mean."""


_NONE: Final[dict[int, Usual]] = {}
"""Stays empty: one for all."""


class Usual:
    """How long things of one kind take with little to do: the mean of the logarithms."""

    __slots__ = ("_alone_count", "_alone_sum", "calm", "count", "known", "mean", "sum")

    def __init__(self) -> None:
        self.mean = 0.0
        self.known = False
        self.sum = 0.0
        """Of the group that is not full yet."""
        self.count = 0
        self.calm = True
        """False where any of the group came with much to do."""
        self._alone_sum = 0.0
        self._alone_count = 0

    def learn(self) -> None:
        """Go towards the mean of a group that is full."""
        mean = self.sum / self.count
        if not self.known:
            self.mean, self.known = mean, True
        elif mean < self.mean or self.calm:
            self.mean += _STEP * (mean - self.mean)
        self.sum, self.count, self.calm = 0.0, 0, True

    def tell_alone(self, log_ms: float) -> None:
        """Be told of one that had the server to itself, but for a few."""
        self._alone_sum += log_ms
        self._alone_count += 1

    def learn_alone(self) -> None:
        """Go by those, the more the further."""
        count = self._alone_count
        if count and self.known:
            self.mean += count / (count + FEW) * (self._alone_sum / count - self.mean)
        self._alone_sum, self._alone_count = 0.0, 0
        self.sum, self.count, self.calm = 0.0, 0, True


class Kinds:
    """What is usual of each kind. Most of what is limited does things of one kind, of which a
    dictionary would take more than all that is known."""

    __slots__ = ("_first", "_kind", "_more")

    def __init__(self) -> None:
        self._kind: int | None = None
        """The first."""
        self._first: Usual | None = None
        self._more = _NONE

    def _known(self, kind: int) -> Usual | None:
        return self._first if kind == self._kind else self._more.get(kind)

    def _begun(self, kind: int, most: int) -> Usual | None:
        """What is usual of a kind that is new; None where there are so many."""
        if self._first is None:
            self._kind = kind
            self._first = usual = Usual()
            return usual
        if len(self._more) + 1 >= most:
            return None
        if self._more is _NONE:
            self._more = {}
        usual = self._more[kind] = Usual()
        return usual

    def _every(self) -> Iterator[tuple[int, Usual]]:
        if self._kind is not None and self._first is not None:
            yield self._kind, self._first
        yield from self._more.items()
