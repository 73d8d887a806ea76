"""`broker payouts`: see payouts, make them, write them for the bank, say what became of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

import typer

from broker.cli.options import DEFAULT_STATE, State, again
from broker.cli.state import StateFolder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from broker.flows.money.payout_events import Word
    from broker.store.money.payouts import Payout

    Record = Callable[[AsyncConnection, UUID, Word, datetime], Awaitable[Payout]]

app = typer.Typer(
    help="See payouts, make them, write them for the bank, say what became of them.",
    no_args_is_help=True,
)

_AUTHOR = "command-line"
Ids = Annotated[
    list[UUID], typer.Argument(help="One or more, as 'broker payouts list' shows them.")
]
Reason = Annotated[str, typer.Option(help="Why; kept with the transfer.")]
Reference = Annotated[str, typer.Option(help="The bank's or the service's own.")]


@app.command("list")
def list_(
    provider: Annotated[str | None, typer.Option(help="Only this provider's.")] = None,
    status: Annotated[
        Literal["open", "sent", "failed", "returned"] | None, typer.Option(help="Only those.")
    ] = None,
    state: State = DEFAULT_STATE,
) -> None:
    """List payouts, newest first."""
    from broker.cli.local import OPERATOR, run_with_engine
    from broker.flows.money import read_payouts
    from broker.store.money.payouts import PayoutStatus, Wanted
    from pricing.money import format_usd

    async def work(engine: AsyncEngine) -> list[Payout]:
        whose = await read_payouts.concerned(engine, OPERATOR, provider) if provider else None
        wanted = Wanted(whose, PayoutStatus(status) if status else None, limit=1_000)
        return await read_payouts.list_payouts(engine, OPERATOR, wanted)

    found = run_with_engine(StateFolder(state), work)
    if not found:
        typer.echo("There are no payouts." if provider is status is None else "There are none.")
    for each in found:
        amount = f"{format_usd(each.amount_nanos)} USD"
        what = f"{each.status.value:<8}  {amount:>16}  {each.provider} to {each.place.hint}"
        # No table: it would cut the ids, which are there to be copied.
        typer.echo(f"{each.id}  {what}  (batch {each.batch_id})")


@app.command("run")
def run(
    provider: Annotated[
        str | None, typer.Argument(help="Pay this one now; without it, all who are due.")
    ] = None,
    state: State = DEFAULT_STATE,
) -> None:
    """Make payouts."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.money.pay_out import ask
    from broker.flows.money.pay_out_due import pay_out_due
    from pricing.money import format_usd

    async def work(engine: AsyncEngine) -> list[Payout]:
        if provider is None:
            return await pay_out_due(engine, OPERATOR.name, now())
        async with engine.begin() as connection:
            return [await ask(connection, OPERATOR, provider, now())]

    made = run_with_engine(StateFolder(state), work)
    for each in made:
        typer.echo(f"{each.id}  {each.provider}  {format_usd(each.amount_nanos)} USD")
    for batch in sorted({str(each.batch_id) for each in made}):
        typer.echo(f"Write a batch for the bank: {again(state, f'payouts export {batch}')}")
    if not made:
        typer.echo("Nothing is due.")


@app.command("export")
def export(
    batch: Annotated[UUID, typer.Argument(help="As 'broker payouts list' shows it.")],
    format_: Annotated[
        Literal["pain001", "csv"], typer.Option("--format", help="What to write.")
    ] = "pain001",
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write it; if not told, here, by a name of its own."),
    ] = None,
    name: Annotated[
        str, typer.Option(envvar="BROKER_PAYOUT_NAME", help="The holder of the account that pays.")
    ] = "",
    iban: Annotated[
        str, typer.Option(envvar="BROKER_PAYOUT_IBAN", help="The account that pays.")
    ] = "",
    bic: Annotated[
        str, typer.Option(envvar="BROKER_PAYOUT_BIC", help="The bank of that account.")
    ] = "",
    old_keys: Annotated[str, typer.Option(envvar="BROKER_SECRET_KEYS_OLD", hidden=True)] = "",
    state: State = DEFAULT_STATE,
) -> None:
    """Write a batch's open payouts as a file: ISO 20022 pain.001, or CSV."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.money.export_payouts import Export, File, Format
    from broker.flows.money.export_payouts import export as export_batch
    from broker.settings import Payouts
    from broker.store.sealing import Sealer

    folder = StateFolder(state)
    wanted = Export(batch, Format(format_), OPERATOR.name)
    former = tuple(word.strip() for word in old_keys.split(",") if word.strip())
    desk = (Sealer(folder.secret_key(), former), Payouts(name, iban, bic))

    async def work(engine: AsyncEngine) -> File:
        async with engine.begin() as connection:
            return await export_batch(connection, wanted, desk, now())

    file = run_with_engine(folder, work)
    path = out or Path(file.name)
    path.write_bytes(file.content)
    say = again(state, "payouts confirm|fail|return")
    typer.echo(f"{path} is written. Say what becomes of it: {say}")


@app.command("confirm")
def confirm(ids: Ids, reference: Reference = "", state: State = DEFAULT_STATE) -> None:
    """Say that the money has gone out."""
    from broker.flows.money import payout_events
    from broker.flows.money.payout_events import Word

    _record(payout_events.confirm, ids, Word(_AUTHOR, reference=reference), state)


@app.command("fail")
def fail(
    ids: Ids,
    reason: Reason,
    reference: Reference = "",
    checked: Annotated[
        bool,
        typer.Option("--checked", help="Stripe was asked, and has been seen not to have paid."),
    ] = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Say that the money will not go out: it is available again."""
    from broker.flows.money import payout_events
    from broker.flows.money.payout_events import Word

    _record(payout_events.fail, ids, Word(_AUTHOR, reason, reference, checked), state)


@app.command("return")
def return_(
    ids: Ids, reason: Reason, reference: Reference = "", state: State = DEFAULT_STATE
) -> None:
    """Say that the money came back: it is available again."""
    from broker.flows.money import payout_events
    from broker.flows.money.payout_events import Word

    _record(payout_events.give_back, ids, Word(_AUTHOR, reason, reference), state)


def _record(record: Record, ids: list[UUID], word: Word, state: Path) -> None:
    """Say it of each, in a transaction of its own; the first that is refused ends it."""
    from broker.cli.local import now, run_with_engine
    from pricing.money import format_usd

    async def work(engine: AsyncEngine) -> None:
        for each in ids:
            async with engine.begin() as connection:
                payout = await record(connection, each, word, now())
            amount = format_usd(payout.amount_nanos)
            typer.echo(
                f"Payout {payout.number} of {payout.provider}, {amount} USD: {payout.status}."
            )

    run_with_engine(StateFolder(state), work)
