"""Whether the JSON of an answer in tensors fits together: what no client could read as an answer.

It is looked at for every inference, so at its first kilobytes alone and never at a tensor: outputs
that are no outputs, those that were asked for and are not there, and bytes after the JSON that are
not as many as the outputs claim, or as their shapes and datatypes make.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

HEAD_BYTES_MAX: Final = 16_384
"""Longer JSON holds its tensors itself; reading those would cost what passing them on saves."""
BYTES_OF: Final[Mapping[str, int]] = {
    "BOOL": 1,
    "BF16": 2,
    **{f"FP{bits}": bits // 8 for bits in (16, 32, 64)},
    **{f"{sign}INT{bits}": bits // 8 for sign in ("", "U") for bits in (8, 16, 32, 64)},
}
"""Datatypes whose elements are all of one size."""

_DIMENSIONS_MAX: Final = 64
"""A longer shape is that of no tensor; working out its product may stop the process for long."""
_ELEMENTS_MAX: Final = 2**48
_WITHIN: Final = 64
"""So many bytes from either end JSON begins and ends."""


class _Parameters(msgspec.Struct, gc=False):
    binary_data_size: int | None = None


class _Output(msgspec.Struct, gc=False):
    name: str
    datatype: str = ""
    shape: list[int] | None = None
    parameters: _Parameters | None = None


class _Outputs(msgspec.Struct, gc=False):
    outputs: list[_Output]


class _Named(msgspec.Struct, gc=False):
    name: str


class _Asked(msgspec.Struct, gc=False):
    outputs: list[_Named] | None = None


_outputs: Final = msgspec.json.Decoder(_Outputs).decode
_asked: Final = msgspec.json.Decoder(_Asked).decode
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def asked_outputs(request: bytes) -> Collection[str]:
    """Return the outputs that the JSON of a request names; none where it is long or unreadable."""
    if len(request) > HEAD_BYTES_MAX or b'"outputs"' not in request:
        return ()
    try:
        return {each.name for each in _asked(request).outputs or ()}
    except _UNREADABLE:
        return ()


def find_fault(answer: bytes, tail_bytes: int | None, asked: Collection[str] = ()) -> str | None:
    """Return what makes it no answer, None where nothing does; `answer` is its JSON, followed by
    `tail_bytes`, None where that is not known yet."""
    if len(answer) > HEAD_BYTES_MAX:
        begins = answer[:_WITHIN].lstrip()[:1] == b"{" and answer[-_WITHIN:].rstrip()[-1:] == b"}"
        return None if begins else "an answer that is no JSON object"
    try:
        outputs = _outputs(answer).outputs
    except _UNREADABLE:
        return "an answer without outputs that can be read"
    total = 0
    for each in outputs:
        size = None if each.parameters is None else each.parameters.binary_data_size
        if size is not None:
            total += size
            if not _is_full(each, size):
                return "an output has not the bytes that its shape and datatype make"
    if tail_bytes is not None and total != tail_bytes:
        return "what follows the JSON is not as long as its outputs claim"
    if asked and not {each.name for each in outputs}.issuperset(asked):
        return "an output that was asked for is not there"
    return None


def elements_of(shape: Sequence[int]) -> int | None:
    """Return how many elements a shape makes; None where no tensor has such a shape."""
    if len(shape) > _DIMENSIONS_MAX or not all(0 <= each <= _ELEMENTS_MAX for each in shape):
        return None
    return math.prod(shape)


def _is_full(output: _Output, size_bytes: int) -> bool:
    """True where an output has as many bytes as it must, as far as its datatype tells."""
    if size_bytes < 0:
        return False
    each = BYTES_OF.get(output.datatype)
    if each is None or output.shape is None:
        return True
    elements = elements_of(output.shape)
    return elements is not None and elements * each == size_bytes
