"""Values laid out as columns: a class of arrays of one length, to be cut and joined by rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Self = TypeVar("Self", bound="Columns")


class Columns:
    """The base of dataclasses whose fields are arrays of one length."""

    __slots__: tuple[str, ...] = ()

    def only(self: Self, rows: slice | NDArray[Any]) -> Self:
        """Those rows."""
        if isinstance(rows, slice):
            return type(self)(*[each[rows] for each in _getter(self.__slots__)(self)])
        places = rows.nonzero()[0] if rows.dtype == np.bool_ else rows
        return type(self)(*[each.take(places) for each in _getter(self.__slots__)(self)])

    def and_then(self: Self, others: Self) -> Self:
        """These rows and the others after them."""
        return self.joined((self, others))

    @classmethod
    def joined(cls: type[Self], parts: Sequence[Self]) -> Self:
        """The rows of one after the other."""
        columns = zip(*map(_getter(cls.__slots__), parts), strict=True)
        return cls(*map(np.concatenate, columns))


@cache
def _getter(names: tuple[str, ...]) -> Callable[[object], tuple[NDArray[Any], ...]]:
    return attrgetter(*names)
