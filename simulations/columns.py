"""Values laid out as columns: a class of arrays of one length, to be cut and joined by rows."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Self = TypeVar("Self", bound="Columns")


class Columns:
    """The base of dataclasses whose fields are arrays of one length."""

    __slots__: tuple[str, ...] = ()

    def only(self: Self, rows: slice | NDArray[Any]) -> Self:
        """Those rows."""
        return type(self)(*[getattr(self, name)[rows] for name in self.__slots__])

    def and_then(self: Self, others: Self) -> Self:
        """These rows and the others after them."""
        pairs = zip(self._arrays(), others._arrays(), strict=True)  # noqa: SLF001 - its own kind
        return type(self)(*map(np.concatenate, pairs))

    def _arrays(self) -> list[NDArray[Any]]:
        return [getattr(self, name) for name in self.__slots__]
