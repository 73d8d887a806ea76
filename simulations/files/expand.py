"""Writes out what files say in short: several providers who are alike.

`copies = 3` in a provider named `acme` stands for acme-1, acme-2 and acme-3.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulations.files.lines import Path
from simulations.files.overrides import Plain
from simulations.files.scalars import Fault, scalar, table

COPIES = "copies"
COPIES_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Expanded:
    """The plain scenario in full; `providers` is by place the place in the file."""

    plain: Plain
    providers: tuple[int, ...]

    def written(self, path: Path) -> Path:
        """Return the path in the file of a path in the full form."""
        if len(path) > 1 and path[0] == "providers" and isinstance(path[1], int):
            return (path[0], self.providers[path[1]], *path[2:])
        return path


def expand(plain: Plain) -> Expanded:
    """Return the full form; the given one stays as it is. Raises Fault, as the file has it."""
    given = plain.get("providers")
    if not isinstance(given, list):
        return Expanded(plain, ())
    providers, origins = [], []
    for place, each in enumerate(given):
        path: Path = ("providers", place)
        rest = dict(table(each, path))
        copies = scalar(int, rest.pop(COPIES, 1), (*path, COPIES))
        if not 1 <= copies <= COPIES_MAX:
            raise Fault((*path, COPIES), f"must be from 1 to {COPIES_MAX}.")
        for number in range(1, copies + 1):
            name = rest.get("name")
            named = rest | {"name": f"{name}-{number}"} if copies > 1 and name else rest
            providers.append(named)
            origins.append(place)
    return Expanded(plain | {"providers": providers}, tuple(origins))
