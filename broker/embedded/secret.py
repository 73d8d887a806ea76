"""Makes a random word once and remembers it in a file that only its owner can read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def remembered_secret(path: Path) -> str:
    """Return the secret in `path`, made and written on the first call."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    word = secrets.token_urlsafe(24)
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(word + "\n")
    fresh.rename(path)
    return word
