"""Which colour stands for which policy, the same in every plot; the style sheet has the colours."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from simulations.studies.plan import BEST_STATIC

_CLASSES: Mapping[str, str] = MappingProxyType(
    {BEST_STATIC: "p-static", "fluid optimum": "p-bound"}
)


def css_of(policy: str) -> str:
    """The class of a policy's colour."""
    return _CLASSES.get(policy, f"p-{policy}")
