"""`broker demo`: a broker with real models behind it, a few real requests, and a key to try."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from rich.console import Console
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.cli.launch import Launch, Market, launch
from broker.cli.local import OPERATOR, now
from broker.cli.options import DEFAULT_STATE, Host, Port, State
from broker.cli.state import StateFolder
from broker.demo.showcase import show
from broker.demo.start import DemoServer, agent, prepare_servers
from broker.errors import Conflict
from broker.flows.authenticate import Caller
from broker.flows.issue_key import issue_key
from broker.flows.open_account import open_account
from broker.flows.statement import balance
from broker.flows.topup import top_up
from broker.store import accounts as account_store
from broker.store.accounts import Role
from broker.store.database import create_engine
from broker.store.keys import KeyTerms
from pricing.money import NANOS_PER_USD

CONSUMER = "demo"
BALANCE_NANOS = 5 * NANOS_PER_USD
LOOPBACK = "127.0.0.0/8"


def demo(host: Host = "127.0.0.1", port: Port = 8000, state: State = DEFAULT_STATE) -> None:
    """Start a broker with demo providers, send it a few requests, and stay up until Ctrl-C.

    The providers are real models on this machine's CPU. Their servers are installed at the first
    start, each into an environment of its own below the state folder.
    """
    wanted = Launch(StateFolder(state), host, port, allow_networks=LOOPBACK)
    asyncio.run(_demo(wanted, Console(highlight=False, soft_wrap=True)))


async def _demo(wanted: Launch, console: Console) -> None:
    folder = wanted.folder
    async with launch(wanted, console) as market:
        servers = await prepare_servers(folder.path / "demo", console.print)
        await asyncio.gather(*(_open(server, market, folder) for server in servers))
        key = await _key(market, folder)
        await show(market.running.url, key, console, [each.provider.name for each in servers])
        console.print(f"\nConsole (this link works once):\n  {market.console_link}")
        console.print("\nThe market stays open until Ctrl-C.")
        await market.up.run()
    console.print("\nStopped. The data is kept for the next start.")


async def _open(server: DemoServer, market: Market, folder: StateFolder) -> None:
    """Start a provider's server, then its agent, which registers it as a stranger's would."""
    await market.up.start(server.service)
    name = server.provider.name
    key = await _issued(market, folder, name, Role.PROVIDER)
    await market.up.start(agent(server, folder.path / "demo", market.running.url, key, market.env))


async def _key(market: Market, folder: StateFolder) -> str:
    """Return the key of the demo's consumer, whose balance is filled up."""
    key = await _issued(market, folder, CONSUMER, Role.CONSUMER)

    async def fill(engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            account = await account_store.by_name(connection, CONSUMER)
        owned = await balance(engine, Caller(account.id, CONSUMER, Role.CONSUMER))
        missing = BALANCE_NANOS - owned.available_nanos
        if missing > 0:
            await top_up(engine, OPERATOR, CONSUMER, missing, "demo", now())

    await _on_database(market, fill)
    return key


async def _issued(market: Market, folder: StateFolder, name: str, role: Role) -> str:
    """Return the key of an account, both made at the first start and remembered."""
    kept = folder.recall(f"demo/{name}.broker-key")
    if kept is not None:
        return kept
    issued: list[str] = []

    async def issue(engine: AsyncEngine) -> None:
        # It may have been opened at an earlier start that ended before the key was written down.
        with contextlib.suppress(Conflict):
            await open_account(engine, name, role, author=OPERATOR.name, now=now())
        key = await issue_key(engine, OPERATOR, name, KeyTerms(label="demo"), now())
        issued.append(key.text)

    await _on_database(market, issue)
    return folder.remember(f"demo/{name}.broker-key", issued.pop)


async def _on_database(market: Market, work: Callable[[AsyncEngine], Awaitable[None]]) -> None:
    engine = create_engine(market.running.database_url, connections_max=1)
    try:
        await work(engine)
    finally:
        await engine.dispose()
