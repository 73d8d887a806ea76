"""The demo's market: a broker, five providers that register as strangers do, and a consumer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.cli.launch import Launch, Market, occupy, open_market, workers
from broker.cli.local import OPERATOR, now
from broker.cli.state import StateFolder
from broker.core.key_terms import KeyTerms
from broker.demo.showcase import show
from broker.demo.start import DemoServer, agent, prepare_servers
from broker.embedded.supervise import Supervisor
from broker.errors import Conflict
from broker.flows.access.authenticate import Caller
from broker.flows.access.issue_key import issue_key
from broker.flows.access.open_account import open_account
from broker.flows.money.statement import balance
from broker.flows.money.topup import top_up
from broker.store.access import accounts as account_store
from broker.store.access.accounts import Role
from broker.store.database import create_engine
from pricing.money import NANOS_PER_USD

CONSUMER = "demo"
BALANCE_NANOS = 5 * NANOS_PER_USD


async def run(wanted: Launch, console: Console, environments: Path | None = None) -> None:
    """Open the market, show it, and stay until Ctrl-C. Raises what `occupy` and its like raise.

    `environments` is where the servers' environments are, if not below the state folder.
    """
    folder = wanted.folder
    async with occupy(wanted, console) as up:
        market, servers = await _open(wanted, up, console, environments)
        key = await _key(market, folder)
        await show(market.running.url, key, console, [each.provider.name for each in servers])
        for service in workers(folder, market.env):
            await up.start(service)
        console.print(f"\nConsole (this link works once, for 15 minutes):\n  {market.console_link}")
        console.print("\nThe market stays open until Ctrl-C.")
        await up.run()
    console.print("Stopped. The data is kept for the next start.")


async def _open(
    wanted: Launch, up: Supervisor, console: Console, environments: Path | None
) -> tuple[Market, list[DemoServer]]:
    """Bring the broker and the providers' servers up side by side."""
    try:
        async with asyncio.TaskGroup() as group:
            opening = group.create_task(open_market(wanted, up, console))
            servers = await prepare_servers(
                wanted.folder.path / "demo", console.print, environments=environments
            )
            names = ", ".join(each.provider.name for each in servers)
            console.print(f"Starting the broker, and the servers of {names} ...")
            for server in servers:
                group.create_task(_enter(server, opening, up, wanted.folder))
    except ExceptionGroup as failures:  # what an "except*" raises would be a group again
        raise failures.exceptions[0] from None
    return opening.result(), servers


async def _enter(
    server: DemoServer, opening: asyncio.Task[Market], up: Supervisor, folder: StateFolder
) -> None:
    """Start a provider's server, then its agent, which registers it as a stranger's would."""
    await up.start(server.service)
    market = await opening
    name = server.provider.name
    key = await _issued(market, folder, name, Role.PROVIDER)
    await up.start(agent(server, folder.path / "demo", market.running.url, key, market.env))


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
