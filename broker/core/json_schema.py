"""Checks a value against a JSON Schema, of the words that descriptions of answers are made of.

Those of the drafts 7 to 2020-12 that say what a value is; a schema with a word beyond these is
refused, so that nothing is held for valid which was not looked at. Words that only comment
(`title`, `description`, `default`, `examples`, `format` and the like) are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from broker.core.patterns import Pattern
from broker.errors import RequestMalformed

DEPTH_MAX: Final = 40
LOOKED_AT_MAX: Final = 100_000
"""Pairs of a value and a schema: references that branch could make endlessly many."""

_COMMENTS: Final = {
    *("$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default"),
    *("examples", "format", "deprecated", "readOnly", "writeOnly"),
    *("contentMediaType", "contentEncoding"),
}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: Final[dict[str, Callable[[Any], bool]]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "number": _is_number,
    "integer": lambda value: _is_number(value) and float(value).is_integer(),
}
_COMPARED: Final[dict[str, tuple[Callable[[Any], bool], Callable[[Any, Any], bool]]]] = {
    "minimum": (_is_number, lambda value, bound: value >= bound),
    "maximum": (_is_number, lambda value, bound: value <= bound),
    "exclusiveMinimum": (_is_number, lambda value, bound: value > bound),
    "exclusiveMaximum": (_is_number, lambda value, bound: value < bound),
    "minLength": (_TYPES["string"], lambda value, bound: len(value) >= bound),
    "maxLength": (_TYPES["string"], lambda value, bound: len(value) <= bound),
    "minItems": (_TYPES["array"], lambda value, bound: len(value) >= bound),
    "maxItems": (_TYPES["array"], lambda value, bound: len(value) <= bound),
    "minProperties": (_TYPES["object"], lambda value, bound: len(value) >= bound),
    "maxProperties": (_TYPES["object"], lambda value, bound: len(value) <= bound),
}
_SCHEMAS: Final = frozenset({"items", "additionalProperties", "not", "propertyNames", "contains"})
_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_OTHERS: Final = frozenset(
    {"$ref", "type", "enum", "const", "pattern", "multipleOf", "uniqueItems", "required"}
)
_WORDS: Final = _SCHEMAS | _LISTS | _OTHERS | {"properties"} | _COMPARED.keys()


class Schema:
    """A schema that can be checked against."""

    def __init__(self, schema: object) -> None:
        """Raises RequestMalformed with code `schema_malformed` or `pattern_malformed`."""
        self._root = schema
        self._patterns: dict[str, Pattern] = {}
        self._left = LOOKED_AT_MAX
        if not isinstance(schema, Mapping | bool):
            raise _refused("it is no object")
        self._read(schema, 0)

    def admits(self, value: object) -> bool:
        """Return whether a value, as JSON is decoded, fits. False too where that takes too long."""
        self._left = LOOKED_AT_MAX
        try:
            return self._fits(value, self._root)
        except RecursionError:
            return False

    def _read(self, schema: object, depth: int) -> None:
        """Refuse what could not be checked."""
        if isinstance(schema, bool):
            return
        if not isinstance(schema, Mapping) or depth > DEPTH_MAX:
            raise _refused("a part of it is no schema, or lies too deep")
        unknown = schema.keys() - _WORDS - _COMMENTS
        if unknown:
            raise _refused(f"'{min(unknown)}' is not taken here")
        for word, told in schema.items():
            _require_sound(word, told)
        if "pattern" in schema:
            self._patterns[schema["pattern"]] = Pattern(schema["pattern"])
        if "$ref" in schema:
            self._referred(schema["$ref"])
        for part in _parts(schema):
            self._read(part, depth + 1)

    def _referred(self, place: object) -> object:
        found: Any = self._root
        if not isinstance(place, str) or not (place == "#" or place.startswith("#/")):
            raise _refused("it refers to elsewhere")
        for part in place.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or name not in found:
                raise _refused(f"there is nothing at '{place}'")
            found = found[name]
        return found

    def _fits(self, value: Any, schema: Any) -> bool:
        self._left -= 1
        if isinstance(schema, bool):
            return schema
        if self._left < 0 or not _is_plainly(value, schema):
            return False
        pattern = self._patterns.get(schema.get("pattern", ""))
        if pattern is not None and isinstance(value, str) and not pattern.found_in(value):
            return False
        if "$ref" in schema and not self._fits(value, self._referred(schema["$ref"])):
            return False
        if not self._combined(value, schema):
            return False
        if isinstance(value, dict):
            return self._object(value, schema)
        return self._array(value, schema) if isinstance(value, list) else True

    def _combined(self, value: Any, schema: Mapping[str, Any]) -> bool:
        def fitting(word: str) -> Iterator[bool]:
            return (self._fits(value, each) for each in schema[word])

        return (
            ("allOf" not in schema or all(fitting("allOf")))
            and ("anyOf" not in schema or any(fitting("anyOf")))
            and ("oneOf" not in schema or sum(fitting("oneOf")) == 1)
            and ("not" not in schema or not self._fits(value, schema["not"]))
        )

    def _object(self, value: dict[str, Any], schema: Mapping[str, Any]) -> bool:
        known = schema.get("properties", {})
        beyond = schema.get("additionalProperties", True)
        names = schema.get("propertyNames", True)
        return all(each in value for each in schema.get("required", ())) and all(
            self._fits(each, known.get(name, beyond)) and self._fits(name, names)
            for name, each in value.items()
        )

    def _array(self, value: list[Any], schema: Mapping[str, Any]) -> bool:
        first = schema.get("prefixItems", [])
        told = schema.get("items", True)
        if not all(map(self._fits, value, first)):
            return False
        if not all(self._fits(each, told) for each in value[len(first) :]):
            return False
        inside = schema.get("contains")
        return inside is None or any(self._fits(each, inside) for each in value)


def _parts(schema: Mapping[str, Any]) -> Iterator[object]:
    yield from (schema[word] for word in _SCHEMAS if word in schema)
    for word in _LISTS:
        yield from schema.get(word, ())
    for word in ("properties", "$defs", "definitions"):
        yield from schema.get(word, {}).values()


def _require_sound(word: str, told: object) -> None:
    """Refuse a word of which what is told makes no sense."""
    if word == "type":
        sound = all(each in _TYPES for each in (told if isinstance(told, list) else [told]))
    elif word in _LISTS or word == "enum":
        sound = isinstance(told, list) and bool(told)
    elif word == "required":
        sound = isinstance(told, list) and all(isinstance(each, str) for each in told)
    elif word in ("properties", "$defs", "definitions"):
        sound = isinstance(told, Mapping)
    elif word in _COMPARED or word == "multipleOf":
        sound = _is_number(told) and (word != "multipleOf" or float(str(told)) > 0.0)
    else:
        sound = word != "pattern" or isinstance(told, str)
    if not sound:
        raise _refused(f"what it says of '{word}' makes no sense")


def _is_plainly(value: Any, schema: Mapping[str, Any]) -> bool:
    """Check what is said of the value itself, but for its pattern."""
    types = schema.get("type")
    if types is not None:
        named = types if isinstance(types, list) else [types]
        if not any(_TYPES[each](value) for each in named):
            return False
    if "enum" in schema and not any(_same(value, each) for each in schema["enum"]):
        return False
    if "const" in schema and not _same(value, schema["const"]):
        return False
    for word in _COMPARED.keys() & schema.keys():
        concerns, holds = _COMPARED[word]
        if concerns(value) and not holds(value, schema[word]):
            return False
    if "multipleOf" in schema and _is_number(value):
        share = value / schema["multipleOf"]
        if abs(share - round(share)) > 1e-9 * max(abs(share), 1.0):
            return False
    if schema.get("uniqueItems") is True and isinstance(value, list):
        return not any(_same(one, two) for at, one in enumerate(value) for two in value[:at])
    return True


def _same(one: Any, other: Any) -> bool:
    """JSON holds true apart from 1, which Python does not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    return bool(one == other)


def _refused(why: str) -> RequestMalformed:
    return RequestMalformed(f"The schema cannot be taken: {why}.", code="schema_malformed")
