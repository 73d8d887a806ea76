"""An answer that no client could read is told by its JSON alone, and nothing else is one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from broker.core.wire.tensor_form import HEAD_BYTES_MAX, asked_outputs, find_fault


def told(*outputs: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"model_name": "m", "outputs": outputs})


def binary(datatype: str, shape: list[int], size: int, name: str = "odds") -> dict[str, Any]:
    parameters = {"binary_data_size": size}
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}


PLAIN = {"name": "odds", "datatype": "FP32", "shape": [2], "data": [0.5, 0.5]}


@pytest.mark.parametrize(
    ("outputs", "tail_bytes"),
    [
        ([PLAIN], 0),
        ([binary("FP32", [3, 50_000], 600_000)], 600_000),
        ([binary("FP32", [3], 12), PLAIN, binary("BYTES", [1], 9, "label")], 21),
        ([binary("FP7", [3], 1)], 1),
        ([binary("INT64", [0], 0)], 0),
        ([binary("FP16", [4], 8)], None),
        ([], 0),
    ],
)
def test_what_fits_together_is_an_answer(
    outputs: list[dict[str, Any]], tail_bytes: int | None
) -> None:
    assert find_fault(told(*outputs), tail_bytes) is None


@pytest.mark.parametrize(
    ("answer", "tail_bytes", "words"),
    [
        (told(binary("FP32", [3], 12)), 11, "not as long"),
        (told(binary("FP32", [3], 12)), 13, "not as long"),
        (told(PLAIN), 4, "not as long"),
        (told(binary("FP32", [3], 11)), 11, "shape and datatype"),
        (told(binary("FP32", [-1], 4)), None, "shape and datatype"),
        (told(binary("INT8", [2**40] * 60, 4)), None, "shape and datatype"),
        (told(binary("BYTES", [1], -8)), None, "shape and datatype"),
        (b'{"model_name":"m"}', 0, "without outputs"),
        (b'{"outputs":{}}', 0, "without outputs"),
        (b'{"outputs":[{"shape":[1]}]}', 0, "without outputs"),
        (b"[]", 0, "without outputs"),
        (b"<html>", 0, "without outputs"),
        (b"[" * HEAD_BYTES_MAX, 0, "without outputs"),
        (b"x" * (HEAD_BYTES_MAX + 1), 0, "no JSON object"),
        (b'{"outputs":[' + b"1," * HEAD_BYTES_MAX, 0, "no JSON object"),
    ],
)
def test_what_does_not_is_none(answer: bytes, tail_bytes: int | None, words: str) -> None:
    assert words in (find_fault(answer, tail_bytes) or "")


def test_long_json_is_not_read_and_no_answer_of_it_is_refused_for_that() -> None:
    long = b' {"outputs": [%b]} \n' % (b"7," * HEAD_BYTES_MAX)
    assert find_fault(long, 0, ["odds"]) is None


def test_an_output_that_was_asked_for_must_be_there() -> None:
    asked = asked_outputs(b'{"inputs":[],"outputs":[{"name":"odds"},{"name":"label"}]}')
    assert set(asked) == {"odds", "label"}
    assert "asked for" in (find_fault(told(PLAIN), 0, asked) or "")
    assert find_fault(told(PLAIN, {**PLAIN, "name": "label"}), 0, asked) is None
    assert "asked for" in (find_fault(told(), 0, ["odds"]) or "")


@pytest.mark.parametrize(
    "request_json",
    [b"{}", b'{"outputs":null}', b'{"outputs":7}', b'"outputs"', b'{"outputs":[{}]}', b"\xff"],
)
def test_what_cannot_be_read_of_a_request_asks_for_nothing(request_json: bytes) -> None:
    assert not asked_outputs(request_json)
    assert not asked_outputs(b'{"outputs":[{"name":"a"}],"x":"%b"}' % (b"x" * HEAD_BYTES_MAX))
