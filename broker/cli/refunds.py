"""`broker refunds`: give money back for a call, see what went back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from broker.cli.options import DEFAULT_STATE, State
from broker.cli.state import StateFolder

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from broker.store.books.credit_notes import CreditNote

app = typer.Typer(help="Refund calls, see what went back.", no_args_is_help=True)

CallId = Annotated[UUID, typer.Argument(help="As the answer's x-broker-call-id says.")]
Reason = Annotated[str, typer.Option(help="Kept with the credit note; both sides are told.")]


@app.command("give")
def give(
    call_id: CallId,
    reason: Reason,
    amount_usd: Annotated[
        str | None, typer.Option(help="In USD; all that is left of the charge if not given.")
    ] = None,
    state: State = DEFAULT_STATE,
) -> None:
    """Refund a call, whole or in part."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.money.refund import refund
    from pricing.money import format_usd, parse_usd_nanos

    async def work(engine: AsyncEngine) -> str:
        amount = None if amount_usd is None else parse_usd_nanos(amount_usd)
        async with engine.begin() as connection:
            note = await refund(connection, OPERATOR, call_id, amount, reason, now())
        return (
            f"{format_usd(note.amount_nanos)} USD went back to {note.account}, under {note.title}."
        )

    typer.echo(run_with_engine(StateFolder(state), work))


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many at most.")] = 50,
    state: State = DEFAULT_STATE,
) -> None:
    """List the newest credit notes."""
    from broker.cli.local import OPERATOR, run_with_engine
    from broker.flows.money.read_recourse import list_credit_notes
    from pricing.money import format_usd

    async def work(engine: AsyncEngine) -> list[CreditNote]:
        return await list_credit_notes(engine, OPERATOR, call_id=None, before=None, limit=limit)

    found = run_with_engine(StateFolder(state), work)
    if not found:
        typer.echo("Nothing went back yet.")
    for note in found:
        # No table: it would cut the ids, which are there to be copied.
        amount = f"{format_usd(note.amount_nanos)} USD to {note.account}"
        typer.echo(f"{note.created_at:%Y-%m-%d %H:%M} UTC  {amount}, for call {note.call_id}")
        typer.echo(f"  {note.kind}, {note.title}: {note.reason}")
