"""`broker policy`: what another way of choosing would have got."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import DEFAULT_STATE, State
from broker.cli.state import StateFolder

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from broker.core.quality.off_policy import Evaluated

app = typer.Typer(help="Evaluate other ways of choosing.", no_args_is_help=True)


@app.callback()
def _policy() -> None:
    """Evaluate other ways of choosing."""


@app.command("evaluate")
def evaluate(
    policy: Annotated[
        str, typer.Argument(help="A preset of broker.weights, or uniform: anybody alike.")
    ],
    days: Annotated[
        int, typer.Option(min=1, help="Of what was said of calls in the last so many days.")
    ] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead.")] = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Estimate, from calls that explored and were judged, what a policy would have got."""
    from datetime import timedelta

    import msgspec

    from broker.cli.local import now, run_with_engine
    from broker.flows.quality.evaluate_policy import evaluate_policy

    async def work(engine: AsyncEngine) -> Evaluated:
        return await evaluate_policy(engine, policy, now() - timedelta(days=days))

    told = run_with_engine(StateFolder(state), work)
    if as_json:
        typer.echo(msgspec.json.encode(told).decode())
        return
    typer.echo(
        f"{told.calls} calls, worth {told.effective:.0f} under '{policy}', "
        f"which {told.supported:.0%} of them might have gone by."
    )
    if told.supported < 1.0:
        typer.echo(
            f"The other {1.0 - told.supported:.1%} would have gone where none could: ips counts "
            "them as worthless, snips as the rest, dr by what was seen there of other calls. "
            f"It may be worth anything from {told.least:.4f} to {told.most:.4f}, but for chance."
        )
    if told.partly_told:
        typer.echo(
            f"{told.partly_told:.0%} of the calls tell only some of their candidates: all that "
            "might have been taken, and the best of the others."
        )
    for name in ("logged", "ips", "snips", "dr"):
        each = getattr(told, name)
        typer.echo(f"{name:7} {each.value:.4f}  ({each.low:.4f} … {each.high:.4f})")
