"""Sets single values of a scenario by name, as `--set` and `--grid` write them.

    prices.parameters.k_s=30               a path of names
    providers.acme.endpoints.0.capacity=8  into an array by an element's name or its place
    classes.*.value.mean_usd=0.01          or into all of it

and short ways for what is asked most:

    controller=pi                   prices.controller
    controller.k_s=30               prices.parameters.k_s
    controller.gain=2               the speed of whichever controller it is, times 2
    demand.elasticity=2             classes.*.value.elasticity, where values are isoelastic
    demand.value=2                  all values, times 2
    demand.scale=1.5                the rates of all arrivals, times 1.5
    list.scale=1.2                  all list prices, times 1.2, as far as their bands go
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from pricing.choice import CONTROLLERS
from simulations.files.lines import Path
from simulations.files.scalars import Fault, scalar, told

Plain = dict[str, Any]
LIST_SCALE = "list.scale"

_GAINS: Mapping[str, Mapping[str, int]] = {
    "excess": {"k_s": -1},
    "pi": {"kp": 1, "ki_per_s": 1},
    "shadow": {"speed": 1},
    "revenue": {"speed": 1},
}
"""The parameters that make each controller faster, and the power of the gain in each."""
_RATES = ("rate_per_s", "rates_per_s", "speed")


def set_value(plain: Plain, name: str, value: object) -> None:
    """Set a value in a plain scenario, in place. Raises Fault with the path of the name."""
    short = _SHORT.get(name)
    path: Path = tuple(name.split("."))
    if short is not None:
        short(plain, value, path)
        return
    if path[0] in _HEADS:
        raise Fault(path, f"there is no such value to set; there are {', '.join(sorted(_SHORT))}.")
    if path[0] == "controller":
        path = ("prices", "parameters", *path[1:])
    if not all(path):
        raise Fault(path, f"'{name}' is no name of a value.")
    _put(plain, path, value, ())


def parse_value(text: str) -> object:
    """Return what a text stands for: any TOML value, or else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _put(holder: Any, path: Path, value: object, before: Path) -> None:
    name, rest = path[0], path[1:]
    for place in _places(holder, name, before):
        if not rest:
            holder[place] = value
            continue
        if isinstance(holder, dict):
            holder.setdefault(place, {})
        _put(holder[place], rest, value, (*before, place))


def _places(holder: Any, name: str | int, before: Path) -> Iterator[Any]:
    """Where a name leads to in a table or an array."""
    if isinstance(holder, dict):
        yield from list(holder) if name == "*" else (name,)
        return
    if not isinstance(holder, list):
        raise Fault((*before, name), f"{told(holder)} has no parts.")
    names = [each.get("name") if isinstance(each, dict) else None for each in holder]
    if name == "*":
        yield from range(len(holder))
    elif name in names:
        yield names.index(name)
    elif str(name).isdecimal() and int(name) < len(holder):
        yield int(name)
    else:
        there = ", ".join(each for each in names if each) or f"0 to {len(holder) - 1}"
        raise Fault((*before, name), f"there is no '{name}'; there are {there}.")


def _set_controller(plain: Plain, value: object, path: Path) -> None:
    """Choose a controller; numbers that it has too, such as the target, stay as they were set."""
    word = scalar(str, value, path)
    prices = plain.setdefault("prices", {})
    kind: Any = CONTROLLERS.get(word)
    if kind is not None and "parameters" in prices:
        has = {each.name for each in fields(kind)}
        numbers = prices["parameters"]
        prices["parameters"] = {name: numbers[name] for name in numbers if name in has}
    prices["controller"] = word


def _set_gain(plain: Plain, value: object, path: Path) -> None:
    gain = scalar(float, value, path)
    prices = plain.setdefault("prices", {})
    controller = prices.get("controller", "excess")
    if controller == "posted":
        return
    if controller not in _GAINS or not gain > 0.0:
        raise Fault(path, "is a number above zero, for a controller that has a speed.")
    parameters = prices.setdefault("parameters", {})
    kind: Any = CONTROLLERS[controller]
    usual = {each.name: each.default for each in fields(kind)}
    for name, power in _GAINS[controller].items():
        parameters[name] = parameters.get(name, usual[name]) * gain**power


def _set_elasticity(plain: Plain, value: object, path: Path) -> None:
    for place, each in enumerate(plain.get("classes", [])):
        worth = each.setdefault("value", {})
        if worth.get("shape") != "isoelastic":
            raise Fault(
                ("classes", place, "value", "shape"),
                "must be isoelastic, for only such values have one elasticity.",
            )
        worth["elasticity"] = scalar(float, value, path)


def _scale_values(plain: Plain, value: object, path: Path) -> None:
    factor = scalar(float, value, path)
    for each in plain.get("classes", []):
        worth = each.setdefault("value", {})
        worth["mean_usd"] = worth.get("mean_usd", 0.001) * factor


def _scale_rates(plain: Plain, value: object, path: Path) -> None:
    factor = scalar(float, value, path)
    for each in plain.get("classes", []):
        arrivals = each.get("arrivals", {})
        if arrivals.get("kind") == "trace":
            arrivals.setdefault("speed", 1.0)
        for name in _RATES:
            rate = arrivals.get(name)
            if isinstance(rate, list):
                arrivals[name] = [part * factor for part in rate]
            elif rate is not None:
                arrivals[name] = rate * factor


def _scale_lists(plain: Plain, value: object, path: Path) -> None:
    factor = scalar(float, value, path)
    for provider in plain.get("providers", []):
        for endpoint in provider.get("endpoints", []):
            for name, bounds in endpoint.get("band", {}).items():
                floor, listed, ceiling = bounds
                # Six decimals are what rates have.
                scaled = round(min(max(listed * factor, floor), ceiling), 6)
                endpoint["band"][name] = [floor, scaled, ceiling]


_SHORT: Mapping[str, Callable[[Plain, object, Path], None]] = {
    "controller": _set_controller,
    "controller.gain": _set_gain,
    "demand.elasticity": _set_elasticity,
    "demand.value": _scale_values,
    "demand.scale": _scale_rates,
    LIST_SCALE: _scale_lists,
}
_HEADS = {name.partition(".")[0] for name in _SHORT} - {"controller"}
"""What no scenario has by itself: only short names begin so."""
