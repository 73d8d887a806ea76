"""Writes a plain scenario as TOML: arrays of tables at length, all other tables in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

_TABLES = ("providers", "endpoints", "classes")


def toml_of(scenario: Mapping[str, Any]) -> str:
    """Return the text; all values are tables, arrays, numbers, truth values and texts."""
    return "#:schema ./scenario.schema.json\n" + "\n".join(_table(scenario, ())) + "\n"


def _table(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    for name, value in table.items():
        if name not in _TABLES:
            yield f"{_key(name)} = {_value(value)}"
    for name in (each for each in _TABLES if each in table):
        for part in table[name]:
            yield f"\n[[{'.'.join((*path, name))}]]"
            yield from _table(part, (*path, name))


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(name)} = {_value(each)}" for name, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    # A basic string of TOML is one of JSON, but for DEL, which JSON leaves as it is.
    return json.dumps(str(value)).replace("\x7f", "\\u007F")


def _key(name: str) -> str:
    bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if bare else _value(name)
