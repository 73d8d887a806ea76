"""JSON Schemas and regular expressions of strangers, which never take long.

The library's work cannot be interrupted, so what would be much of it is refused before: a schema
whose references, written out, make it large, or that refers to itself; a value that is large beside
its schema. For what is "unevaluated" the library looks at the same value again, and again for each
that stands within another: such a part counts as often. A pattern is one of JSON Schema (ECMA 262)
that an automaton can find in a text in time that grows with its length, and with the pattern's:
references back and looking around are refused, and much text beside patterns is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn
from urllib.parse import unquote

from broker.errors import RequestMalformed

if TYPE_CHECKING:
    import jsonschema_rs

# The library is 5 MB of memory, and most processes never meet a schema: it is imported where it is
# used.

PARTS_MAX: Final = 10_000
"""Words and values of a schema, each as often as it is referred to."""
DEPTH_MAX: Final = 64
PATTERNS_MAX: Final = 20
PATTERN_CHARACTERS_MAX: Final = 1_000
PATTERN_BYTES_MAX: Final = 100_000
"""Of memory, for a pattern that has been made ready: a few milliseconds."""
WORK_MAX: Final = 1_000_000
"""Parts of a schema times parts of a value: a fortieth of a second."""
CHARACTER_WORK: Final = 40
"""Of a character that a pattern is looked for at, of that: up to 4 µs, where it repeats much."""

_UNEVALUATED: Final = frozenset({"unevaluatedItems", "unevaluatedProperties"})
_INWARD: Final = _UNEVALUATED | {
    *("properties", "patternProperties", "additionalProperties", "items", "prefixItems"),
    *("$defs", "definitions"),
}
"""Their schemas are for what is within a value, which is not looked at again."""
_LOOKS: Final = 3
"""So often any others beside an "unevaluated" are looked at; measured were 2.7."""
_ELSEWHERE: Final = frozenset({"$id", "$dynamicRef", "$recursiveRef"})
"""They change what a reference means, or depend on what was looked at before."""


class Schema:
    """A schema that can be checked against; the latest draft, where it names none."""

    def __init__(self, schema: object) -> None:
        """Raises RequestMalformed with code `schema_malformed`."""
        try:
            self.size = _Reading(schema).size(schema, 0)
            self._checks = _made_ready(schema)
        except ValueError as error:
            raise RequestMalformed(
                f"The schema cannot be taken: {_sentence(error)}.", code="schema_malformed"
            ) from None

    def admits(self, value: object) -> bool | None:
        """Return whether a value, as JSON is decoded, fits; None where it is too large to tell."""
        return None if self.work(value) > WORK_MAX else _admits(self._checks, value)

    def work(self, value: object) -> int:
        """Return how much it is to look at a value, in the unit of WORK_MAX; no further than that
        is counted."""
        return _work(value, self.size)


class Pattern:
    """A regular expression that can be looked for."""

    def __init__(self, text: str) -> None:
        """Raises RequestMalformed with code `pattern_malformed`."""
        try:
            schema = {"type": "string", "pattern": text}
            _Reading(schema).size(schema, 0)
            self._checks = _made_ready(schema)
        except ValueError:
            raise RequestMalformed(
                f"The pattern '{text[:80]}' cannot be taken: it is none of JSON Schema, too large, "
                "or refers back or looks around.",
                code="pattern_malformed",
            ) from None

    def found_in(self, text: str) -> bool:
        """Return whether any part of the text fits."""
        return _admits(self._checks, text)


class Size(NamedTuple):
    """Of a schema with all that it refers to, written out."""

    parts: int
    patterns: int


class _Reading:
    """Looks at a schema before the library does. All raise ValueError."""

    def __init__(self, root: object) -> None:
        self._root = root
        self._patterns = 0
        self._counted: dict[str, Size | None] = {}
        """By reference; None while it is being counted."""

    def size(self, schema: object, depth: int) -> Size:
        """Measure a part of the schema, with all that it refers to."""
        if depth > DEPTH_MAX:
            raise ValueError("it lies too deep")
        parts, patterns = 1, 0
        for part, looks in self._within(schema, depth):
            parts += part.parts * looks
            patterns += part.patterns * looks
            if parts > PARTS_MAX:
                raise ValueError(f"written out, it has more than {PARTS_MAX} parts")
        return Size(parts, patterns)

    def _within(self, schema: object, depth: int) -> Iterator[tuple[Size, int]]:
        """Measure what is within, and say how often it is looked at."""
        if isinstance(schema, list):
            yield from ((self.size(each, depth + 1), 1) for each in schema)
        elif isinstance(schema, dict):
            again = 1 if _UNEVALUATED.isdisjoint(schema) else _LOOKS
            for word, each in schema.items():
                looks = 1 if word in _INWARD else again
                yield Size(0, self._look_at(word, each, depth)), 1
                yield self.size(each, depth + 1), looks
                if word == "$ref":
                    yield self._referred(each, depth + 1), looks

    def _look_at(self, word: str, told: object, depth: int) -> int:
        """Return how many patterns a word tells."""
        if word in _ELSEWHERE and depth:
            raise ValueError(f"'{word}' is not taken here")
        if word == "pattern" and isinstance(told, str):
            return self._look_at_patterns([told])
        if word == "patternProperties" and isinstance(told, dict):
            return self._look_at_patterns(list(told))
        return 0

    def _look_at_patterns(self, patterns: list[str]) -> int:
        self._patterns += len(patterns)
        if self._patterns > PATTERNS_MAX:
            raise ValueError(f"it has more than {PATTERNS_MAX} patterns")
        if any(len(each) > PATTERN_CHARACTERS_MAX for each in patterns):
            raise ValueError(f"a pattern is longer than {PATTERN_CHARACTERS_MAX} characters")
        return len(patterns)

    def _referred(self, place: object, depth: int) -> Size:
        if not isinstance(place, str) or not (place == "#" or place.startswith("#/")):
            raise ValueError("it refers to elsewhere")
        if place not in self._counted:
            self._counted[place] = None
            self._counted[place] = self.size(self._at(place), depth)
        counted = self._counted[place]
        if counted is None:
            raise ValueError("it refers to itself")
        return counted

    def _at(self, place: str) -> object:
        found: Any = self._root
        for part in unquote(place).split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            elif isinstance(found, dict) and name in found:
                found = found[name]
            else:
                raise ValueError(f"there is nothing at '{place[:80]}'")
        return found


def _work(value: object, size: Size) -> int:
    """Return the work that a value is; a little more than WORK_MAX for any that is more."""
    total, ahead = 0, [value]
    character_work = size.patterns * CHARACTER_WORK
    while ahead and total <= WORK_MAX:
        each = ahead.pop()
        total += size.parts
        if isinstance(each, dict):
            total += character_work * sum(map(len, each))
            ahead.extend(each.values())
        elif isinstance(each, list):
            ahead.extend(each)
        elif isinstance(each, str):
            total += character_work * len(each)
    return total


def _made_ready(schema: Any) -> jsonschema_rs.Validator:
    """Raises ValueError."""
    import jsonschema_rs

    patterns = jsonschema_rs.RegexOptions(
        size_limit=PATTERN_BYTES_MAX, dfa_size_limit=PATTERN_BYTES_MAX
    )
    try:
        return jsonschema_rs.validator_for(schema, pattern_options=patterns, retriever=_nowhere)
    except jsonschema_rs.ValidationError as error:
        raise ValueError(error.message) from None
    except jsonschema_rs.ReferencingError as error:
        raise ValueError(str(error)) from None


def _admits(checks: jsonschema_rs.Validator, value: Any) -> bool:
    try:
        return checks.is_valid(value)
    except ValueError:  # half a letter, which JSON may escape and UTF-8 cannot hold
        return False


def _nowhere(uri: str) -> NoReturn:
    """Fetch nothing, for a stranger's schema must not make the broker ask others."""
    raise ValueError(f"it refers to elsewhere, '{uri[:80]}'")


def _sentence(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")[:300]
