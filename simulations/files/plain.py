"""Makes frozen values of plain ones: tables become dataclasses, by their types and nothing else.

    a dataclass                  a table of its fields; unknown ones are refused
    one of several dataclasses   a table whose `kind` is the name in snake case, such as `day_night`
    an enum                      its word
    a tuple, a frozen set        an array
    money, weights, schedules    as in `simulations.files.special`

Every fault names its place as a path of keys and numbers.
"""

from __future__ import annotations

import dataclasses
import enum
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

from simulations.files.lines import Path
from simulations.files.scalars import Fault, known, scalar, table, told
from simulations.files.special import SPECIAL

KIND = "kind"


def made(kind: Any, plain: object, path: Path = ()) -> Any:
    """Return `plain` as a value of the type `kind`. Raises Fault."""
    if kind in SPECIAL:
        return SPECIAL[kind](plain, path)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _one_of(inner, plain, path)
    if origin is not None and issubclass(origin, Mapping):
        key, value = inner
        return {
            made(key, name, (*path, name)): made(value, each, (*path, name))
            for name, each in table(plain, path).items()
        }
    if origin is not None:
        return _collected(origin, inner, plain, path)
    if dataclasses.is_dataclass(kind):
        return _filled(typing.cast(type, kind), plain, path)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _word(kind, plain, path)
    return scalar(kind, plain, path)


def snake(kind: type) -> str:
    """Return the name of a class as files write it: `DayNight` is `day_night`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def fields_of(kind: type) -> dict[str, Any]:
    """Return the types of a dataclass's fields that a file may set, by name."""
    types_of = typing.get_type_hints(kind)
    return {each.name: types_of[each.name] for each in dataclasses.fields(kind) if each.init}


def is_needed(field: dataclasses.Field[Any]) -> bool:
    """Tell whether a field has no default."""
    return field.default is field.default_factory is dataclasses.MISSING


def _filled(kind: Any, plain: object, path: Path) -> Any:
    types_of = fields_of(kind)
    given = {
        name: made(types_of[name], value, (*path, name))
        for name, value in known(plain, types_of, path).items()
    }
    for each in dataclasses.fields(kind):
        if is_needed(each) and each.name not in given:
            raise Fault(path, f"'{each.name}' is missing.")
    try:
        return kind(**given)
    except ValueError as error:
        raise Fault(path, f"{error}.") from None


def _one_of(kinds: tuple[Any, ...], plain: object, path: Path) -> Any:
    if type(None) in kinds:
        return None if plain is None else made(kinds[0], plain, path)
    by_word = {snake(each): each for each in kinds}
    rest = dict(table(plain, path))
    word = rest.pop(KIND, None)
    if word not in by_word:
        wrong = "is missing" if word is None else f"is not {told(word)}"
        raise Fault((*path, KIND), f"'{KIND}' {wrong}; it is one of {', '.join(by_word)}.")
    return _filled(by_word[str(word)], rest, path)


def _collected(origin: Any, inner: tuple[Any, ...], plain: object, path: Path) -> Any:
    if not isinstance(plain, list | tuple):
        raise Fault(path, f"must be an array, not {told(plain)}.")
    kinds = inner
    if origin is not tuple or inner[-1] is Ellipsis:
        kinds = (inner[0],) * len(plain)
    if len(plain) != len(kinds):
        raise Fault(path, f"must have {len(kinds)} parts, not {len(plain)}.")
    parts = zip(kinds, plain, strict=True)
    return origin(made(kind, each, (*path, place)) for place, (kind, each) in enumerate(parts))


def _word(kind: type[enum.Enum], plain: object, path: Path) -> enum.Enum:
    try:
        return kind(plain)
    except ValueError:
        words = ", ".join(str(each.value) for each in kind)
        raise Fault(path, f"must be one of {words}, not {told(plain)}.") from None
