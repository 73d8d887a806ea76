"""`broker keys`: issue, list and revoke keys."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import DEFAULT_STATE, State
from broker.cli.state import StateFolder

if TYPE_CHECKING:
    from rich.table import Table
    from sqlalchemy.ext.asyncio import AsyncEngine

app = typer.Typer(help="Issue, list and revoke keys.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The account's name.")]


@app.command("issue")
def issue(
    name: Name,
    label: Annotated[str, typer.Option(help="To tell keys apart.")] = "",
    calls_max: Annotated[
        int | None, typer.Option(min=1, help="Most calls under way at once.")
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Expires after so many; else never.")
    ] = None,
    state: State = DEFAULT_STATE,
) -> None:
    """Make a key and print it; it is shown this once."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.issue_key import issue_key
    from broker.store.keys import KeyTerms

    async def work(engine: AsyncEngine) -> str:
        expires_at = None if days is None else now() + timedelta(days=days)
        terms = KeyTerms(label=label, calls_max=calls_max, expires_at=expires_at)
        return (await issue_key(engine, OPERATOR, name, terms, now())).text

    typer.echo(run_with_engine(StateFolder(state), work))


@app.command("list")
def list_(name: Name, state: State = DEFAULT_STATE) -> None:
    """List an account's keys."""
    from rich.console import Console
    from rich.table import Table

    from broker.cli.local import OPERATOR, run_with_engine
    from broker.flows.issue_key import list_keys

    async def work(engine: AsyncEngine) -> Table:
        table = Table("id", "label", "made", "expires", "revoked", box=None)
        for key in await list_keys(engine, OPERATOR, name):
            times = (key.created_at, key.terms.expires_at, key.revoked_at)
            table.add_row(key.id, key.terms.label, *map(_told, times))
        return table

    Console().print(run_with_engine(StateFolder(state), work))


def _told(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M}" if time else ""


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="The part of the key between the underscores.")],
    state: State = DEFAULT_STATE,
) -> None:
    """Revoke a key; it opens nothing from then on."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.issue_key import revoke_key

    async def work(engine: AsyncEngine) -> None:
        await revoke_key(engine, OPERATOR, key_id, now())

    run_with_engine(StateFolder(state), work)
    typer.echo(f"{key_id} is revoked.")
