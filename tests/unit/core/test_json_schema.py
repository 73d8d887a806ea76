"""Schemas and patterns of strangers mean what they say, and never take for ever."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.json_schema import Pattern, Schema
from broker.errors import RequestMalformed

TICKET = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "queue": {"type": "string", "minLength": 1, "pattern": "^[A-Z]"},
        "urgency": {"type": "integer", "minimum": 0, "exclusiveMaximum": 10},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True},
        "parent": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    },
    "required": ["queue"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ({"queue": "Billing"}, True),
        ({"queue": "Billing", "urgency": 3.0, "tags": ["b", "a"]}, True),
        ({"queue": "Billing", "parent": {"queue": "Sales", "parent": None}}, True),
        ({"queue": "Billing", "parent": {"queue": "sales"}}, False),
        ({"queue": ""}, False),
        ({"urgency": 3}, False),
        ({"queue": "Billing", "urgency": 10}, False),
        ({"queue": "Billing", "urgency": True}, False),
        ({"queue": "Billing", "tags": ["a", "a"]}, False),
        ({"queue": "Billing", "more": 1}, False),
        ([], False),
    ],
)
def test_a_description_of_tickets_admits_tickets(value: object, fits: bool) -> None:
    assert Schema(TICKET).admits(value) is fits


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "text"},
        {"minimum": "1"},
        {"$ref": "http://127.0.0.1:9/schema"},
        {"$ref": "#/$defs/none"},
        {"properties": []},
        {"pattern": "(a"},
        {"pattern": "(?=a)b"},
        {"multipleOf": 0},
        "string",
        None,
    ],
)
def test_a_schema_that_makes_no_sense_is_refused(schema: object) -> None:
    with pytest.raises(RequestMalformed, match=r"The schema cannot be taken: .{10,}") as refused:
        Schema(schema)
    assert refused.value.code == "schema_malformed"


def test_a_schema_that_refers_to_itself_ends() -> None:
    for endless in ({"$ref": "#"}, {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}):
        assert Schema(endless).admits(1) in (True, False)


def test_a_schema_that_lies_too_deep_is_refused() -> None:
    deep: Any = {"type": "null"}
    for _ in range(5_000):
        deep = {"items": deep}
    with pytest.raises(RequestMalformed, match="cannot be taken"):
        Schema(deep)


def test_half_a_letter_is_not_admitted() -> None:
    assert not Schema({"type": "string"}).admits("a\ud800")
    assert not Pattern("a").found_in("a\ud800")


@pytest.mark.parametrize(
    ("pattern", "there", "absent"),
    [
        (r"\bcat\b", "a cat.", "cats"),
        (r"(?i)CAT", "cat", "dog"),
        (r"^\d{2,3}$", "12", "1"),
        (r"ab|cd", "xcd", "ad"),
        (r"(?P<x>a)b", "ab", "ba"),
    ],
)
def test_a_pattern_is_looked_for_anywhere(pattern: str, there: str, absent: str) -> None:
    assert Pattern(pattern).found_in(there)
    assert not Pattern(pattern).found_in(absent)


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|aa)+$", r"a*a*a*a*a*b", r"(.*)*x"])
def test_what_would_take_for_ever_takes_a_moment(pattern: str) -> None:
    # Python's own would not be through by the limit that every test has.
    assert not Pattern(pattern).found_in("a" * 100_000 + "!")


@pytest.mark.parametrize("pattern", [r"(a)\1", r"(?=a)b", r"(?<!a)b", r"(a", r"((a{99}){99}){99}"])
def test_a_pattern_that_may_take_for_ever_is_refused(pattern: str) -> None:
    with pytest.raises(RequestMalformed, match="cannot be taken") as refused:
        Pattern(pattern)
    assert refused.value.code == "pattern_malformed"
