"""The plain values of a file, checked: numbers, words, tables; and what is wrong with them."""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from simulations.files.lines import Path

_NAMES = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}


class Fault(Exception):
    """What is wrong, and where."""

    def __init__(self, path: Path, detail: str) -> None:
        super().__init__(detail)
        self.path = path
        self.detail = detail


def scalar(kind: type, plain: object, path: Path) -> Any:
    """Return a number, text or truth value of just that kind; a float may be written as an int.

    Raises Fault.
    """
    if kind is float and isinstance(plain, int | float) and not isinstance(plain, bool):
        with contextlib.suppress(OverflowError):  # a whole number of hundreds of digits
            number = float(plain)
            if not math.isnan(number):
                return number
    elif type(plain) is kind:
        return plain
    raise Fault(path, f"must be {_NAMES[kind]}, not {told(plain)}.")


def table(plain: object, path: Path) -> Mapping[str, object]:
    """Return a table. Raises Fault."""
    if not isinstance(plain, Mapping):
        raise Fault(path, f"must be a table, not {told(plain)}.")
    return plain


def known(plain: object, names: Iterable[str], path: Path) -> Mapping[str, object]:
    """Return a table that has no other fields than these. Raises Fault."""
    given, names = table(plain, path), list(names)
    for name in given:
        if name not in names:
            raise Fault((*path, name), f"there is no such field here{_meant(name, names)}")
    return given


def told(plain: object) -> str:
    """Return how a message calls a value."""
    if isinstance(plain, Mapping):
        return "a table"
    if isinstance(plain, list | tuple):
        return "an array"
    return f"'{plain}'" if isinstance(plain, str) else str(plain).lower()


def _meant(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, 1)
    if close:
        return f"; was '{close[0]}' meant?"
    return f"; it may have {', '.join(names)}." if names else "; it has none."
