"""What may stand at a place of a message is told by its type."""

from __future__ import annotations

import enum
from typing import Annotated, Literal

import msgspec
import pytest

from broker.core.wire.complaints import plain, worded


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


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("Expected `int`, got `str`", "must be a whole number, not a text"),
        ("Expected `float | null`, got `object`", "must be a number or null, not an object"),
        ("Expected `int | float | str | bool`, got `array`", "must be a whole number or a number"),
        ("Expected `float` >= 0.0", "must be at least 0"),
        ("Expected `float` < 1.5", "must be below 1.5"),
        ("Expected `str` of length <= 200", "must have at most 200 characters"),
        ("Expected `array` of length >= 1", "must have at least 1 element"),
        ("Expected `object` of length <= 5", "must have at most 5 members"),
        ("Expected `array` of length 2", "must have just 2 elements"),
        ("Number out of range", "Number out of range"),
    ],
)
def test_what_is_wrong_with_a_value_is_told_in_plain_words(reason: str, told: str) -> None:
    assert plain(reason).startswith(told)


@pytest.mark.parametrize(
    ("kind", "sent", "told"),
    [
        (Annotated[int, msgspec.Meta(ge=1)], b"0", "must be at least 1"),
        (Annotated[str, msgspec.Meta(max_length=2)], b'"abc"', "must have at most 2 characters"),
        (tuple[int, int], b"[1]", "must have just 2 elements"),
        (dict[str, int] | None, b"[]", "must be an object or null, not a list"),
    ],
)
def test_the_words_of_the_library_that_reads_are_known(
    kind: object, sent: bytes, told: str
) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(sent, type=kind)
    assert plain(str(caught.value)) == told


def test_a_date_alone_is_told_how_times_are_written() -> None:
    told = worded("Invalid RFC3339 encoded datetime", None, "from")
    assert told.endswith("a time is written 2026-01-31T00:00:00Z")


def test_a_number_for_an_amount_is_told_how_amounts_are_written() -> None:
    told = worded("Expected `str | null`, got `int`", Outer, "in[0].fee_usd")
    assert told.endswith('an amount is a decimal in quotes, such as "0.25"')
