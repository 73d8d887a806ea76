"""The ledger's statements, each a file of plain SQL."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def statement(name: str) -> str:
    """Return the text of `name`.sql."""
    return resources.files(__name__).joinpath(f"{name}.sql").read_text()
