"""Writes the `provider.toml` with which a demo provider registers, as a stranger would."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from provider_sdk.protocol import DeploymentOffer


def write_provider_file(
    path: Path, broker_url: str, offer: DeploymentOffer, local: Mapping[str, str]
) -> None:
    """Write the file for its owner's eyes only; `local` is what stays on the provider's side.

    The broker's key is not in it: the agent takes it from its environment.
    """
    content: dict[str, Any] = msgspec.to_builtins(offer)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = to_toml({"broker": broker_url, "deployments": [content | dict(local)]})
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)


def to_toml(table: Mapping[str, Any]) -> str:
    """Render a mapping of strings, numbers, booleans, lists and mappings; None is left out."""
    return "\n".join(_lines(table, "")) + "\n"


def _lines(table: Mapping[str, Any], path: str) -> list[str]:
    """Plain values first, for in TOML all that follows a table's head belongs to the table."""
    plain = {name: value for name, value in table.items() if not _holds_tables(value)}
    lines = [f"{name} = {_value(value)}" for name, value in plain.items() if value is not None]
    for name, value in table.items():
        if name in plain:
            continue
        inner = f"{path}{name}"
        if isinstance(value, Mapping):
            lines += ["", f"[{inner}]", *_lines(value, f"{inner}.")]
            continue
        for each in value:
            lines += ["", f"[[{inner}]]", *_lines(each, f"{inner}.")]
    return lines


def _holds_tables(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], Mapping)
    return isinstance(value, Mapping)


def _value(value: object) -> str:
    # JSON writes these as TOML does; the control character DEL alone it would leave bare.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
