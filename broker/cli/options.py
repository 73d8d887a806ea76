"""Options that several commands share."""

from __future__ import annotations

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
