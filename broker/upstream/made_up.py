"""Makes up an infer request of KServe v2: zeros and short texts, in JSON or as binary tensors.

https://github.com/kserve/open-inference-protocol and Triton's binary tensor data extension: the
JSON first, then the bytes of each tensor, little-endian; a text has its length before it. Written
out here, for the client that consumers have takes 7 MB of a process that serves.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from broker.core.signature import Tensor
from broker.core.tensor_form import BYTES_OF

ELEMENTS_MAX: Final = 4_194_304
TEXTS_MAX: Final = 65_536
"""Numbers and texts that are made up for a model at most, whatever its server says it takes."""
_TEXT: Final = b"probe"
_BINARY_TEXT: Final = len(_TEXT).to_bytes(4, "little") + _TEXT


class NotMadeUp(Exception):
    """For this input: a datatype that is not known, or too much of it."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__(f"{tensor.datatype} {list(tensor.shape)}")


def made_up(inputs: list[Tensor], *, binary: bool) -> tuple[bytes, int | None]:
    """Return the body of an infer request, and how much of it is JSON; None: all of it is.

    A size that is open, below 1, is taken as 1. Raises NotMadeUp.
    """
    told: list[dict[str, object]] = []
    tail: list[bytes] = []
    left = ELEMENTS_MAX
    for each in inputs:
        shape = [max(size, 1) for size in each.shape]
        elements = math.prod(shape)
        most = min(left, TEXTS_MAX) if each.datatype == "BYTES" else left
        if elements > most or not _is_known(each.datatype, binary=binary):
            raise NotMadeUp(each)
        left -= elements
        described: dict[str, object] = {
            "name": each.name,
            "shape": shape,
            "datatype": each.datatype,
        }
        if binary:
            tail.append(_packed(each.datatype, elements))
            told.append(described | {"parameters": {"binary_data_size": len(tail[-1])}})
        else:
            told.append(described | {"data": [_told(each.datatype)] * elements})
    if not binary:
        return msgspec.json.encode({"inputs": told}), None
    head = msgspec.json.encode({"inputs": told, "parameters": {"binary_data_output": True}})
    return b"".join((head, *tail)), len(head)


def _is_known(datatype: str, *, binary: bool) -> bool:
    # JSON has no form for BF16.
    return datatype == "BYTES" or (datatype in BYTES_OF and (binary or datatype != "BF16"))


def _packed(datatype: str, elements: int) -> bytes:
    return _BINARY_TEXT * elements if datatype == "BYTES" else bytes(BYTES_OF[datatype] * elements)


def _told(datatype: str) -> object:
    if datatype == "BYTES":
        return _TEXT.decode()
    if datatype == "BOOL":
        return False
    return 0.0 if datatype.startswith("FP") else 0
