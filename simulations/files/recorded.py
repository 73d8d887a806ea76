"""Puts recorded demand in the place of the names of its files, so that no run needs a file.

    arrivals = { kind = "trace", file = "azure_conv.csv", part_s = [0.0, 1800.0] }
    arrivals = { kind = "steps", file = "pool_rates.csv", pool = "language/m-small" }

Names are relative to the scenario's own file, or else to where the command runs. Who sends a
scenario over the API can name none but those that come with the project.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from broker.errors import BrokerError
from simulations.files.lines import Path as Place
from simulations.files.overrides import Plain
from simulations.files.scalars import Fault, known, scalar
from simulations.traffic.traces import Part, read_calls, read_rates

FILE, PART, POOL = "file", "part_s", "pool"
SETTINGS = tuple(f".arrivals.{each}" for each in (FILE, PART, POOL))
"""Settings that end so change what is read."""
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "trace": ("speed",),
    "steps": ("cv",),
}
"""What arrivals of each kind may have beside a file."""


def read_in(plain: Plain, folder: Path | None) -> Plain:
    """Return the scenario with all its files read; the given one stays as it is. Raises Fault."""
    classes = plain.get("classes")
    if not isinstance(classes, list):
        return plain
    read = []
    for place, each in enumerate(classes):
        arrivals = each.get("arrivals") if isinstance(each, dict) else None
        if isinstance(arrivals, dict) and FILE in arrivals:
            path: Place = ("classes", place, "arrivals")
            read.append(each | {"arrivals": _recorded(arrivals, folder, path)})
        else:
            read.append(each)
    return plain | {"classes": read}


def _recorded(arrivals: dict[str, Any], folder: Path | None, path: Place) -> dict[str, Any]:
    kind = str(arrivals.get("kind"))
    if kind not in _FIELDS:
        raise Fault((*path, "kind"), f"must be one of {', '.join(_FIELDS)}, to have a file.")
    # What was read before gives way to what is to be read now.
    stale = {"arrival_s", "tokens_in", "tokens_out", "from_s", "rates_per_s"}
    rest = {name: value for name, value in arrivals.items() if name not in stale}
    known(rest, ("kind", FILE, PART, POOL, *_FIELDS[kind]), path)
    kept = {name: rest[name] for name in ("kind", *_FIELDS[kind]) if name in rest}
    file = _found(scalar(str, rest[FILE], (*path, FILE)), folder, (*path, FILE))
    part = _part(rest.get(PART), (*path, PART))
    pool = scalar(str, rest.get(POOL, ""), (*path, POOL))
    try:
        if kind == "trace":
            calls = read_calls(file, part)
            lengths = {"tokens_in": list(calls.tokens_in), "tokens_out": list(calls.tokens_out)}
            return kept | {"arrival_s": list(calls.arrival_s)} | lengths
        rates = read_rates(file, pool, part)
    except (BrokerError, OSError) as error:
        raise Fault((*path, FILE), f"cannot be read: {error}") from None
    told = {"from_s": list(rates.from_s), "rates_per_s": list(rates.rates_per_s), "cv": rates.cv}
    return told | kept


def _found(name: str, folder: Path | None, path: Place) -> Path:
    own = Path(str(files("simulations"))) / "scenarios"
    if folder is None:
        # Whoever is not at this machine has no business with its files.
        if Path(name).name != name or not (own / name).is_file():
            raise Fault(path, "can only be a file that comes with the project.")
        return own / name
    for each in (folder / name, Path(name)):
        if each.is_file():
            return each
    raise Fault(path, f"there is no file '{name}', neither in {folder} nor here.")


def _part(told: object, path: Place) -> Part:
    if told is None:
        return 0.0, math.inf
    if not isinstance(told, list) or len(told) != 2:
        raise Fault(path, "must be an array of two moments, from and to, in seconds.")
    begin, end = (scalar(float, each, (*path, place)) for place, each in enumerate(told))
    if not 0.0 <= begin < end:
        raise Fault(path, "must be 0 <= from < to.")
    return begin, end


def properties() -> Mapping[str, Mapping[str, Any]]:
    """What the schema says of the fields beside those of the classes, by kind."""
    seconds = {"type": "number", "minimum": 0}
    file = {
        FILE: {"type": "string", "description": "A recorded trace to read instead."},
        PART: {
            "type": "array",
            "items": seconds,
            "minItems": 2,
            "maxItems": 2,
            "description": "From which second of the file on until when.",
        },
    }
    pool = {POOL: {"type": "string", "description": "Whose rates, where a file has several."}}
    return {"Trace": file, "Steps": file | pool}
