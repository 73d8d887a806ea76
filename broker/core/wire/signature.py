"""What a model says that it takes and gives: names, datatypes and shapes, and what is not like it.

KServe v2 calls it the model's metadata. It was seen when the endpoint was probed; what a server
says of itself later is not asked for again with each call. It says nothing of which inputs may be
left out, so nothing that is missing from a request is held against that.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from broker.core.wire.tensor_form import HEAD_BYTES_MAX


class Tensor(msgspec.Struct, frozen=True):
    """An input or output that is declared; a dimension below 0 is of any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def admits(self, shape: tuple[int, ...]) -> bool:
        """True for a shape of as many dimensions, each of the declared size where one is."""
        return len(shape) == len(self.shape) and all(
            size < 0 or size == told for size, told in zip(self.shape, shape, strict=True)
        )


class Signature(msgspec.Struct, frozen=True):
    """A model's metadata."""

    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    versions: tuple[str, ...] = ()
    platform: str = ""

    def output(self, name: str) -> Tensor | None:
        """Return a declared output."""
        return next((each for each in self.outputs if each.name == name), None)

    def objection(self, request: bytes) -> str | None:
        """Return how the JSON of a request contradicts the inputs, in words; None where it does
        not, or is too long to be looked at: only what is there and is plainly of another kind."""
        if len(request) > HEAD_BYTES_MAX:
            return None
        try:
            given = _inputs(request).inputs
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        declared = {each.name: each for each in self.inputs}
        for each in given:
            wanted = declared.get(each.name)
            if wanted is None:
                continue
            if each.datatype != wanted.datatype:
                return f"input '{each.name}' is {each.datatype}, the model takes {wanted.datatype}"
            if not wanted.admits(each.shape):
                told, shape = list(each.shape), list(wanted.shape)
                return f"input '{each.name}' has the shape {told}, the model takes {shape}"
        return None


class _Inputs(msgspec.Struct):
    inputs: tuple[Tensor, ...] = ()


_inputs: Final = msgspec.json.Decoder(_Inputs).decode


def described(signature: Signature, model: str) -> dict[str, Any]:
    """Return a signature as KServe v2 tells the metadata of a model of that name."""
    return {
        "name": model,
        "versions": signature.versions,
        "platform": signature.platform,
        "inputs": signature.inputs,
        "outputs": signature.outputs,
    }
