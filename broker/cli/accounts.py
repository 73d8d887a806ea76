"""`broker accounts`: open and close accounts, top them up, see balances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from broker.cli.options import DEFAULT_STATE, State, again
from broker.cli.state import StateFolder
from broker.cli.tables import print_table

if TYPE_CHECKING:
    from rich.table import Table
    from sqlalchemy.ext.asyncio import AsyncEngine

    from broker.store.access.accounts import Account

app = typer.Typer(help="Open and close accounts, top them up, see balances.", no_args_is_help=True)

_ARTICLES = {"consumer": "a", "provider": "a", "operator": "an"}
Name = Annotated[str, typer.Argument(help="Lower-case letters, digits and single . _ - between.")]


@app.command("open")
def open_(
    name: Name,
    role: Annotated[
        Literal["consumer", "provider", "operator"],
        typer.Option(help="What the account is in the market."),
    ] = "consumer",
    state: State = DEFAULT_STATE,
) -> None:
    """Open an account."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.access.open_account import open_account
    from broker.store.access.accounts import Role

    async def work(engine: AsyncEngine) -> None:
        await open_account(engine, name, Role(role), author=OPERATOR.name, now=now())

    run_with_engine(StateFolder(state), work)
    typer.echo(f"{name} is open as {_ARTICLES[role]} {role}.")
    typer.echo(f"Give it a key: {again(state, f'keys issue {name}')}")


@app.command("topup", context_settings={"ignore_unknown_options": True})
def topup(
    name: Name,
    amount_usd: Annotated[str, typer.Argument(help="In USD, such as 25 or 0.50.")],
    reason: Annotated[str, typer.Option(help="Kept with the transfer.")] = "top-up",
    state: State = DEFAULT_STATE,
) -> None:
    """Credit a consumer's account."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.money.topup import top_up
    from pricing.money import format_usd, parse_signed_usd_nanos

    async def work(engine: AsyncEngine) -> str:
        amount = parse_signed_usd_nanos(amount_usd)
        credited = await top_up(engine, OPERATOR, name, amount, reason, now())
        return format_usd(credited.available_nanos)

    available = run_with_engine(StateFolder(state), work)
    typer.echo(f"{name} has {available} USD available.")


@app.command("adjust", context_settings={"ignore_unknown_options": True})
def adjust_(
    name: Name,
    amount_usd: Annotated[str, typer.Argument(help="In USD; -0.50 takes away.")],
    reason: Annotated[str, typer.Option(help="Kept with the transfer, and told to its owner.")],
    state: State = DEFAULT_STATE,
) -> None:
    """Correct an account's balance, up or down. Nothing that was posted changes."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.money.topup import adjust
    from pricing.money import format_usd, parse_signed_usd_nanos

    async def work(engine: AsyncEngine) -> str:
        amount = parse_signed_usd_nanos(amount_usd)
        corrected = await adjust(engine, OPERATOR, name, amount, reason, now())
        return format_usd(corrected.available_nanos)

    available = run_with_engine(StateFolder(state), work)
    typer.echo(f"{name} has {available} USD available.")


@app.command("close")
def close(
    name: Name,
    reason: Annotated[str, typer.Option(help="Kept in the audit log.")],
    state: State = DEFAULT_STATE,
) -> None:
    """Close an account for good. Its keys open nothing any more, its books stay."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.access.close_account import close_account

    async def work(engine: AsyncEngine) -> None:
        await close_account(engine, OPERATOR, name, reason, now())

    run_with_engine(StateFolder(state), work)
    typer.echo(f"{name} is closed.")


@app.command("list")
def list_(state: State = DEFAULT_STATE) -> None:
    """List all accounts with their balances."""
    from rich.table import Table

    from broker.cli.local import run_with_engine
    from broker.flows.access.open_account import list_accounts

    async def work(engine: AsyncEngine) -> Table:
        times = ("opened (UTC)", "closed (UTC)")
        table = Table("name", "role", "available USD", "held USD", *times, box=None)
        for account in await list_accounts(engine, role=None, after=None, limit=1_000):
            table.add_row(
                account.name,
                account.role.value,
                *await _amounts(engine, account),
                f"{account.created_at:%Y-%m-%d %H:%M}",
                f"{account.closed_at:%Y-%m-%d %H:%M}" if account.closed_at else "",
            )
        return table

    print_table(run_with_engine(StateFolder(state), work))


async def _amounts(engine: AsyncEngine, account: Account) -> tuple[str, str]:
    """Return what is available and what is held; an operator has neither."""
    from broker.flows.access.authenticate import Caller
    from broker.flows.money.statement import balance
    from pricing.money import format_usd

    if account.ledger_account is None:
        return "-", "-"
    owned = await balance(engine, Caller(account.id, account.name, account.role))
    return format_usd(owned.available_nanos), format_usd(owned.held_nanos)
