"""Says in plain words what is wrong with a provider's file or a script, and what would be right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, get_args

import msgspec

from provider_sdk.deployment import Deployment
from provider_sdk.protocol import CallBand, EndpointOffer, TokenBand

_PLACE: Final = re.compile(r" - at (`key` in )?`\$\.")
_DECIMAL: Final = 'a decimal in quotes, such as "0.10"'
_OF_TWO_BANDS: Final = (
    "prices are by tokens (floor_in, ...) or by the call (floor_call, ...), not both"
)
_ELSEWHERE: Final = "does not belong here"
_KNOWN: Final = (Deployment, EndpointOffer, TokenBand, CallBand)


def spoken(message: str, kinds: Sequence[type[msgspec.Struct]] = _KNOWN) -> str:
    """Return what msgspec says of a file of these kinds, "... - at `$.a[0].b`", field first."""
    parts = _PLACE.split(message, maxsplit=1)
    text, place = parts[0], parts[-1].removesuffix("`") if len(parts) > 1 else ""
    named = re.fullmatch(r"Object (missing required|contains unknown) field `(.+)`", text)
    if named is None:
        return f"field `{place}`: {_mended(place, text, kinds)}" if place else text
    field = f"{place}.{named[2]}".removeprefix(".")
    if named[1] == "missing required":
        return f"field `{field}`: missing"
    names = [field.name for kind in kinds for field in msgspec.structs.fields(kind)]
    if named[2] in names:
        return f"field `{field}`: {_OF_TWO_BANDS if place.endswith('.price') else _ELSEWHERE}"
    near = difflib.get_close_matches(named[2], names, 1)
    return f"field `{field}`: there is no such field" + (f"; `{near[0]}`?" if near else "")


def _mended(place: str, text: str, kinds: Sequence[type[msgspec.Struct]]) -> str:
    """Return a complaint about a value, with what may stand there where that can be told."""
    name = re.sub(r"\[[^]]*\]$", "", place).rpartition(".")[2]
    if text.startswith("Invalid enum value"):
        choices = ", ".join(_choices(name, kinds))
        return f"{text.removeprefix('Invalid enum value ')} is none of {choices}"
    if ".price." in f"{place}." and "`str`" in text:
        return f"expected {_DECIMAL} ({text})"
    if "matching regex" in text and name == "name":
        return "expected lower-case letters and digits, with single . _ - between"
    return text


def _choices(name: str, kinds: Sequence[type[msgspec.Struct]]) -> list[str]:
    """Return what may stand in a field of words."""
    types = (
        each.type for kind in kinds for each in msgspec.structs.fields(kind) if each.name == name
    )
    return [word for each in types for word in _words(each)]


def _words(kind: Any) -> Iterator[str]:
    for each in get_args(kind):
        if isinstance(each, str):
            yield each
        else:
            yield from _words(each)
