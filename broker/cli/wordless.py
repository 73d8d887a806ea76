"""Imports libraries without what they say of themselves: 5 MB of a serving process are docstrings.

`python -OO` would leave them out too, and every assertion with them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from dis import hasconst, opmap
from importlib.machinery import SourceFileLoader
from inspect import CO_OPTIMIZED
from operator import is_
from types import CodeType
from typing import Final

NOTHING: Final = " "
"""In place of a docstring. It is a text, for some add to it; and not an empty one, for of a
dataclass that has none another is made."""

_STORE: Final = opmap["STORE_NAME"]
_EXTENDED: Final = opmap["EXTENDED_ARG"]


@contextlib.contextmanager
def importing_without_words(but: Collection[str]) -> Iterator[None]:
    """Import in the block without docstrings, but those of the packages named."""
    whole = SourceFileLoader.get_code

    def get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
        code = whole(self, fullname)
        return code if code is None or fullname.partition(".")[0] in but else wordless(code)

    with _in_place_of_loading(get_code):
        yield


@contextlib.contextmanager
def _in_place_of_loading(
    get_code: Callable[[SourceFileLoader, str], CodeType | None],
) -> Iterator[None]:
    # An attribute of its own, over the one that it inherits, unless there is one already.
    before = vars(SourceFileLoader).get("get_code")
    SourceFileLoader.get_code = get_code  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        if before is None:
            del SourceFileLoader.get_code
        else:
            SourceFileLoader.get_code = before  # type: ignore[method-assign]


def wordless(code: CodeType) -> CodeType:
    """Return the code without docstrings, its own and those of all that is defined in it."""
    told = code.co_consts
    consts = [wordless(each) if isinstance(each, CodeType) else each for each in told]
    if (place := _place(code)) is not None:
        consts[place] = NOTHING
    return code if all(map(is_, consts, told)) else code.replace(co_consts=tuple(consts))


def _place(code: CodeType) -> int | None:
    """Return which constant is the docstring alone; None where there is none."""
    told = code.co_consts
    if code.co_flags & CO_OPTIMIZED:  # of a function, the first, and nothing reads it
        is_one = told and isinstance(told[0], str) and not _reads(code, 0)
        return 0 if is_one else None
    place = _stored(code) if "__doc__" in code.co_names else None
    if place is None or not isinstance(told[place], str):
        return None
    return place if _reads(code, place) == 1 else None


def _stored(code: CodeType) -> int | None:
    """Return which constant becomes the `__doc__` of a class or a module."""
    steps, name = code.co_code, code.co_names.index("__doc__")
    for at in range(2, len(steps), 2):
        if steps[at] == _STORE and steps[at + 1] == name and steps[at - 2] in hasconst:
            extended = at >= 4 and steps[at - 4] == _EXTENDED
            return None if extended else steps[at - 1]
    return None


def _reads(code: CodeType, place: int) -> int:
    """Return how often a constant is read; too often where one is with the same last byte."""
    steps = code.co_code
    return sum(steps[at] in hasconst and steps[at + 1] == place for at in range(0, len(steps), 2))
