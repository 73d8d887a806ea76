"""The project's own Python files, for tests of how the code is built."""

from __future__ import annotations

import ast
import subprocess
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("broker", "pricing", "provider_sdk", "simulations", "web")
"""What is shipped and runs; tests and migrations stand beside."""


@dataclass(frozen=True)
class Source:
    """One file; `path` is from the root of the project, with slashes."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The text, parsed when it is first asked for: most of what the tests hold never is."""
        return ast.parse(self.text, self.path)

    @property
    def room(self) -> str:
        """The first two parts of its dotted name, such as `broker.core`."""
        parts = self.path.removesuffix(".py").split("/")
        return ".".join(parts[:2])


@lru_cache(maxsize=1)
def files() -> tuple[str, ...]:
    """All files that are tracked or would be, from the root of the project."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return tuple(sorted({name for name in listed.split("\0") if name and (ROOT / name).is_file()}))


@lru_cache(maxsize=1)
def sources() -> tuple[Source, ...]:
    """Every Python file."""
    return tuple(
        Source(name, (ROOT / name).read_text(encoding="utf-8"))
        for name in files()
        if name.endswith(".py")
    )


@lru_cache(maxsize=1)
def shipped() -> tuple[Source, ...]:
    """The Python files of the packages."""
    return tuple(each for each in sources() if each.path.split("/")[0] in PACKAGES)
