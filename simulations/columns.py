"""Values laid out as columns: a class of arrays of one length, to be cut and joined by rows."""

from __future__ import annotations

from collections.abc import Sequence
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
            return type(self)(*[each[rows] for each in self._arrays()])
        places = rows.nonzero()[0] if rows.dtype == np.bool_ else rows
        return type(self)(*[each.take(places) for each in self._arrays()])

    def and_then(self: Self, others: Self) -> Self:
        """These rows and the others after them."""
        return self.joined((self, others))

    @classmethod
    def joined(cls: type[Self], parts: Sequence[Self]) -> Self:
        """The rows of one after the other."""
        columns = zip(*(each._arrays() for each in parts), strict=True)  # noqa: SLF001 - its kind
        return cls(*map(np.concatenate, columns))

    def _arrays(self) -> list[NDArray[Any]]:
        return [getattr(self, name) for name in self.__slots__]
