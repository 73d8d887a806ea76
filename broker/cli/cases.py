"""`broker cases`: see where providers' receipts and the books differ, and close what is settled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

import typer

from broker.cli.options import DEFAULT_STATE, State
from broker.cli.state import StateFolder

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from broker.store.receipts.receipt_cases import Case

app = typer.Typer(
    help="See where providers' receipts and the books differ, and close what is settled.",
    no_args_is_help=True,
)


@app.command("list")
def list_(
    status: Annotated[Literal["open", "closed", "all"], typer.Option(help="Which.")] = "open",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many at most.")] = 50,
    state: State = DEFAULT_STATE,
) -> None:
    """List cases, newest first."""
    from broker.cli.local import OPERATOR, run_with_engine
    from broker.core.money.receipts import MEANINGS
    from broker.flows.receipts.close_case import read_cases
    from broker.store.receipts.receipt_cases import Wanted

    async def work(engine: AsyncEngine) -> list[Case]:
        is_open = None if status == "all" else status == "open"
        return await read_cases(engine, OPERATOR, Wanted(None, is_open, limit=limit))

    found = run_with_engine(StateFolder(state), work)
    if not found:
        typer.echo("There are no cases." if status == "all" else f"There are no {status} cases.")
    for each in found:
        # No table: it would cut the ids, which are there to be copied.
        typer.echo(f"{each.id}  {each.deployment}  call {each.call_id}, attempt {each.attempt}")
        more = f" {each.further} more of this kind were found." if each.further else ""
        typer.echo(f"  {MEANINGS[each.kind]} {_told(each)}{more}")
        if each.closed_by is not None:
            typer.echo(f"  closed by {each.closed_by}: {each.close_reason}")


@app.command("close")
def close(
    case_id: Annotated[UUID, typer.Argument(help="As 'broker cases list' shows it.")],
    reason: Annotated[str, typer.Option(help="Why; the provider sees it.")],
    state: State = DEFAULT_STATE,
) -> None:
    """Close a case. It moves no money: that is for refunds and adjustments."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.receipts.close_case import close_case

    async def work(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            await close_case(connection, OPERATOR, case_id, reason, now())

    run_with_engine(StateFolder(state), work)
    typer.echo(f"{case_id} is closed.")


def _told(case: Case) -> str:
    return "; ".join(f"{name} {value}" for name, value in sorted(case.detail.items()))
