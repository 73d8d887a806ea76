"""JSON Schemas admit what they describe and nothing else, and refuse words they do not know."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.json_schema import Schema
from broker.errors import RequestMalformed

PERSON = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "pattern": "^[A-Z]"},
        "age": {"type": "integer", "minimum": 0, "exclusiveMaximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True},
        "boss": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    },
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ({"name": "Ann"}, True),
        ({"name": "Ann", "age": 3.0, "tags": ["b", "a"]}, True),
        ({"name": "Ann", "boss": {"name": "Bo", "boss": None}}, True),
        ({"name": "Ann", "boss": {"name": "bo"}}, False),
        ({"name": ""}, False),
        ({"age": 3}, False),
        ({"name": "Ann", "age": 150}, False),
        ({"name": "Ann", "age": True}, False),
        ({"name": "Ann", "age": 2.5}, False),
        ({"name": "Ann", "tags": ["a", "a"]}, False),
        ({"name": "Ann", "tags": ["c"]}, False),
        ({"name": "Ann", "more": 1}, False),
        ([], False),
        ("Ann", False),
    ],
)
def test_a_description_of_a_person_admits_persons(value: object, fits: bool) -> None:
    assert Schema(PERSON).admits(value) is fits


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"oneOf": [{"minimum": 2}, {"maximum": 3}]}, 1, 2.5),
        ({"allOf": [{"type": "number"}, {"multipleOf": 0.1}]}, 0.3, 0.25),
        ({"not": {"type": "string"}}, 1, "a"),
        ({"const": 1}, 1.0, True),
        ({"type": ["string", "null"]}, None, 1),
        ({"prefixItems": [{"type": "string"}], "items": {"type": "integer"}}, ["a", 1], ["a", "b"]),
        ({"contains": {"const": [1]}}, [[1]], [[True]]),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "null"}}}, None, 0),
        ({"propertyNames": {"maxLength": 1}, "minProperties": 1}, {"a": 1}, {"ab": 1}),
        (True, 1, None),
    ],
)
def test_words_mean_what_they_say(schema: Any, right: object, wrong: object) -> None:
    assert Schema(schema).admits(right)
    assert schema is True or not Schema(schema).admits(wrong)


def test_a_reference_to_itself_ends() -> None:
    endless = Schema({"$ref": "#"})
    assert not endless.admits(1)
    branching = Schema({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]})
    assert not branching.admits(1)


@pytest.mark.parametrize(
    "schema",
    [
        {"patternProperties": {"a": {}}},
        {"type": "text"},
        {"minimum": "1"},
        {"enum": []},
        {"$ref": "https://elsewhere/schema"},
        {"$ref": "#/$defs/none"},
        {"properties": []},
        {"pattern": "(a"},
        {"multipleOf": 0},
        "string",
    ],
)
def test_what_is_not_understood_is_refused(schema: object) -> None:
    with pytest.raises(RequestMalformed, match="cannot be taken"):
        Schema(schema)
