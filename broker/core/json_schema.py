"""JSON Schemas and regular expressions of strangers, which never take long.

The library's work cannot be interrupted, so what would be much of it is refused before: a schema
whose references, written out, make it large, or that refers to itself; a value that is large beside
its schema. A pattern is one of JSON Schema (ECMA 262) that an automaton can find in a text in time
that grows with its length: references back and looking around are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn
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

_ELSEWHERE: Final = frozenset({"$id", "$dynamicRef", "$recursiveRef"})
"""They change what a reference means, or depend on what was looked at before."""


class Schema:
    """A schema that can be checked against; the latest draft, where it names none."""

    def __init__(self, schema: object) -> None:
        """Raises RequestMalformed with code `schema_malformed`."""
        try:
            self._parts = _Reading(schema).parts(schema, 0)
            self._checks = _made_ready(schema)
        except ValueError as error:
            raise RequestMalformed(
                f"The schema cannot be taken: {_sentence(error)}.", code="schema_malformed"
            ) from None

    def admits(self, value: object) -> bool | None:
        """Return whether a value, as JSON is decoded, fits; None where it is too large to tell."""
        if _count(value, WORK_MAX // self._parts) is None:
            return None
        return _admits(self._checks, value)


class Pattern:
    """A regular expression that can be looked for."""

    def __init__(self, text: str) -> None:
        """Raises RequestMalformed with code `pattern_malformed`."""
        try:
            schema = {"type": "string", "pattern": text}
            _Reading(schema).parts(schema, 0)
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


class _Reading:
    """Looks at a schema before the library does. All raise ValueError."""

    def __init__(self, root: object) -> None:
        self._root = root
        self._patterns = 0
        self._counted: dict[str, int | None] = {}
        """By reference; None while it is being counted."""

    def parts(self, schema: object, depth: int) -> int:
        """Count a part of the schema, with all that it refers to."""
        if depth > DEPTH_MAX:
            raise ValueError("it lies too deep")
        total = 1
        if isinstance(schema, list):
            for each in schema:
                total += self.parts(each, depth + 1)
        elif isinstance(schema, dict):
            for word, each in schema.items():
                self._look_at(word, each, depth)
                total += self.parts(each, depth + 1)
                if word == "$ref":
                    total += self._referred(each, depth + 1)
        if total > PARTS_MAX:
            raise ValueError(f"written out, it has more than {PARTS_MAX} parts")
        return total

    def _look_at(self, word: str, told: object, depth: int) -> None:
        if word in _ELSEWHERE and depth:
            raise ValueError(f"'{word}' is not taken here")
        if word == "pattern" and isinstance(told, str):
            self._look_at_patterns([told])
        elif word == "patternProperties" and isinstance(told, dict):
            self._look_at_patterns(list(told))

    def _look_at_patterns(self, patterns: list[str]) -> None:
        self._patterns += len(patterns)
        if self._patterns > PATTERNS_MAX:
            raise ValueError(f"it has more than {PATTERNS_MAX} patterns")
        if any(len(each) > PATTERN_CHARACTERS_MAX for each in patterns):
            raise ValueError(f"a pattern is longer than {PATTERN_CHARACTERS_MAX} characters")

    def _referred(self, place: object, depth: int) -> int:
        if not isinstance(place, str) or not (place == "#" or place.startswith("#/")):
            raise ValueError("it refers to elsewhere")
        if place not in self._counted:
            self._counted[place] = None
            self._counted[place] = self.parts(self._at(place), depth)
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


def _count(value: object, most: int) -> int | None:
    """Count the parts of a value; None for more than `most`."""
    total, ahead = 0, [value]
    while ahead:
        each = ahead.pop()
        total += 1
        if isinstance(each, dict):
            ahead.extend(each.values())
        elif isinstance(each, list):
            ahead.extend(each)
        if total + len(ahead) > most:
            return None
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
