"""What may stand at a place of a message is told by its type."""

from __future__ import annotations

import enum
from typing import Annotated, Literal

import msgspec
import pytest

from broker.core.complaints import worded


class Size(enum.StrEnum):
    SMALL = "small"
    LARGE = "large"


class Inner(msgspec.Struct):
    size: Size | None = None
    kinds: list[Literal["a", "b"]] = []
    by_name: dict[str, Size] = {}
    fee_usd: str | None = None


class Outer(msgspec.Struct):
    inner: list[Inner] | None = msgspec.field(name="in", default=None)


@pytest.mark.parametrize(
    ("kind", "path", "words"),
    [
        (Outer, "in[0].size", "small, large"),
        (Outer, "in[3].kinds[0]", "a, b"),
        (Inner, ".by_name[...]", "small, large"),
        (Size, "", "small, large"),
        (Annotated[Size | None, "more"], "", "small, large"),
    ],
)
def test_the_words_of_a_place_are_told(kind: object, path: str, words: str) -> None:
    assert worded("Invalid enum value 'x'", kind, path) == f"'x' is none of {words}"


@pytest.mark.parametrize(("kind", "path"), [(Outer, "in[0].none"), (Outer, ""), (None, "size")])
def test_of_a_place_without_words_nothing_is_made_up(kind: object, path: str) -> None:
    assert worded("Invalid enum value 'x'", kind, path) == "Invalid enum value 'x'"


def test_a_date_alone_is_told_how_times_are_written() -> None:
    told = worded("Invalid RFC3339 encoded datetime", None, "from")
    assert told.endswith("a time is written 2026-01-31T00:00:00Z")


def test_a_number_for_an_amount_is_told_how_amounts_are_written() -> None:
    told = worded("Expected `str | null`, got `int`", Outer, "in[0].fee_usd")
    assert told.endswith('an amount is a decimal in quotes, such as "0.25"')
