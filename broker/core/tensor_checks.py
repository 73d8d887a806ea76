"""What can be seen to be wrong with the tensors of an answer without knowing what would be right.

An answer of KServe v2 says of each output what it is: a datatype, a shape, and as many elements as
these make, in the JSON or after it. Nothing is wrong where the JSON cannot be read as that at all:
the wire formats differ in what they leave out, and what is plainly no answer failed before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from broker.core.answer_checks import Flaw

_WHOLE: Final[Mapping[str, tuple[int, int]]] = {
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
_FLOATS: Final = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}
_BYTES_OF: Final[Mapping[str, int]] = {
    "BOOL": 1,
    "BF16": 2,
    **{f"{sign}INT{bits}": bits // 8 for sign in ("", "U") for bits in (8, 16, 32, 64)},
    **{name: np.dtype(kind).itemsize for name, kind in _FLOATS.items()},
}
"""Datatypes whose elements are all of one size."""


_DIMENSIONS_MAX: Final = 64
"""A longer shape is that of no tensor; working out its product may stop the process for long."""
_ELEMENTS_MAX: Final = 2**48


class _Parameters(msgspec.Struct):
    binary_data_size: int | None = None


class _Tensor(msgspec.Struct):
    name: str
    datatype: str = ""
    shape: list[int] | None = None
    data: Any = None
    parameters: _Parameters | None = None


class _Outputs(msgspec.Struct):
    outputs: list[_Tensor] | None = None


class _Named(msgspec.Struct):
    name: str


class _Asked(msgspec.Struct):
    outputs: list[_Named] | None = None


_answer: Final = msgspec.json.Decoder(_Outputs).decode
_request: Final = msgspec.json.Decoder(_Asked).decode


def find_tensor_flaw(asked: bytes, answer: bytes, binary: bytes = b"") -> Flaw | None:
    """Return the first flaw of an answer; `asked` and `answer` are the JSON of request and answer,
    `binary` what follows the latter.

    EMPTY without outputs, or with none of an element; BAD_TENSOR where an output that was asked for
    is missing, or is not what it says of itself; NOT_FINITE where it has a number that is none.
    """
    try:
        outputs = _answer(answer).outputs
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not outputs or all(each.shape is not None and 0 in each.shape for each in outputs):
        return Flaw.EMPTY
    if not _named(asked) <= {each.name for each in outputs}:
        return Flaw.BAD_TENSOR
    begun = 0
    for each in outputs:
        size = None if each.parameters is None else each.parameters.binary_data_size
        if size is None:
            flaw = _of_values(each)
        elif size < 0 or begun + size > len(binary):
            flaw = Flaw.BAD_TENSOR
        else:
            flaw = _of_bytes(each, binary[begun : begun + size])
            begun += size
        if flaw is not None:
            return flaw
    return None


def _named(asked: bytes) -> set[str]:
    try:
        return {each.name for each in _request(asked).outputs or ()}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return set()


def _of_values(tensor: _Tensor) -> Flaw | None:
    """Of an output whose elements stand in the JSON, flat or nested by the shape."""
    if tensor.shape is None or tensor.data is None:
        return None  # it may be elsewhere, as in memory that is shared
    values = flat(tensor.data)
    if values is None or len(values) != _elements(tensor.shape):
        return Flaw.BAD_TENSOR
    if tensor.datatype in _FLOATS or tensor.datatype == "BF16":
        if any(each in _NO_NUMBERS for each in values if isinstance(each, str | None)):
            return Flaw.NOT_FINITE
        return None if all(_is_number(each) for each in values) else Flaw.BAD_TENSOR
    if tensor.datatype in _WHOLE:
        least, most = _WHOLE[tensor.datatype]
        sound = all(_is_number(each) and each == int(each) for each in values)
        return None if sound and all(least <= each <= most for each in values) else Flaw.BAD_TENSOR
    if tensor.datatype == "BOOL":
        return None if all(each in (0, 1) for each in values) else Flaw.BAD_TENSOR
    return None


def _elements(shape: Sequence[int]) -> int | None:
    """Return how many elements a shape makes; None where no tensor has such a shape."""
    if len(shape) > _DIMENSIONS_MAX or not all(0 <= each <= _ELEMENTS_MAX for each in shape):
        return None
    return math.prod(shape)


_NO_NUMBERS: Final = (None, "NaN", "nan", "Infinity", "-Infinity", "inf", "-inf")
"""As servers write what JSON has no word for."""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def flat(data: object) -> Sequence[Any] | None:
    """Return a tensor's elements in order; None where lists and elements stand side by side."""
    values: list[Any] = data if isinstance(data, list) else [data]
    while values and any(isinstance(each, list) for each in values):
        if not all(isinstance(each, list) for each in values):
            return None
        values = [one for each in values for one in each]
    return values


def _of_bytes(tensor: _Tensor, raw: bytes) -> Flaw | None:
    """Of an output whose elements follow the JSON."""
    size = _BYTES_OF.get(tensor.datatype)
    if size is None or tensor.shape is None:
        return None
    elements = _elements(tensor.shape)
    if elements is None or len(raw) != size * elements:
        return Flaw.BAD_TENSOR
    kind = _FLOATS.get(tensor.datatype)
    if kind is None:
        return None
    return None if np.isfinite(np.frombuffer(raw, kind)).all() else Flaw.NOT_FINITE
