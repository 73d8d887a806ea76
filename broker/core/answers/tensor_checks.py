"""What can be seen to be wrong with the tensors of an answer without knowing what would be right.

An answer of KServe v2 says of each output what it is: a datatype, a shape, and as many elements as
these make, in the JSON or after it. Nothing is wrong where the JSON cannot be read as that at all:
the wire formats differ in what they leave out, and what is plainly no answer failed before.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from broker.core.answers.answer_checks import Flaw
from broker.core.wire.signature import Signature, Tensor
from broker.core.wire.tensor_form import BYTES_OF, elements_of

_WHOLE: Final[Mapping[str, tuple[int, int]]] = {
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
_FLOATS: Final = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}
_TEXT: Final = "BYTES"
FINITE_LOOKED_AT: Final = 65_536
"""So many numbers of a tensor are looked at, evenly spread; all of one that has no more."""
TEXTS_LOOKED_AT: Final = 1_024
_DIGITS_MAX: Final = 18
_LENGTH_BYTES: Final = 4
"""Before each text, as a whole number."""


class _Parameters(msgspec.Struct):
    binary_data_size: int | None = None


class _Tensor(msgspec.Struct):
    name: str
    datatype: str = ""
    shape: list[int] | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")
    """Taken apart where it is looked at, and not where it has more lists than its shape makes."""
    parameters: _Parameters | None = None

    @property
    def values(self) -> Sequence[Any] | None:
        """Its elements that stand in the JSON, in order; None where they are nested otherwise than
        any shape of so many. Raises what msgspec raises."""
        raw, shape, lists, rows = bytes(self.data), self.shape or [], 1, 1
        for size in shape[:-1] if elements_of(shape) is not None else ():
            rows *= size
            lists += rows
        if self.datatype != _TEXT and raw.count(b"[") + raw.count(b"{") > lists:
            return None
        return flat(_any(raw))


class _Outputs(msgspec.Struct):
    outputs: list[_Tensor] | None = None


class _Classes(msgspec.Struct):
    classification: int | None = None


class _Named(msgspec.Struct):
    name: str
    parameters: _Classes | None = None


class _Asked(msgspec.Struct):
    outputs: list[_Named] | None = None


_any: Final = msgspec.json.Decoder(Any).decode
_answer: Final = msgspec.json.Decoder(_Outputs).decode
_NULL: Final = b"null"
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_request: Final = msgspec.json.Decoder(_Asked).decode


def find_tensor_flaw(
    asked: bytes,
    answer: bytes,
    binary: bytes | memoryview = b"",
    signature: Signature | None = None,
) -> Flaw | None:
    """Return the first flaw of an answer; `asked` and `answer` are the JSON of request and answer,
    `binary` what follows the latter, `signature` what the model declares.

    EMPTY without outputs, or with none of an element; BAD_TENSOR where an output that was asked for
    is missing, or is not what it says of itself; UNDECLARED where it is not what the model says of
    it; NOT_FINITE where it has a number that is none.
    """
    try:
        outputs = _answer(answer).outputs
        return _flaw_of(outputs or (), _named(asked), binary, signature)
    except _UNREADABLE:
        return None


def _flaw_of(
    outputs: Sequence[_Tensor],
    wanted: Mapping[str, int],
    binary: bytes | memoryview,
    signature: Signature | None,
) -> Flaw | None:
    """Return the first flaw of outputs, of which `wanted` tells those that were asked for. Raises
    what msgspec raises."""
    if not outputs or all(each.shape is not None and 0 in each.shape for each in outputs):
        return Flaw.EMPTY
    if not wanted.keys() <= {each.name for each in outputs}:
        return Flaw.BAD_TENSOR
    begun = 0
    for each in outputs:
        classes = wanted.get(each.name)
        declared = None if signature is None else signature.output(each.name)
        if declared is not None and not _is_declared(each, declared, classes):
            return Flaw.UNDECLARED
        size = None if each.parameters is None else each.parameters.binary_data_size
        if size is None:
            raw, flaw = None, _of_values(each)
        elif size < 0 or begun + size > len(binary):
            flaw = Flaw.BAD_TENSOR
        else:
            raw = binary[begun : begun + size]
            flaw = _of_bytes(each, raw)
            begun += size
        if flaw is None and classes and not _are_classes(each, raw, declared):
            flaw = Flaw.UNDECLARED
        if flaw is not None:
            return flaw
    return None


def _named(asked: bytes) -> dict[str, int]:
    """Return the outputs that a request names, each with how many classes of it are asked for in
    place of its numbers; 0 for those that are wanted as they are."""
    try:
        outputs = _request(asked).outputs or ()
    except _UNREADABLE:
        return {}
    classes = [(each.name, each.parameters or _Classes()) for each in outputs]
    return {name: each.classification or 0 for name, each in classes}


def _is_declared(tensor: _Tensor, declared: Tensor, classes: int | None) -> bool:
    """True where an output is of its declared datatype and shape; of classes that are asked for in
    its place the former is another, and the latter its own."""
    if classes:
        return tensor.datatype == _TEXT
    if tensor.datatype != declared.datatype:
        return False
    return tensor.shape is None or declared.admits(tuple(tensor.shape))


def _are_classes(tensor: _Tensor, raw: bytes | memoryview | None, declared: Tensor | None) -> bool:
    """True where each text is `number:class`, and maybe `:label`, of a class that there is: the
    last declared dimension tells how many there are."""
    texts = tensor.values if raw is None else _texts(raw)
    most = declared.shape[-1] if declared is not None and declared.shape else -1
    for text in itertools.islice(texts or (), TEXTS_LOOKED_AT):
        value, _, rest = str(text).partition(":")
        place = rest.partition(":")[0]
        if not place.isdecimal() or (0 <= most <= int(place[:_DIGITS_MAX])):
            return False
        try:
            if not math.isfinite(float(value)):
                return False
        except ValueError:
            return False
    return True


def _texts(raw: bytes | memoryview) -> Iterator[str]:
    """Yield the texts of a tensor, each after its length; no more than there are."""
    at = 0
    while at + _LENGTH_BYTES <= len(raw):
        size = int.from_bytes(raw[at : at + _LENGTH_BYTES], "little")
        at += _LENGTH_BYTES + size
        yield bytes(raw[at - size : at]).decode(errors="replace")


def _of_values(tensor: _Tensor) -> Flaw | None:
    """Of an output whose elements stand in the JSON, flat or nested by the shape."""
    if tensor.shape is None or bytes(tensor.data) == _NULL:
        return None  # it may be elsewhere, as in memory that is shared
    values = tensor.values
    if values is None or len(values) != elements_of(tensor.shape):
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


def _of_bytes(tensor: _Tensor, raw: bytes | memoryview) -> Flaw | None:
    """Of an output whose elements follow the JSON."""
    if tensor.shape is None:
        return None
    elements, size = elements_of(tensor.shape), BYTES_OF.get(tensor.datatype)
    if tensor.datatype == _TEXT:
        return None if elements is not None and _are_texts(raw, elements) else Flaw.BAD_TENSOR
    if size is None:
        return None
    if elements is None or len(raw) != size * elements:
        return Flaw.BAD_TENSOR
    kind = _FLOATS.get(tensor.datatype)
    if kind is None:
        return None
    values = np.frombuffer(raw, kind)
    looked_at = values[:: max(-(-values.size // FINITE_LOOKED_AT), 1)]
    return None if np.isfinite(looked_at).all() else Flaw.NOT_FINITE


def _are_texts(raw: bytes | memoryview, elements: int) -> bool:
    """True where lengths and texts fill the bytes, as far as they are looked at."""
    at = 0
    for _ in range(min(elements, TEXTS_LOOKED_AT)):
        if at + _LENGTH_BYTES > len(raw):
            return False
        at += _LENGTH_BYTES + int.from_bytes(raw[at : at + _LENGTH_BYTES], "little")
    return at == len(raw) if elements <= TEXTS_LOOKED_AT else at <= len(raw)
