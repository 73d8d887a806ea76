"""The JSON Schema of scenario files, made of the dataclasses, so that editors complete and explain.

What stands in the docstring of a class and in the texts below its fields becomes the descriptions.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import math
import textwrap
import types
import typing
from collections.abc import Mapping
from typing import Any

import msgspec

from broker.core.catalog import Band
from broker.core.requirements import PRESETS, Weights
from pricing.book import Rate
from pricing.schedule import Schedule
from simulations.files.expand import COPIES, COPIES_MAX
from simulations.files.plain import KIND, fields_of, is_needed, snake
from simulations.files.recorded import properties
from simulations.files.special import BOUNDS, MONEY, SCHEDULE
from simulations.scenario import Scenario
from simulations.supply import ProviderSpec

Schema = dict[str, Any]

_SCALARS: Mapping[Any, str] = {float: "number", int: "integer", str: "string", bool: "boolean"}
_MONEY_WORDS = {
    "in_usd": "USD per million tokens in",
    "out_usd": "USD per million tokens out",
    "call_usd": "USD per call",
}


def schema() -> Schema:
    """Return the schema of a whole file."""
    definitions: dict[str, Schema] = {}
    top = _schema_of(Scenario, definitions)
    whole = definitions.pop(top["$ref"].rsplit("/", 1)[1])
    provider = definitions[ProviderSpec.__name__]
    provider["properties"][COPIES] = {
        "type": "integer",
        "minimum": 1,
        "maximum": COPIES_MAX,
        "description": "So many providers who are alike, named with numbers behind.",
    }
    for name, more in properties().items():
        # What a file tells need not stand there.
        definitions[name]["properties"] |= more
        definitions[name]["required"] = [KIND]
    whole["required"].remove("name")  # the file's own name stands in
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A scenario of broker simulate",
        **whole,
        "$defs": dict(sorted(definitions.items())),
    }


def schema_text() -> str:
    """Return the schema as the file that lies beside the scenarios."""
    return msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode() + "\n"


def _schema_of(kind: Any, known: dict[str, Schema]) -> Schema:
    if kind in _SPECIAL:
        return _SPECIAL[kind]()
    if kind in _SCALARS:
        return {"type": _SCALARS[kind]}
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        rest = [each for each in inner if each is not type(None)]
        if len(rest) < len(inner):
            return _schema_of(rest[0], known)
        return {"oneOf": [_tagged(each, known) for each in rest]}
    if origin is not None and issubclass(origin, Mapping):
        return _table(inner, known)
    if origin is not None:
        return {"type": "array", "items": _schema_of(inner[0], known)}
    if issubclass(kind, enum.Enum):
        return {"enum": [each.value for each in kind], "description": _sentence(kind)}
    return _defined(kind, kind.__name__, known)


def _table(inner: tuple[Any, ...], known: dict[str, Schema]) -> Schema:
    key, value = inner
    rest: Schema = {"type": "object", "additionalProperties": _schema_of(value, known)}
    if inspect.isclass(key) and issubclass(key, enum.Enum):
        rest["propertyNames"] = {"enum": [each.value for each in key]}
    return rest


def _tagged(kind: type, known: dict[str, Schema]) -> Schema:
    reference = _defined(kind, kind.__name__, known)
    body = known[kind.__name__]
    body["properties"] = {KIND: {"const": snake(kind)}} | body["properties"]
    body["required"] = [KIND, *(each for each in body["required"] if each != KIND)]
    return reference


def _defined(kind: Any, name: str, known: dict[str, Schema]) -> Schema:
    if name not in known:
        known[name] = body = {
            "type": "object",
            "description": _sentence(kind),
            "additionalProperties": False,
            "required": [each.name for each in dataclasses.fields(kind) if is_needed(each)],
        }
        properties: Schema = {}
        words, types_of = _words(kind), fields_of(kind)
        for each in dataclasses.fields(kind):
            if each.name in types_of:
                told = _schema_of(types_of[each.name], known) | _default(each)
                if each.name in words:
                    told["description"] = words[each.name]
                properties[each.name] = told
        body["properties"] = properties
    return {"$ref": f"#/$defs/{name}"}


def _default(field: dataclasses.Field[Any]) -> Schema:
    value = field.default
    plain = isinstance(value, str | int | float | bool)
    if not plain or (isinstance(value, float) and not math.isfinite(value)):
        return {}
    return {"default": value.value if isinstance(value, enum.Enum) else value}


def _sentence(kind: type) -> str:
    return " ".join((kind.__doc__ or "").split())


def _words(kind: type) -> dict[str, str]:
    """The text below each field in the source of its class."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(tree, ast.ClassDef)
    words: dict[str, str] = {}
    for before, here in zip(tree.body, tree.body[1:], strict=False):
        is_text = isinstance(here, ast.Expr) and isinstance(here.value, ast.Constant)
        if is_text and isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name):
            text = typing.cast(ast.Constant, typing.cast(ast.Expr, here).value).value
            words[before.target.id] = " ".join(str(text).split())
    return words


def _band() -> Schema:
    bounds = {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3}
    return _money(lambda words: bounds | {"description": f"{', '.join(BOUNDS)}: {words}"})


def _rate() -> Schema:
    return _money(lambda words: {"type": "number", "minimum": 0, "description": words})


def _money(make: typing.Callable[[str], Schema]) -> Schema:
    properties = {name: make(_MONEY_WORDS[name]) for name in MONEY}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _weights() -> Schema:
    part = {"type": "number", "minimum": 0}
    names = Weights.__struct_fields__
    table = {
        "type": "object",
        "additionalProperties": False,
        "properties": dict.fromkeys(names, part),
    }
    return {"oneOf": [{"enum": list(PRESETS)}, table]}


def _schedule() -> Schema:
    steps = {"type": "array", "items": {"type": "object"}, "minItems": 1}
    offset = {"type": "integer"}
    properties = dict(zip(SCHEDULE, (steps, offset), strict=True))
    return {"type": "object", "additionalProperties": False, "properties": properties}


_SPECIAL: Mapping[Any, typing.Callable[[], Schema]] = {
    Band: _band,
    Rate: _rate,
    Weights: _weights,
    Schedule: _schedule,
}
