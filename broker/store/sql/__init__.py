"""The ledger's statements, each a file of plain SQL."""

from __future__ import annotations

from functools import cache
from importlib import resources

_MARKS = {"-- budgets {": True, "-- } else {": False, "-- }": None}


@cache
def statement(name: str, *, budgets: bool = True) -> str:
    """Return the text of `name`.sql, with or without what it does for keys that have budgets.

    What stands between the lines `-- budgets {`, `-- } else {` and `-- }` is for one of the two:
    each step of a statement costs the server time, also where it finds nothing to do.
    """
    kept, of = [], None
    for line in resources.files(__name__).joinpath(f"{name}.sql").read_text().splitlines():
        if line in _MARKS:
            of = _MARKS[line]
        elif of is None or of is budgets:
            kept.append(line)
    return "\n".join(kept)
