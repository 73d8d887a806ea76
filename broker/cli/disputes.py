"""`broker disputes`: see what consumers ask back, decide what a provider contests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

import typer

from broker.cli.options import DEFAULT_STATE, State
from broker.cli.state import StateFolder

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from broker.store.money.disputes import Dispute

app = typer.Typer(help="See and decide disputes over calls.", no_args_is_help=True)


@app.command("list")
def list_(
    status: Annotated[
        Literal["open", "contested", "decided", "withdrawn"] | None,
        typer.Option(help="Only those; the contested wait for you."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many at most.")] = 50,
    state: State = DEFAULT_STATE,
) -> None:
    """List the newest disputes."""
    from broker.cli.local import OPERATOR, run_with_engine
    from broker.flows.money.read_recourse import list_disputes
    from broker.store.money.disputes import Status
    from pricing.money import format_usd

    async def work(engine: AsyncEngine) -> list[Dispute]:
        wanted = None if status is None else Status(status)
        return await list_disputes(engine, OPERATOR, status=wanted, before=None, limit=limit)

    found = run_with_engine(StateFolder(state), work)
    if not found:
        typer.echo("There are no disputes." if status is None else f"None is {status}.")
    for each in found:
        # No table: it would cut the ids, which are there to be copied.
        typer.echo(f"{each.id}  {each.status.value}, of call {each.call_id}")
        typer.echo(f"  {each.account} asks for {format_usd(each.asked_nanos)} USD: {each.reason}")
        for part in each.parts:
            words = f": {part.words}" if part.words else ""
            typer.echo(f"  {part.provider}: {part.answer}{words}")
        if each.verdict is not None:
            given = f"{format_usd(each.refunded_nanos)} USD went back"
            typer.echo(f"  {each.verdict.value}, {given}: {each.verdict_words}")


@app.command("decide")
def decide(
    dispute_id: Annotated[UUID, typer.Argument(help="As 'broker disputes list' shows it.")],
    verdict: Annotated[
        Literal["uphold", "reject"],
        typer.Argument(help="For the consumer, who gets money back, or the provider."),
    ],
    reason: Annotated[str, typer.Option(help="Both sides are told.")],
    amount_usd: Annotated[
        str | None, typer.Option(help="In USD; all that is contested if not given.")
    ] = None,
    state: State = DEFAULT_STATE,
) -> None:
    """Decide a contested dispute."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.money.answer_dispute import decide as decide_dispute
    from broker.store.money.disputes import Verdict
    from pricing.money import format_usd, parse_usd_nanos

    async def work(engine: AsyncEngine) -> str:
        amount = None if amount_usd is None else parse_usd_nanos(amount_usd)
        ruling = (Verdict.UPHELD if verdict == "uphold" else Verdict.REJECTED, amount, reason)
        async with engine.begin() as connection:
            done = await decide_dispute(connection, OPERATOR, dispute_id, ruling, now())
        return f"Decided: {format_usd(done.refunded_nanos)} USD in all went back to {done.account}."

    typer.echo(run_with_engine(StateFolder(state), work))
