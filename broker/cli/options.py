"""Options that several commands share, and what is to be typed for the same broker again."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

State = Annotated[
    Path,
    typer.Option(
        "--state", envvar="BROKER_STATE", help="Folder that holds everything the broker keeps."
    ),
]
Host = Annotated[str, typer.Option("--host", help="Address to listen on.")]
Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")]
Workers = Annotated[
    int,
    typer.Option("--workers", min=1, max=256, help="Broker processes on the one port, one a core."),
]
AllowNetworks = Annotated[
    str,
    typer.Option(
        "--allow-networks",
        envvar="BROKER_ALLOW_NETWORKS",
        help="Private networks that providers may be in, such as 10.0.0.0/8,192.168.0.0/16.",
    ),
]
OtherNetworks = Annotated[
    str | None,
    typer.Option(
        "--allow-networks",
        envvar="BROKER_ALLOW_NETWORKS",
        help="Private networks that providers may be in; if not told, those of the broker here.",
    ),
]
Environments = Annotated[
    Path | None,
    typer.Option(
        "--environments",
        envvar="BROKER_DEMO_ENVS",
        help="Folder of the servers' environments, where several demos are to share them.",
    ),
]
DEFAULT_STATE = Path(".broker")


def in_utc(moment: datetime | None) -> datetime | None:
    """Return a time of an option; one without a time zone is in UTC."""
    return moment.replace(tzinfo=UTC) if moment and moment.tzinfo is None else moment


def again(state: Path, words: str) -> str:
    """Return what to type in the same folder for another command to the broker of `state`."""
    elsewhere = state.resolve() != DEFAULT_STATE.resolve()
    told = f" --state {shlex.quote(str(state.resolve()))}" if elsewhere else ""
    return f"{_own_name()} {words}{told}"


def _own_name() -> str:
    """Return how to call this command again from here: make does not put it on the path."""
    return "broker" if shutil.which("broker") else shlex.quote(os.path.relpath(sys.argv[0]))
