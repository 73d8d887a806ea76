"""Schemas and patterns of strangers mean what they say, and never take for ever."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.answers.json_schema import Pattern, Schema
from broker.errors import RequestMalformed

TICKET = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "queue": {"type": "string", "minLength": 1, "pattern": "^[A-Z]"},
        "urgency": {"type": "integer", "minimum": 0, "exclusiveMaximum": 10},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True},
        "parent": {"anyOf": [{"$ref": "#/$defs/parent"}, {"type": "null"}]},
    },
    "$defs": {"parent": {"required": ["queue"], "properties": {"queue": {"pattern": "^[A-Z]"}}}},
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


def _bomb(doublings: int) -> dict[str, Any]:
    """A schema of a few lines that, written out, doubles so many times."""
    parts: dict[str, Any] = {"a0": {"type": "integer"}}
    for at in range(doublings):
        parts[f"a{at + 1}"] = {"allOf": [{"$ref": f"#/$defs/a{at}"}] * 2}
    return {"$ref": f"#/$defs/a{doublings}", "$defs": parts}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (_bomb(13), "more than 10000 parts"),
        (_bomb(40), "too deep"),
        ({"$ref": "#"}, "refers to itself"),
        ({"properties": {"a": {"anyOf": [{"$ref": "#"}, {"items": {"$ref": "#"}}]}}}, "to itself"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "to itself"),
        ({"allOf": [{"pattern": f"(x{at}[a-z]{{1,100}}){{1,30}}"} for at in range(21)]}, "20 pat"),
        ({"patternProperties": {f"a{at}": True for at in range(21)}}, "20 patterns"),
        ({"pattern": "a" * 1_001}, "longer than 1000"),
        ({"pattern": "([a-z]{1,100}){1,100}"}, "is not a"),
        ({"properties": {"a": {"$id": "http://127.0.0.1:9/", "$ref": "#/b"}}}, "is not taken"),
    ],
)
def test_a_schema_that_would_be_much_work_is_refused(schema: Any, why: str) -> None:
    with pytest.raises(RequestMalformed, match=why):
        Schema(schema)


def test_references_that_are_shared_are_taken() -> None:
    assert Schema(_bomb(8)).admits(1) is True
    assert Schema(_bomb(8)).admits("a") is False


def test_of_a_value_that_is_large_beside_its_schema_nothing_is_told() -> None:
    schema = Schema({"items": {"allOf": [{"minimum": 0}] * 1_000}})
    assert schema.admits([1] * 100) is True
    assert schema.admits([1] * 1_000) is None


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


def _unevaluated(link: str, depth: int) -> dict[str, Any]:
    """Schemas that leave nothing unevaluated, each within the other."""
    schema: dict[str, Any] = {"unevaluatedProperties": {}}
    for _ in range(depth):
        within: Any = {"a": schema} if link == "properties" else [schema]
        schema = {"unevaluatedProperties": {}, link: within}
    return schema


@pytest.mark.parametrize("link", ["allOf", "anyOf", "oneOf"])
def test_a_schema_whose_work_multiplies_by_each_unevaluated_is_refused(link: str) -> None:
    # The library would look 2.7 times as long for each of them, and hold all else up meanwhile.
    assert Schema(_unevaluated(link, 4)).admits({"b": 1}) is True
    with pytest.raises(RequestMalformed, match="more than 10000 parts"):
        Schema(_unevaluated(link, 30))


def test_unevaluated_of_values_within_values_may_stand_as_deep_as_any() -> None:
    schema = Schema(_unevaluated("properties", 25) | {"unevaluatedProperties": False})
    assert schema.admits({"a": {"a": {}}}) is True
    assert schema.admits({"b": 1}) is False


def test_much_text_is_not_held_against_patterns() -> None:
    repeated = [{"pattern": f"[ab]*a[ab]{{{at}}}[^ab]"} for at in range(600, 620)]
    schema = Schema({"anyOf": repeated})
    assert schema.admits("ab" * 100) is False
    assert schema.admits("ab" * 30_000) is None
    assert schema.admits({"ab" * 30_000: 1}) is None
    assert Schema({"maxLength": 3}).admits("ab" * 30_000) is False
