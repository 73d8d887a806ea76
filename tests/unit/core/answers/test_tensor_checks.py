"""Tensors are what they say of themselves, or that is a flaw."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
import numpy as np
import pytest

from broker.core.answers.answer_checks import Flaw
from broker.core.answers.tensor_checks import FINITE_LOOKED_AT, find_tensor_flaw
from broker.core.call import TensorBody
from broker.core.wire.signature import Signature, Tensor
from broker.flows.calls.inspect_answer import _of_tensors
from broker.upstream.kserve import HEADER_LENGTH

ASKED = b'{"inputs":[]}'


def output(datatype: str, shape: list[int], data: Any, name: str = "label") -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def in_binary(datatype: str, shape: list[int], size: int, name: str = "label") -> dict[str, Any]:
    parameters = {"binary_data_size": size}
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}


def found(*outputs: dict[str, Any], asked: bytes = ASKED, binary: bytes = b"") -> Flaw | None:
    answer = {"model_name": "m", "outputs": list(outputs)}
    return find_tensor_flaw(asked, msgspec.json.encode(answer), binary)


@pytest.mark.parametrize(
    "sound",
    [
        output("FP32", [3], [0.1, -2, 3e30]),
        output("FP32", [], 0.5),
        output("FP64", [2, 2], [[0.1, 0.2], [0.3, 0.4]]),
        output("FP64", [2, 2], [0.1, 0.2, 0.3, 0.4]),
        output("INT8", [2], [-128, 127]),
        output("UINT64", [1], [2**64 - 1]),
        output("BOOL", [2], [True, 0]),
        output("BYTES", [2], ["a", ""]),
        output("BYTES", [1], [{"spoken": "by some"}]),
        {"name": "elsewhere", "datatype": "FP32", "shape": [4]},
    ],
)
def test_what_is_as_it_says_has_no_flaw(sound: dict[str, Any]) -> None:
    assert found(sound) is None


@pytest.mark.parametrize("shape", [[1] * 65, [-1, -1], [2**62] * 60_000, [0, 2**62] * 60_000])
def test_a_shape_that_no_tensor_has_is_a_flaw_before_it_is_multiplied(shape: list[int]) -> None:
    """The product of as many numbers as an answer can hold would stop the whole process."""
    whole = output("FP32", [1], [0.5], name="whole")
    assert found(output("FP32", [1] * 64, [0.5]), whole) is None
    assert found(output("FP32", shape, [0.5]), whole) is Flaw.BAD_TENSOR
    binary = in_binary("FP32", shape, 4)
    assert found(binary, whole, binary=bytes(4)) is Flaw.BAD_TENSOR


@pytest.mark.parametrize(
    ("amiss", "flaw"),
    [
        (output("FP32", [0], []), Flaw.EMPTY),
        (output("FP32", [3], [0.1, 0.2]), Flaw.BAD_TENSOR),
        (output("FP32", [2], [0.1, [0.2]]), Flaw.BAD_TENSOR),
        (output("FP32", [2], [0.1, "0.2"]), Flaw.BAD_TENSOR),
        (output("FP32", [2], [0.1, True]), Flaw.BAD_TENSOR),
        (output("FP32", [2], [0.1, None]), Flaw.NOT_FINITE),
        (output("FP16", [1], ["NaN"]), Flaw.NOT_FINITE),
        (output("INT8", [1], [128]), Flaw.BAD_TENSOR),
        (output("UINT8", [1], [-1]), Flaw.BAD_TENSOR),
        (output("INT64", [1], [0.5]), Flaw.BAD_TENSOR),
        (output("BOOL", [1], [2]), Flaw.BAD_TENSOR),
        (in_binary("FP32", [2], -8), Flaw.BAD_TENSOR),
        (in_binary("FP32", [2], 8), Flaw.BAD_TENSOR),
    ],
)
def test_what_is_not_as_it_says_has_one(amiss: dict[str, Any], flaw: Flaw) -> None:
    assert found(amiss) is flaw


def test_no_outputs_are_a_flaw_and_what_is_no_such_answer_is_none() -> None:
    assert found() is Flaw.EMPTY
    assert find_tensor_flaw(ASKED, b"{}") is Flaw.EMPTY
    for odd in (b"", b"[]", b"\xff", b'{"outputs":7}', b"[" * 100_000):
        assert find_tensor_flaw(ASKED, odd) is None


def test_elements_after_the_json_are_counted_and_must_be_numbers() -> None:
    good, bad = np.array([1.0, 2.0], np.float32), np.array([1.0, np.inf], np.float32)
    two = in_binary("FP32", [2], 8), in_binary("INT16", [3], 6, "second")
    assert found(*two, binary=good.tobytes() + bytes(6)) is None
    assert found(*two, binary=bad.tobytes() + bytes(6)) is Flaw.NOT_FINITE
    assert found(*two, binary=good.tobytes() + bytes(5)) is Flaw.BAD_TENSOR
    assert found(in_binary("FP32", [3], 8), binary=good.tobytes()) is Flaw.BAD_TENSOR
    assert found(in_binary("BYTES", [2], 8), binary=bytes(8)) is None
    assert found(in_binary("BYTES", [1], 8), binary=bytes(8)) is Flaw.BAD_TENSOR
    assert found(in_binary("BYTES", [1], 8), binary=b"\xff" * 8) is Flaw.BAD_TENSOR


def test_an_output_that_was_asked_for_must_be_there() -> None:
    asked = b'{"inputs":[],"outputs":[{"name":"label"},{"name":"odds"}]}'
    label, odds = output("INT32", [1], [3]), output("FP32", [1], [0.9], "odds")
    assert found(label, odds, asked=asked) is None
    assert found(label, asked=asked) is Flaw.BAD_TENSOR
    assert found(label, asked=b"never read") is None


@pytest.mark.parametrize("second", [b"nonsense", b"", b"-1", b"1"])
def test_a_length_of_the_json_that_stands_twice_breaks_no_call(second: bytes) -> None:
    """The first was found to be sound; the call is settled, and its caller has paid."""
    described = msgspec.json.encode({"outputs": [in_binary("FP32", [2], 8)]})
    lengths = [(HEADER_LENGTH, b"%d" % len(described)), (HEADER_LENGTH, second)]
    for numbers, flaw in (([1.0, 2.0], None), ([1.0, np.nan], Flaw.NOT_FINITE)):
        answer = described + np.array(numbers, np.float32).tobytes()
        find = _of_tensors(TensorBody((), ASKED), answer, lengths)
        assert find is not None
        assert find() is flaw


def test_of_a_large_request_no_more_than_its_json_is_copied_for_a_look() -> None:
    sent = ASKED + bytes(100)
    headers = ((HEADER_LENGTH, b"%d" % len(ASKED)),)
    body = TensorBody(headers, sent, (memoryview(bytearray(2**24)),), len(sent) + 2**24)
    tracemalloc.start()
    try:
        find = _of_tensors(body, b'{"outputs":[]}', ())
        most_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert find is not None
    assert find() is Flaw.EMPTY
    assert most_bytes < 2**16


DIGITS = Signature(
    (),
    (
        Tensor("PROBABILITIES", "FP32", (-1, 10)),
        Tensor("DIGIT", "INT64", (-1, 1)),
        Tensor("LEVELS", "FP32", (-1,)),
    ),
)


def held(answer: dict[str, Any], asked: bytes = ASKED, binary: bytes = b"") -> Flaw | None:
    packed = msgspec.json.encode({"outputs": [answer]})
    return find_tensor_flaw(asked, packed, binary, DIGITS)


@pytest.mark.parametrize(
    ("answer", "flaw"),
    [
        (output("FP32", [2, 10], [0.1] * 20, "PROBABILITIES"), None),
        (output("INT64", [3, 1], [1, 2, 3], "DIGIT"), None),
        (output("FP7", [3], [1, 2, 3], "OF_ITS_OWN"), None),
        (output("FP64", [2, 10], [0.1] * 20, "PROBABILITIES"), Flaw.UNDECLARED),
        (output("FP32", [20], [0.1] * 20, "PROBABILITIES"), Flaw.UNDECLARED),
        (output("FP32", [2, 9], [0.1] * 18, "PROBABILITIES"), Flaw.UNDECLARED),
        (output("BYTES", [1, 10], ["0.5:3"] * 10, "PROBABILITIES"), Flaw.UNDECLARED),
        (output("INT64", [3, 1], [1, 2], "DIGIT"), Flaw.BAD_TENSOR),
    ],
)
def test_an_output_is_what_its_model_declares(answer: dict[str, Any], flaw: Flaw | None) -> None:
    assert held(answer) is flaw


@pytest.mark.parametrize("in_bytes", [True, False])
@pytest.mark.parametrize(
    ("texts", "flaw"),
    [
        (["0.75:3", "0.25:9"], None),
        (["-1.5:0:zero: a label", "1e-3:9:nine"], None),
        (["0.75:10", "0.25:9"], Flaw.UNDECLARED),
        (["0.75:three"], Flaw.UNDECLARED),
        (["0.75:-1"], Flaw.UNDECLARED),
        (["0.75"], Flaw.UNDECLARED),
        (["nan:3"], Flaw.UNDECLARED),
        (["high:3"], Flaw.UNDECLARED),
    ],
)
def test_classes_asked_for_in_place_of_numbers_are_of_the_declared_range(
    texts: list[str], flaw: Flaw | None, *, in_bytes: bool
) -> None:
    wanted = {"name": "PROBABILITIES", "parameters": {"classification": 2}}
    asked = msgspec.json.encode({"inputs": [], "outputs": [wanted]})
    shape = [1, len(texts)]
    if not in_bytes:
        assert held(output("BYTES", shape, texts, "PROBABILITIES"), asked) is flaw
        return
    raw = b"".join(len(each).to_bytes(4, "little") + each.encode() for each in texts)
    assert held(in_binary("BYTES", shape, len(raw), "PROBABILITIES"), asked, raw) is flaw


def test_of_a_large_tensor_a_sample_is_looked_at_from_end_to_end_and_nothing_is_copied() -> None:
    values = np.zeros(10 * FINITE_LOOKED_AT, np.float32)
    described = msgspec.json.encode({"outputs": [in_binary("FP32", [values.size], values.nbytes)]})
    for place in (0, -10):
        spoilt = values.copy()
        spoilt[place] = np.nan
        answer = memoryview(spoilt.tobytes())
        assert find_tensor_flaw(ASKED, described, answer) is Flaw.NOT_FINITE
    tracemalloc.start()
    try:
        assert find_tensor_flaw(ASKED, described, memoryview(values).cast("B")) is None
        most_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most_bytes < values.nbytes / 10


@pytest.mark.parametrize(
    ("datatype", "shape", "unit"),
    [("FP32", [1], "[]"), ("INT8", [2, 3], "{}"), ("BOOL", [60_000, 1], "[[]]"), ("X", [9], "[1]")],
)
def test_what_has_more_lists_than_its_shape_makes_is_not_taken_apart(
    datatype: str, shape: list[int], unit: str
) -> None:
    """250 kB of empty lists held all other calls up for 55 ms."""
    data = msgspec.Raw(b"[%b]" % b",".join([unit.encode()] * 60_000))
    answer = msgspec.json.encode({"outputs": [output(datatype, shape, data)]})
    tracemalloc.start()
    try:
        assert find_tensor_flaw(ASKED, answer) is Flaw.BAD_TENSOR
        taken_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken_bytes < 3 * len(answer)


def test_lists_within_texts_are_no_lists() -> None:
    assert found(output("BYTES", [2], ["[[[[", "{{"])) is None
    assert found(output("FP32", [2, 1, 1], [[[0.5]], [[1.5]]])) is None
