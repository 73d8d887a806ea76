"""Says in plain words what msgspec finds wrong with a message, and what may stand there instead."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec import inspect

_NO_CHOICE: Final = "Invalid enum value "
_EXPECTED: Final = re.compile(
    r"Expected `(?P<kinds>[^`]*)`"
    r"(?:, got `(?P<got>[^`]*)`| (?P<sign>[<>]=?) (?P<bound>\S+)| of length (?P<length>.+))?"
)
_FIELD: Final = re.compile(r"Object (missing required|contains unknown) field `(.+)`")
_KINDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "datetime": "a time",
    "date": "a day",
    "uuid": "an id",
}
_BOUNDS: Final = {">=": "at least", "<=": "at most", ">": "above", "<": "below"}
_PARTS: Final = {"str": "characters", "array": "elements", "object": "members"}
_NAME_CHARACTERS_MAX: Final = 64
"""A longer name is like none, and to compare it takes long."""


def worded(reason: str, kind: Any, path: str) -> str:
    """Return what is wrong at a place of a message of this kind, such as `steps[0].factor`."""
    if reason.startswith(_NO_CHOICE):
        words = _choices(kind, tuple(re.findall(r"[^.\[\]]+|\[[^]]*\]", path)))
        if words:
            return f"{reason.removeprefix(_NO_CHOICE)} is none of {', '.join(words)}"
    if "RFC3339" in reason:
        return f"{reason}; a time is written 2026-01-31T00:00:00Z"
    if "`str" in reason and path.endswith("_usd"):
        return f'{plain(reason)}; an amount is a decimal in quotes, such as "0.25"'
    return plain(reason)


def placed(reason: str, kind: Any) -> str:
    """Return what msgspec says of a message of this kind ("... - at `$.a[0]`"), the place first."""
    told, _, place = reason.partition(" - at ")
    path = place.strip("`").removeprefix("$").removeprefix(".")
    found = _FIELD.fullmatch(told)
    if found is not None:
        path = ".".join(filter(None, (path, found[2])))
        told = "there is no such field" if found[1] == "contains unknown" else "is missing"
    return ": ".join(filter(None, (path, worded(told, kind, path))))


def plain(reason: str) -> str:
    """Return what msgspec says of a value in plain words; what it says of others, as it is."""
    found = _EXPECTED.fullmatch(reason)
    if found is None:
        return reason
    kinds = found["kinds"].split(" | ")
    if found["length"] is not None:
        sign, _, count = found["length"].rpartition(" ")
        parts = _PARTS.get(kinds[0], "parts")
        told = (_BOUNDS.get(sign, "just"), count, parts[:-1] if count == "1" else parts)
        return f"must have {' '.join(told)}"
    if found["sign"] is not None:
        return f"must be {_BOUNDS[found['sign']]} {found['bound'].removesuffix('.0')}"
    wanted = " or ".join(dict.fromkeys(_KINDS.get(each, each) for each in kinds))
    got = "a decimal number" if found["got"] == "float" else _KINDS.get(found["got"], found["got"])
    return f"must be {wanted}, not {got}" if got else f"must be {wanted}"


def nearest(name: str, names: Sequence[str]) -> str:
    """Return which of the names was meant, as the end of a sentence; empty where none is near."""
    if len(name) > _NAME_CHARACTERS_MAX:
        return ""
    return "".join(f"; was '{each}' meant?" for each in difflib.get_close_matches(name, names, 1))


@lru_cache(maxsize=256)
def _choices(kind: Any, path: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(_words(inspect.type_info(kind), path))
    except (TypeError, msgspec.ValidationError):
        return ()  # of what no message is made of


def _words(told: inspect.Type, path: Sequence[str]) -> Iterator[str]:
    """Yield the words that may stand at a place."""
    if isinstance(told, inspect.UnionType):
        for each in told.types:
            yield from _words(each, path)
    elif isinstance(told, inspect.CollectionType | inspect.DictType) and path:
        inner = told.value_type if isinstance(told, inspect.DictType) else told.item_type
        yield from _words(inner, path[1:])
    elif isinstance(told, inspect.StructType) and path:
        for field in told.fields:
            if field.encode_name == path[0]:
                yield from _words(field.type, path[1:])
    elif isinstance(told, inspect.EnumType) and not path:
        yield from (str(each.value) for each in told.cls)
    elif isinstance(told, inspect.LiteralType) and not path:
        yield from map(str, told.values)
