"""`broker keys`: issue, list and revoke keys."""

from __future__ import annotations

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
    state: State = DEFAULT_STATE,
) -> None:
    """Make a key and print it; it is shown this once."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.issue_key import issue_key
    from broker.store.keys import KeyTerms

    async def work(engine: AsyncEngine) -> str:
        terms = KeyTerms(label=label, calls_max=calls_max)
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
        table = Table("id", "label", "made", "revoked", box=None)
        for key in await list_keys(engine, OPERATOR, name):
            revoked = f"{key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else ""
            table.add_row(key.id, key.terms.label, f"{key.created_at:%Y-%m-%d %H:%M}", revoked)
        return table

    Console().print(run_with_engine(StateFolder(state), work))


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
