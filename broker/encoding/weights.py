"""Reads the vectors of single words where they lie in a file, as they are met.

A market's prompts have some thousands of the 32,000 pieces of words that there are vectors of: to
hold all takes 33 MB, and these few megabytes. Each is read once, of a file that the system keeps in
memory for all processes alike.
"""

from __future__ import annotations

import os
from pathlib import Path
from threading import Lock

import msgspec
import numpy as np

from broker.encoding.encoder import Vector

_LENGTH_BYTES = 8
_HALF = "<f2"


class WeightsFile:
    """One matrix of numbers in half precision, in a file of the format of `safetensors`: the length
    of a head, the head in JSON, then the numbers. Open it with `open_weights`."""

    def __init__(self, file: int, begins: int, shape: tuple[int, int]) -> None:
        self._file = file
        self._begins = begins
        self.shape = shape

    def __del__(self) -> None:
        os.close(self._file)

    def __getitem__(self, row: int) -> Vector:
        """Return a row. Raises OSError."""
        size = self.shape[1] * np.dtype(_HALF).itemsize
        told = os.pread(self._file, size, self._begins + row * size)
        return np.frombuffer(told, _HALF).astype(np.float32)


class _Place(msgspec.Struct):
    dtype: str
    shape: tuple[int, int]
    data_offsets: tuple[int, int]


def open_weights(path: Path, name: str) -> WeightsFile:
    """Open the matrix of a name. Raises OSError, and KeyError or ValueError where it is no such."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        head = msgspec.json.decode(file.read(length), type=dict[str, msgspec.Raw])
    place = msgspec.json.decode(head[name], type=_Place)
    if place.dtype != "F16":
        raise ValueError(f"{path} has numbers of another precision than half: {place.dtype}")
    begins = _LENGTH_BYTES + length + place.data_offsets[0]
    return WeightsFile(os.open(path, os.O_RDONLY), begins, place.shape)


class KeptRows(dict[int, int]):
    """Where in its table each row is that was met, which lie there in the order in which they were;
    any thread may ask for one."""

    def __init__(self, weights: WeightsFile | Vector) -> None:
        super().__init__()
        self.weights = weights
        self._lock = Lock()
        # Memory that was never written to takes none.
        self.table: Vector = np.empty(weights.shape, dtype=np.float32)

    def __missing__(self, row: int) -> int:
        with self._lock:
            if row not in self:
                place = len(self)
                self.table[place] = self.weights[row]
                self[row] = place
            return self[row]
