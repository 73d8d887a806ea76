"""Says in plain words what is wrong with an argument or an option of a command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import typer

_Told = Mapping[str, Any]

_SENTENCES: Final[Mapping[str, Callable[[Any, _Told], str]]] = {
    "uuid": lambda value, _: f"'{value}' is no id: copy one whole, as a list shows it.",
    "datetime": lambda value, _: (
        f"'{value}' is no time: one is written 2026-01-31 or 2026-01-31T12:00:00."
    ),
    "int": lambda value, _: f"'{value}' is no whole number.",
    "float": lambda value, _: f"'{value}' is no number.",
    "greater_than_equal": lambda value, told: f"{value} is below {told['ge']}, the least.",
    "less_than_equal": lambda value, told: f"{value} is above {told['le']}, the most.",
    "literal_error": lambda value, told: f"'{value}' is none of {told['expected']}.",
    "enum": lambda value, told: f"'{value}' is none of {told['expected']}.",
}
"""By the kind of an error, as pydantic, by which typer reads arguments, calls it."""


def reword(error: typer.BadParameter) -> None:
    """Put what is wrong in our words, where it was found by the library that reads arguments."""
    found = getattr(error.__cause__, "errors", None)
    if not callable(found):
        return
    first = found()[0]
    kind = str(first["type"])
    sentence = _SENTENCES.get(kind) or _SENTENCES.get(kind.partition("_")[0])
    if sentence is None:
        error.message = error.message.removeprefix("Value error, ")
    else:
        error.message = sentence(first["input"], first.get("ctx", {}))
