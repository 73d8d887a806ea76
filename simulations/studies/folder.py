"""Keeps the finished cells of a study in a folder, so that a study goes on after any crash.

Each cell is a line of JSON, written whole and synced before it counts; a last line that broke off
is left out. A cell is found by its key, and the key of a study's code is part of the file's name:
what other code has worked out is not mixed in.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import msgspec

from simulations.cell import Outcome

CODE = ("simulations", "pricing", "broker.core")
"""Where the code is that numbers depend on,"""
SHOWING = (
    *("report", "studies", "api.py", "carrying.py", "commands.py", "console.py"),
    *("jobs.py", "orders.py", "tables.py"),
)
"""but for what of `simulations` arranges runs and shows what came of them."""


class StudyFolder:
    """The folder of one study; the outcomes kept in it are read at once."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path / f"cells-{fingerprint()}.jsonl"
        self._kept = {each.key: each for each in _read(self._file)}

    def find(self, key: str) -> Outcome | None:
        """Return what came of a cell, None where it has not been run."""
        return self._kept.get(key)

    def keep(self, outcome: Outcome) -> None:
        """Write an outcome down."""
        if outcome.key in self._kept:
            return
        with self._file.open("ab") as out:
            out.write(msgspec.json.encode(outcome) + b"\n")
            out.flush()
            os.fsync(out.fileno())
        self._kept[outcome.key] = outcome

    def __len__(self) -> int:
        return len(self._kept)


def fingerprint() -> str:
    """Return a few letters that differ wherever the code differs that numbers depend on."""
    digest = hashlib.sha256()
    for package in CODE:
        folder = Path(str(files(package)))
        for path in sorted(folder.rglob("*.py")):
            if package == "simulations" and path.relative_to(folder).parts[0] in SHOWING:
                continue
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _read(file: Path) -> Iterator[Outcome]:
    if not file.exists():
        return
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        # What broke off must not be glued to the next line.
        with file.open("r+b") as out:
            out.truncate(len(whole))
    decode = msgspec.json.Decoder(Outcome).decode
    for line in whole.splitlines():
        yield decode(line)
