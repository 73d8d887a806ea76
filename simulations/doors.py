"""Opens what a broker lends to other rooms, which may not import it: its entry points."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any


def open_door(name: str) -> Any:
    """Return what a broker lends by this name: `celery`, `market` or `orders`."""
    (door,) = entry_points(group="broker.doors", name=name)
    return door.load()
