"""`broker up`: a broker on this machine, with embedded servers unless others are given."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from broker.cli.options import DEFAULT_STATE, AllowNetworks, Host, Port, State, Workers, again
from broker.cli.state import StateFolder

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from broker.cli.launch import Launch


def up(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    state: State = DEFAULT_STATE,
    allow_networks: AllowNetworks = "",
    workers: Workers = 1,
) -> None:
    """Start a broker and stay up until Ctrl-C.

    Without DATABASE_URL and VALKEY_URL it starts servers of its own and keeps their data in the
    state folder; with them it uses yours.
    """
    from rich.console import Console

    from broker.cli.launch import Launch

    wanted = Launch(StateFolder(state), host, port, allow_networks, workers)
    asyncio.run(_up(wanted, Console(highlight=False, soft_wrap=True)))


async def _up(wanted: Launch, console: Console) -> None:
    from broker.cli.launch import occupy, open_market, workers

    async with occupy(wanted, console) as up:
        market = await open_market(wanted, up, console)
        for service in workers(wanted.folder, market.env):
            await up.start(service)
        console.print(f"\nThe market is open at [bold]{wanted.url}[/bold]")
        console.print(f"Console (this link works once, for 15 minutes):\n  {market.console_link}")
        console.print("Open an account for a consumer, credit it, and give it a key:")
        console.print(f"  {' && '.join(next_steps(wanted.folder.path))}", markup=False)
        console.print("Ctrl-C stops everything and keeps the data.")
        await up.run()
    console.print("Stopped. The data is kept for the next start.")


def next_steps(state: Path) -> list[str]:
    """Return what to type in the same folder."""
    steps = ("accounts open acme", "accounts topup acme 5", "keys issue acme")
    return [again(state, step) for step in steps]
