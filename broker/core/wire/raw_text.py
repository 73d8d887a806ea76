"""Reads what text is in the ends of a piece of JSON that is too long to be read whole.

An end begins or stops anywhere: within a string, within a character that is written as `\\u00e9`.
"""

from __future__ import annotations

import json
import re
from typing import Final

END_BYTES: Final = 4_096
_STRING: Final = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)(?:(")(\s*:)?|\\?\Z)', re.DOTALL)
"""What it says, whether it is closed, and whether it is a name. One that is not is one too, or each
quote in it would be tried for the beginning of another."""
_TOLD: Final = frozenset({"content", "text"})
"""The names of members that are text of a prompt."""
_ESCAPE_CHARACTERS: Final = 6
_CUT: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\(u[0-9a-fA-F]{0,3})?$")
_LOOK_BACK_BYTES: Final = 64


def text_at_ends(raw: memoryview) -> str:
    """Return the text that stands in the first and the last END_BYTES."""
    start = _whole_from(raw, max(len(raw) - END_BYTES, 0))
    head, tail = (bytes(each).decode(errors="ignore") for each in (raw[:END_BYTES], raw[start:]))
    return f"{_text_of(head)} {_text_of(_begun(tail))}"


def _whole_from(raw: memoryview, at: int) -> int:
    """Return where no escape is cut in two, `at` or a little later."""
    cut = _CUT.search(bytes(raw[max(at - _LOOK_BACK_BYTES, 0) : at]))
    if cut is None:
        return at
    begun = cut.group(1) or b""
    is_long = begun or bytes(raw[at : at + 1]) == b"u"
    return at + (_ESCAPE_CHARACTERS - 1 - len(begun) if is_long else 1)


def _begun(tail: str) -> str:
    """Return a tail with a quote before it if it begins within a string: then none is left open at
    its end, for there JSON has ended."""
    *_, last = _STRING.finditer(f'"{tail}')
    return f'"{tail}' if last.group(2) else tail


def _text_of(piece: str) -> str:
    """Return the text of a piece that begins outside of a string."""
    texts, name = [], None
    for string, _, is_name in _STRING.findall(piece):
        if is_name:
            name = string
        elif name is None or name in _TOLD:
            texts.append(string)
    return _decoded(" ".join(texts))


def _decoded(string: str) -> str:
    """Return what a string of JSON says, but for an escape that is cut off at its end."""
    for cut in range(_ESCAPE_CHARACTERS):
        try:
            told = json.loads(f'"{string[: len(string) - cut]}"', strict=False)
        except ValueError:
            continue
        return str(told)
    return string
