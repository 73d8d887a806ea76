"""`broker demo`: a broker with real models behind it, a few real requests, and a key to try."""

from __future__ import annotations

import asyncio

from broker.cli.options import DEFAULT_STATE, Environments, Host, Port, State
from broker.cli.state import StateFolder

LOOPBACK = "127.0.0.0/8"


def demo(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    state: State = DEFAULT_STATE,
    environments: Environments = None,
) -> None:
    """Start a broker with demo providers, send it a few requests, and stay up until Ctrl-C.

    The providers are real models on this machine's CPU. Their servers are installed at the first
    start, each into an environment of its own below the state folder.
    """
    from rich.console import Console

    from broker.cli.demo_market import run
    from broker.cli.launch import Launch

    wanted = Launch(StateFolder(state), host, port, allow_networks=LOOPBACK)
    asyncio.run(run(wanted, Console(highlight=False, soft_wrap=True), environments))
