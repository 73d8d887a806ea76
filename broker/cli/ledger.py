"""`broker ledger`: do the books balance, and what has one call done to them?"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from broker.cli.options import DEFAULT_STATE, State
from broker.cli.state import StateFolder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.table import Table
    from sqlalchemy.ext.asyncio import AsyncEngine

    from broker.core.money.postings import Entry, Postings
    from broker.flows.books.check import Checked
    from broker.flows.books.monitor import Standing

app = typer.Typer(help="Check the books, and explain a call in them.", no_args_is_help=True)

ALARMS, NOT_CHECKED = 1, 2
"""Exit statuses; 0 when all is well."""
AMOUNT_WIDTH = 18
HOLD_ROW = "captured 2026-01-01 00:00:00 UTC"

Call = Annotated[UUID, typer.Argument(help="As `x-broker-call-id` told it.")]


@app.command("check")
def check(
    state: State = DEFAULT_STATE,
    *,
    replay: Annotated[
        bool, typer.Option(help="Also fold every record there ever was, and prove the seals.")
    ] = False,
) -> None:
    """Check that the books balance: status 0, with alarms 1, and 2 when it could not be done."""
    from rich.console import Console
    from rich.text import Text

    from broker.cli.local import now, run_with_engine
    from broker.flows.books.check import check_views
    from broker.flows.books.monitor import read_standing

    async def work(engine: AsyncEngine) -> tuple[Sequence[Checked], Sequence[Standing]]:
        checked = await check_views(engine, replay=replay)
        return checked, await read_standing(engine, now())

    try:
        checked, standings = run_with_engine(StateFolder(state), work)
    except Exception as error:
        # Whatever hindered it, nothing was found out: cron must not take that for an alarm.
        line = Text("broker: ", style="red")
        line.append(f"The books could not be checked: {_in_one_line(error)}", style="default")
        Console(stderr=True, soft_wrap=True, highlight=False).print(line)
        sys.exit(NOT_CHECKED)
    console = Console(highlight=False)
    console.print(_views(checked))
    alarms = [alarm for each in checked for alarm in each.alarms]
    for alarm in alarms:
        row = ", ".join(f"{name}={_plain(value)}" for name, value in alarm.row.items())
        console.print(Text(f"{alarm.view}: ", style="red").append(row, "default"), soft_wrap=True)
    for standing in standings:
        console.print(_monitor(standing), style="dim")
    console.print("The books balance." if not alarms else f"{len(alarms)} alarms.")
    sys.exit(ALARMS if alarms else 0)


@app.command("explain")
def explain(call_id: Call, state: State = DEFAULT_STATE) -> None:
    """Draw every posting of a call: its hold, what it was charged, what went back."""
    from rich.console import Console
    from rich.text import Text

    from broker.cli.local import OPERATOR, run_with_engine
    from broker.flows.calls import explain_call

    async def work(engine: AsyncEngine) -> Postings:
        return (await explain_call.explain(engine, OPERATOR, call_id)).postings

    found = run_with_engine(StateFolder(state), work)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]call {found.call_id}[/bold], begun {_moment(found.begun_at)}")
    if found.asked:
        console.print(found.asked, markup=False)
    console.print(_told(found))
    for sheet in _sheets(found):
        console.print(Text(sheet.title, "bold"))
        for line in sheet.lines():
            console.print(line, markup=False)
    if found.sum_nanos or any(each.sum_nanos for each in found.entries):
        console.print("[red]The postings do not sum to zero.[/red]")
        sys.exit(ALARMS)


def _plain(value: object) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _in_one_line(error: Exception) -> str:
    detail = getattr(error, "detail", None) or str(error) or type(error).__name__
    return str(detail).splitlines()[0]


def _views(checked: Iterable[Checked]) -> Table:
    from rich.table import Table

    table = Table("check", "alarms", "ms", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for each in checked:
        count = f"[red]{len(each.alarms)}[/red]" if each.alarms else "0"
        table.add_row(each.view, count, f"{each.took_ms:.0f}")
    return table


def _monitor(standing: Standing) -> str:
    if standing.last is None:
        return f"The monitor has not made its check of {_KINDS[standing.kind]} yet."
    stopped = "[red] and has stopped since[/red]" if standing.stale else ""
    return (
        f"The monitor last checked {_KINDS[standing.kind]} {_moment(standing.last.at)}{stopped}, "
        f"with {sum(standing.last.alarms.values())} alarms."
    )


_KINDS = {"invariants": "the open period", "replay": "all records"}


def _told(found: Postings) -> str:
    from broker.core.money.postings import CallState
    from pricing.money import format_usd

    held = format_usd(found.held_nanos)
    until = "" if found.expires_at is None else f" until {_moment(found.expires_at)}"
    return {
        CallState.REFUSED: "It was refused: nothing was held and nothing was charged.",
        CallState.UNDER_WAY: f"It is under way: {held} USD are held{until}, nothing is charged.",
        CallState.CAPTURED: "What it used was captured, and the rest of the hold released.",
        CallState.RELEASED: "The hold was released; nothing was charged.",
        CallState.EXPIRED: "The hold ran out and was released; nothing was charged.",
    }[found.state]


@dataclass(frozen=True, slots=True)
class Sheet:
    """Amounts by account under one title, and their sum; all accounts are `width` wide."""

    title: str
    rows: list[tuple[str, int]]
    sum_name: str
    total_nanos: int
    width: int

    def lines(self) -> Iterator[str]:
        """Yield what is printed under the title."""
        from pricing.money import format_usd

        for name, nanos in (*self.rows, (self.sum_name, self.total_nanos)):
            yield f"  {name:<{self.width}}  {format_usd(nanos):>{AMOUNT_WIDTH}} USD"


def _sheets(found: Postings) -> Iterator[Sheet]:
    from broker.core.money.postings import full_name

    totals = found.totals(full_name)
    width = max([len(name) for name in totals] + [len(HOLD_ROW)])
    if found.payer is not None:
        rows = [(f"{each.kind:<8} {_moment(each.at)}", each.amount_nanos) for each in found.held]
        title = f"held in {found.payer.name}"
        yield Sheet(title, rows, "still held", found.held_nanos, width)
    for entry in found.entries:
        rows = [(each.account.name, each.amount_nanos) for each in entry.postings]
        yield Sheet(_title(entry), rows, "sum", entry.sum_nanos, width)
    if found.entries:
        yield Sheet("in all", list(totals.items()), "sum", found.sum_nanos, width)


def _title(entry: Entry) -> str:
    title = f"{entry.kind} {_moment(entry.at)}"
    if entry.attempt is not None:
        title += (
            f", attempt {entry.attempt} at {entry.endpoint}: {entry.tokens_in} tokens in, "
            f"{entry.tokens_out} out, at the prices of version {entry.price_version}"
        )
    if entry.id is not None:
        title += f", transfer {entry.id} by {entry.author}"
    return f"{title}: {entry.reason}" if entry.reason else title


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
