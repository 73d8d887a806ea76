"""A float for each endpoint number, in 8 bytes, where an entry of a dictionary takes 125."""

from __future__ import annotations

from array import array


class ByNumber:
    """As long as the highest number that was told, and at most a half more."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told = array("d")

    def get(self, number: int) -> float:
        """Return what was told last of a number, 0 or above; 0.0 where nothing was."""
        try:
            return self._told[number]
        except IndexError:
            return 0.0

    def put(self, number: int, value: float) -> None:
        """Tell of a number, 0 or above."""
        told = self._told
        if number >= len(told):
            told.frombytes(bytes((number + 1 - len(told) + number // 2) * told.itemsize))
        told[number] = value
