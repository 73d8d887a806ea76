"""`broker pricing`: choose which controller moves whose prices, list and end choices."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from broker.cli.options import DEFAULT_STATE, State, in_utc
from broker.cli.state import StateFolder

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from broker.flows.market.choose_pricing import Clock
    from broker.store.market.pricing_choices import StoredChoice

app = typer.Typer(
    help="Choose which controller moves whose prices, list and end choices.", no_args_is_help=True
)


@app.command("set")
def set_(
    controller: Annotated[str, typer.Argument(help="posted, excess, pi, shadow or revenue.")],
    param: Annotated[
        list[str] | None, typer.Option(help="NAME=NUMBER, such as k_s=30; again for more.")
    ] = None,
    domain: Annotated[str, typer.Option(help="For endpoints best in this domain.")] = "",
    provider: Annotated[str, typer.Option(help="For this provider's endpoints.")] = "",
    endpoint: Annotated[str, typer.Option(help="For this one, written provider/endpoint.")] = "",
    schedule: Annotated[
        Path | None,
        typer.Option(
            help='A JSON file: {"steps": [{"from": "08:00", "factor": 1.5, "days": ["mon"]}]}.'
        ),
    ] = None,
    from_: Annotated[
        datetime | None, typer.Option("--from", help="In UTC; at once when not given.")
    ] = None,
    to: Annotated[datetime | None, typer.Option(help="In UTC; for good when not given.")] = None,
    reason: Annotated[str, typer.Option(help="Kept with the choice.")] = "",
    state: State = DEFAULT_STATE,
) -> None:
    """Choose a controller, for the whole market unless a narrower subject is named."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.market.choose_pricing import ChoiceWanted, choose_pricing
    from pricing.choice import Scope

    named = {Scope.DOMAIN: domain, Scope.PROVIDER: provider, Scope.ENDPOINT: endpoint}
    subjects = [(scope, name) for scope, name in named.items() if name] or [(Scope.MARKET, "")]
    if len(subjects) > 1:
        raise typer.BadParameter("name one of --domain, --provider and --endpoint")
    wanted = ChoiceWanted(
        *subjects[0],
        controller,
        dict(map(_parameter, param or ())),
        None if schedule is None else _schedule(schedule),
        in_utc(from_),
        in_utc(to),
        reason,
    )

    async def work(engine: AsyncEngine) -> StoredChoice:
        async with engine.begin() as connection:
            return await choose_pricing(connection, OPERATOR, wanted, now())

    choice = run_with_engine(StateFolder(state), work)
    typer.echo(f"{choice.id} holds from {choice.valid_from:%Y-%m-%d %H:%M:%S} UTC on.")


@app.command("end")
def end(
    choice_id: Annotated[UUID, typer.Argument(help="As 'broker pricing list' shows it.")],
    state: State = DEFAULT_STATE,
) -> None:
    """End a choice, or call one off; what it lay over is in force again."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.market.choose_pricing import end_choice

    async def work(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            await end_choice(connection, OPERATOR, choice_id, now())

    run_with_engine(StateFolder(state), work)
    typer.echo(f"{choice_id} is over.")


@app.command("list")
def list_(state: State = DEFAULT_STATE) -> None:
    """List the choices that are in force or still to come."""
    from broker.cli.local import now, run_with_engine
    from broker.store.market import pricing_choices

    async def work(engine: AsyncEngine) -> list[StoredChoice]:
        async with engine.connect() as connection:
            return await pricing_choices.list_open(connection, now())

    found = run_with_engine(StateFolder(state), work)
    if not found:
        typer.echo("Nothing was chosen: every price is moved by 'excess'.")
    # They come by the time they begin at: of one place the last that has begun holds.
    begun = [each for each in found if each.valid_from <= now()]
    holding = {(each.scope, each.subject): each for each in begun}
    for choice in found:
        stands = ", set aside by a later one" if choice in begun else ""
        if holding.get((choice.scope, choice.subject)) is choice:
            stands = ", in force"
        _tell(choice, stands)


def _tell(choice: StoredChoice, stands: str) -> None:
    numbers = ", ".join(f"{name}={value:g}" for name, value in choice.parameters.items())
    controller = f"{choice.controller}{f' ({numbers})' if numbers else ''}"
    clock = ", by the clock" if choice.schedule else ""
    # No table: it would cut the ids, which are there to be copied.
    subject = f"{choice.scope} {choice.subject}".strip()
    typer.echo(f"{choice.id}  {subject}: {controller}{clock}{stands}")
    until = "on" if choice.valid_to is None else f"to {choice.valid_to:%Y-%m-%d %H:%M} UTC"
    why = f": {choice.reason}" if choice.reason else ""
    typer.echo(f"  from {choice.valid_from:%Y-%m-%d %H:%M} UTC {until}{why}")


def _parameter(words: str) -> tuple[str, float]:
    name, _, number = words.partition("=")
    try:
        return name, float(number)
    except ValueError:
        raise typer.BadParameter("a parameter is written NAME=NUMBER, such as k_s=30") from None


def _schedule(path: Path) -> Clock:
    import msgspec

    from broker.errors import RequestMalformed
    from broker.flows.market.choose_pricing import Clock

    try:
        return msgspec.json.decode(path.read_bytes(), type=Clock)
    except msgspec.DecodeError as error:
        raise RequestMalformed(f"{path}: {error}.") from None
