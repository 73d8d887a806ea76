"""JSON Schemas and regular expressions of strangers, which never take for ever.

A pattern is one of JSON Schema (ECMA 262) that an automaton can find in a text in time that grows
with its length: references back and looking around are refused.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

import jsonschema_rs
from jsonschema_rs import RegexOptions

from broker.errors import RequestMalformed

PATTERN_BYTES_MAX: Final = 1_000_000
"""Of memory, for a pattern that has been made ready."""

_REFUSALS = (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError)
_PATTERNS: Final = RegexOptions(size_limit=PATTERN_BYTES_MAX, dfa_size_limit=PATTERN_BYTES_MAX)


class Schema:
    """A schema that can be checked against; the latest draft, where it names none."""

    def __init__(self, schema: object) -> None:
        """Raises RequestMalformed with code `schema_malformed`."""
        try:
            self._checks = _made_ready(schema)
        except _REFUSALS as error:
            raise RequestMalformed(
                f"The schema cannot be taken: {_sentence(error)}.", code="schema_malformed"
            ) from None

    def admits(self, value: Any) -> bool:
        """Return whether a value, as JSON is decoded, fits; False where it has half a letter."""
        return _admits(self._checks, value)


class Pattern:
    """A regular expression that can be looked for."""

    def __init__(self, text: str) -> None:
        """Raises RequestMalformed with code `pattern_malformed`."""
        try:
            self._checks = _made_ready({"type": "string", "pattern": text})
        except _REFUSALS:
            raise RequestMalformed(
                f"The pattern '{text[:80]}' cannot be taken: it is none of JSON Schema, too large, "
                "or refers back or looks around.",
                code="pattern_malformed",
            ) from None

    def found_in(self, text: str) -> bool:
        """Return whether any part of the text fits."""
        return _admits(self._checks, text)


def _made_ready(schema: Any) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(schema, pattern_options=_PATTERNS, retriever=_nowhere)


def _admits(checks: jsonschema_rs.Validator, value: Any) -> bool:
    try:
        return checks.is_valid(value)
    except ValueError:  # half a letter, which JSON may escape and UTF-8 cannot hold
        return False


def _nowhere(uri: str) -> NoReturn:
    """Fetch nothing, for a stranger's schema must not make the broker ask others."""
    raise ValueError(f"it refers to elsewhere, '{uri[:80]}'")


def _sentence(error: Exception) -> str:
    said = error.message if isinstance(error, jsonschema_rs.ValidationError) else str(error)
    return said.partition("\n")[0].rstrip(".")[:300]
