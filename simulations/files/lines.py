"""Tells at which line of a TOML text a value stands, so that an error can name it.

The standard library's parser keeps no places, so this reads headers and keys once more, and only
those: whether the text is TOML at all has been decided before. Values within arrays and inline
tables have the line of the key that these begin at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Path = tuple[str | int, ...]
"""Keys and places, such as ("providers", 0, "name")."""

_HEADER = re.compile(r"\s*(\[\[?)\s*(.+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")
_TOKEN = re.compile(
    r'"""(?:.*?)"""|' + r"'''(?:.*?)'''|"  # a long text that ends in its line
    r'(?P<begun>""".*|' + r"'''.*)|"
    r'"(?:\\.|[^"\\])*"|' + r"'[^']*'|"
    r"(?P<comment>#.*)"
)


def line_of(text: str, path: Path) -> int | None:
    """Return the line, from 1, of the value at `path` or of what holds it; None where neither is.

    `text` is TOML.
    """
    places = dict(_places(text))
    for length in range(len(path), 0, -1):
        if path[:length] in places:
            return places[path[:length]]
    return None


def _places(text: str) -> Iterator[tuple[Path, int]]:
    """Yield the path and line of every table and key; of several lines, the last one counts."""
    table: Path = ()
    counts: dict[Path, int] = {}
    open_brackets, long_quote = 0, ""
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw
        if long_quote:
            _, closed, line = line.partition(long_quote)
            if not closed:
                continue
            long_quote = ""
        elif not open_brackets:
            if header := _HEADER.match(line):
                table = _opened(header[1] == "[[", _parts(header[2]), counts)
                yield table, number
                continue
            if key := _KEY.match(line):
                yield _within(table, _parts(key[1]), counts), number
                line = line[key.end() :]
        bare, long_quote = _bare(line)
        open_brackets += sum(map(bare.count, "[{")) - sum(map(bare.count, "]}"))


def _opened(is_array: bool, names: tuple[str, ...], counts: dict[Path, int]) -> Path:
    """The path of the table that a header opens, each array on the way at its last place."""
    path: Path = _within((), names[:-1], counts) + names[-1:]
    if not is_array:
        return path if path not in counts else (*path, counts[path])
    counts[path] = counts.get(path, -1) + 1
    return (*path, counts[path])


def _within(table: Path, names: tuple[str, ...], counts: dict[Path, int]) -> Path:
    path = table
    for name in names:
        path = (*path, name)
        if path in counts:
            path = (*path, counts[path])
    return path


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(each.strip("\"'") for each in _PART.findall(dotted))


def _bare(line: str) -> tuple[str, str]:
    """The line without texts and comment, and the quotes of a text that goes on in the next."""
    bare, at = "", 0
    for token in _TOKEN.finditer(line):
        bare += line[at : token.start()]
        if token.lastgroup == "begun":
            return bare, token[0][:3]
        if token.lastgroup == "comment":
            return bare, ""
        at = token.end()
    return bare + line[at:], ""
