"""Outputs in tensors are compared with their references."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from broker.core.answers.suites import Input, Item, Metric
from broker.core.answers.tensor_grading import grade_tensors

TEXT = Input("text", "BYTES", (1,), msgspec.Raw(b'["a lease"]'))


def graded(metric: str, reference: Any, data: Any, **more: Any) -> float:
    item = Item(metric=Metric(metric), reference=reference, inputs=(TEXT,), **more)
    other = {"name": "other", "datatype": "FP32", "shape": [1], "data": [9]}
    told = {"name": "label", "datatype": "FP32", "shape": [1], "data": data}
    outputs = [other, told] if item.output else [told]
    return grade_tensors(item, msgspec.json.encode({"outputs": outputs}))


@pytest.mark.parametrize(
    ("metric", "reference", "data"),
    [
        ("exact", "lease", ["lease"]),
        ("exact", "1 0 1", [[1, 0], [1.0]]),
        ("exact", ["4", "5"], [5]),
        ("exact", 1e-05, [1e-05]),
        ("exact", 1e16, [1e16]),
        ("exact", 0.25, [0.25]),
        ("numeric", 0.5, [0.5]),
        ("numeric", 0.5, 0.5000001),
        ("choice", "B", ["B"]),
        ("choice", "B", [[0.1, 0.7, 0.2]]),
    ],
)
def test_what_matches_is_right_and_anything_else_is_not(
    metric: str, reference: Any, data: Any
) -> None:
    assert graded(metric, reference, data) == 1.0
    assert graded(metric, reference, data, output="label") == 1.0
    assert graded(metric, reference, data, output="missing") == 0.0
    for wrong in ([], None, ["other"], [0.9, 0.1], [[1], 2], [7], ["x", 1.0]):
        assert graded(metric, reference, wrong) == 0.0


def test_the_largest_of_the_odds_is_the_choice_of_its_place() -> None:
    labels = ("law", "food")
    assert graded("choice", "food", [0.2, 0.8], choices=labels) == 1.0
    assert graded("choice", "food", [0.8, 0.2], choices=labels) == 0.0
    assert graded("choice", "food", [0.1, 0.8, 0.1], choices=labels) == 0.0
    assert graded("choice", "food", ["food"], choices=labels) == 1.0


def test_what_is_no_such_answer_is_worth_nothing() -> None:
    item = Item(metric=Metric.EXACT, reference="a", inputs=(TEXT,))
    for odd in (b"", b"[]", b"{}", b"\xff", b'{"outputs":[]}', b'{"outputs":[{"name":"x"}]}'):
        assert grade_tensors(item, odd) == 0.0
