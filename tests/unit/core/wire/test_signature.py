"""What a model declares is held against what contradicts it, and not against what is missing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from broker.core.wire.signature import Signature, Tensor
from broker.core.wire.tensor_form import HEAD_BYTES_MAX

DIGITS = Signature(
    (Tensor("PIXELS", "FP32", (-1, 64)), Tensor("MASK", "BOOL", (-1,))),
    (Tensor("DIGIT", "INT64", (-1, 1)),),
)


def objection(*inputs: dict[str, Any], **more: Any) -> str | None:
    return DIGITS.objection(msgspec.json.encode({"inputs": inputs} | more))


def given(name: str, datatype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": [0]}


@pytest.mark.parametrize(
    "inputs",
    [
        [given("PIXELS", "FP32", [1, 64])],
        [given("PIXELS", "FP32", [9, 64]), given("MASK", "BOOL", [3])],
        [given("MASK", "BOOL", [1])],
        [given("SOMETHING_ELSE", "FP7", [])],
        [],
    ],
)
def test_what_may_be_meant_is_not_objected_to(inputs: list[dict[str, Any]]) -> None:
    assert objection(*inputs) is None


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (given("PIXELS", "FP64", [1, 64]), "'PIXELS' is FP64, the model takes FP32"),
        (given("PIXELS", "FP32", [64]), "has the shape [64], the model takes [-1, 64]"),
        (given("PIXELS", "FP32", [1, 65]), "has the shape [1, 65]"),
        (given("MASK", "BOOL", [1, 1]), "'MASK' has the shape [1, 1]"),
    ],
)
def test_what_contradicts_is(tensor: dict[str, Any], words: str) -> None:
    assert words in (objection(tensor) or "")
    assert words in (objection(given("SOMETHING_ELSE", "FP7", []), tensor) or "")


@pytest.mark.parametrize("odd", [b"", b"[]", b'{"inputs":7}', b"\xff", b"[" * 10_000])
def test_what_cannot_be_read_is_the_servers_to_refuse(odd: bytes) -> None:
    assert DIGITS.objection(odd) is None


def test_long_json_is_not_read() -> None:
    wrong = given("PIXELS", "FP64", [1, 64])
    assert objection(wrong, x="y" * HEAD_BYTES_MAX) is None
    assert objection(wrong) is not None
