"""Compares an output of an answer in tensors with its reference, by the metrics that words have.

exact    all elements, with a space between each, are the reference
numeric  the one element is the reference, within the tolerance
choice   the one element is the choice; or there is an element for each choice, and the largest is
         that of the choice, as where a classifier tells the odds of its labels
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from broker.core.answers.grading import grade
from broker.core.answers.suites import LETTERS, Item, Metric
from broker.core.answers.tensor_checks import flat


class _Output(msgspec.Struct):
    name: str = ""
    data: Any = None


class _Outputs(msgspec.Struct):
    outputs: list[_Output] = []


_answer: Final = msgspec.json.Decoder(_Outputs).decode


def grade_tensors(item: Item, answer: bytes) -> float:
    """Return the score of an answer, its JSON with all elements in it; 0 without the output that
    the item names, or any where it names none."""
    values = _values(item, answer)
    if not values:
        return 0.0
    if item.metric is Metric.CHOICE and len(values) > 1:
        return float(_largest(values, item.choices or LETTERS[: len(values)]) in item.references)
    if item.metric is Metric.NUMERIC and len(values) > 1:
        return 0.0
    return grade(item, " ".join(map(_word, values)))


def _values(item: Item, answer: bytes) -> list[Any]:
    try:
        outputs = _answer(answer).outputs
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []
    found = [each for each in outputs if item.output in (None, each.name)]
    return list(flat(found[0].data) or []) if found else []


def _largest(odds: list[Any], choices: tuple[str, ...]) -> str | None:
    numbers = [each for each in odds if isinstance(each, int | float)]
    if len(numbers) != len(odds) or len(odds) != len(choices):
        return None
    return choices[numbers.index(max(numbers))]


def _word(value: object) -> str:
    if isinstance(value, float):  # as a reference that is a number is written
        return str(int(value) if value.is_integer() and abs(value) < 2**53 else value)
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
