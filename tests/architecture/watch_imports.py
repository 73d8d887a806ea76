"""Imports modules and prints a line for each deed that one of them does by being imported.

    python tests/architecture/watch_imports.py FOLDER broker.app broker.cli.main ...

What an imported library does is its own affair: only deeds whose nearest caller that is not the
standard library is a module of ours count.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import FrameType
from typing import Any

DEEDS = (
    *("socket.", "subprocess.", "os.system", "os.fork", "os.posix_spawn", "os.exec"),
    *("open", "os.mkdir", "os.remove", "os.rename", "os.listdir"),
    *("os.putenv", "os.unsetenv", "signal.", "shutil.", "tempfile.", "sqlite3.connect"),
)
PACKAGES = ("broker", "pricing", "provider_sdk", "simulations", "web")


class Watch:
    """Notes the deeds of the packages in one folder."""

    def __init__(self, root: Path) -> None:
        self.told: set[str] = set()
        self._root = root
        self._own = tuple(f"{root / name}/" for name in PACKAGES)

    def __call__(self, event: str, details: tuple[Any, ...]) -> None:
        """Be told of an event by the interpreter."""
        if event.startswith(DEEDS):
            line = self._culprit(sys._getframe(1))
            if line is not None:
                self.told.add(f"{line} does {event} {str(details)[:80]} at import")

    def _culprit(self, frame: FrameType | None) -> str | None:
        """Return the line of ours that did it; None when it was the import of something else."""
        while frame is not None:
            name = frame.f_code.co_filename
            if "importlib._bootstrap" in name:
                return None
            if name.startswith(self._own):
                return f"{Path(name).relative_to(self._root)}:{frame.f_lineno}"
            if "site-packages" in name and frame.f_code.co_name == "<module>":
                return None
            frame = frame.f_back
        return None


def main() -> None:
    """Import what the command line names and tell what it did."""
    root = Path(sys.argv[1])
    sys.path.insert(0, str(root))
    watch = Watch(root)
    sys.addaudithook(watch)
    for name in sys.argv[2:]:
        importlib.import_module(name)
    sys.stdout.write("\n".join(sorted(watch.told)))


if __name__ == "__main__":
    main()
