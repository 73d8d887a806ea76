"""`broker history`: what of long ago would be forgotten, and how many bytes that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import DEFAULT_STATE, State
from broker.cli.state import StateFolder

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from broker.flows.calls.forget_history import Plan

_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_TOLD = {
    "calls": "stories of calls",
    "price_changes": "prices, but each endpoint's first and last",
    "price_books": "numbers of price books",
}


def history(
    days: Annotated[
        int | None,
        typer.Option(min=31, help="As if BROKER_HISTORY_KEPT_DAYS were this."),
    ] = None,
    state: State = DEFAULT_STATE,
) -> None:
    """Say what the worker would forget, and how many bytes that is. Nothing is changed."""
    from broker.cli.local import now, run_with_engine, settings
    from broker.flows.calls.forget_history import kept_until, plan

    folder = StateFolder(state)
    found = settings(folder)
    days = days or found.history_kept_days
    if days is None:
        typer.echo("All is kept: BROKER_HISTORY_KEPT_DAYS is not set. --days 365 looks ahead.")
        return
    until = kept_until(found, days, now())

    async def work(engine: AsyncEngine) -> Plan:
        return await plan(engine, until)

    _tell(run_with_engine(folder, work))


def _tell(told: Plan) -> None:
    for each in told.pieces:
        month = "       " if each.month is None else f"{each.month:%Y-%m}"
        size = f"{each.going.rows:>13,} rows  {_size(each.going.bytes):>9}"
        typer.echo(f"{month}  {size}  {_TOLD[each.table]}")
    for month_ in told.waiting:
        typer.echo(f"{month_.begins:%Y-%m}  stays for now: its calls are still looked at")
    total = sum(each.going.bytes for each in told.pieces)
    typer.echo(f"Of the months before {told.until:%Y-%m-%d} about {_size(total)} would go.")


def _size(count: int) -> str:
    size, place = float(count), 0
    while size >= 1_000 and place < len(_UNITS) - 1:
        size, place = size / 1_000, place + 1
    return f"{size:.0f} {_UNITS[place]}" if place == 0 else f"{size:.1f} {_UNITS[place]}"
