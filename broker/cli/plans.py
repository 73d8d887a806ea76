"""`broker plans`: set, list and end plans of the broker's take."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from broker.cli.options import DEFAULT_STATE, State, in_utc
from broker.cli.state import StateFolder

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from broker.core.money.takes import Plan, Tier
    from broker.flows.money.read_plans import PlanList

app = typer.Typer(help="Set, list and end plans of the broker's take.", no_args_is_help=True)

Reason = Annotated[str, typer.Option(help="Kept with the plan.")]


@app.command("set")
def set_(
    tier: Annotated[
        list[str],
        typer.Option(
            help="USD:BPS, in hundredths of a percent: 0:1000 is 10 % from 0 USD sold in the month "
            "on; again for more."
        ),
    ],
    reason: Reason,
    provider: Annotated[str | None, typer.Option(help="For this provider only.")] = None,
    domain: Annotated[str | None, typer.Option(help="For calls of this domain only.")] = None,
    from_: Annotated[
        datetime | None, typer.Option("--from", help="In UTC; at once when not given.")
    ] = None,
    state: State = DEFAULT_STATE,
) -> None:
    """Set a plan. It holds for calls admitted from then on."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.money.set_plan import PlanWanted, set_plan

    at = in_utc(from_)
    wanted = PlanWanted(provider, domain, tuple(map(_tier, tier)), at, reason)

    async def work(engine: AsyncEngine) -> Plan:
        async with engine.begin() as connection:
            return await set_plan(connection, OPERATOR, wanted, now())

    plan = run_with_engine(StateFolder(state), work)
    typer.echo(f"{plan.id} holds from {plan.valid_from:%Y-%m-%d %H:%M:%S} UTC on.")


@app.command("end")
def end(
    plan_id: Annotated[UUID, typer.Argument(help="As 'broker plans list' shows it.")],
    reason: Reason = "",
    state: State = DEFAULT_STATE,
) -> None:
    """End a plan that is in force, or call off one that is still to come."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.money.set_plan import end_plan

    async def work(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            await end_plan(connection, OPERATOR, plan_id, reason, now())

    run_with_engine(StateFolder(state), work)
    typer.echo(f"{plan_id} is over.")


@app.command("list")
def list_(state: State = DEFAULT_STATE) -> None:
    """List all plans, the last written first."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.money.read_plans import read_plans

    async def work(engine: AsyncEngine) -> PlanList:
        return await read_plans(engine, OPERATOR, 0, now())

    found = run_with_engine(StateFolder(state), work)
    if not found.plans:
        typer.echo("There are no plans.")
    for plan in found.plans:
        provider = "any provider" if plan.provider_id is None else found.names[plan.provider_id]
        domain = f"domain {plan.domain}" if plan.domain else "any domain"
        # No table: it would cut the ids, which are there to be copied.
        typer.echo(f"{plan.id}  {provider}, {domain}: {_told(plan.tiers)}")
        force = ", in force" if plan.id in found.current else ""
        typer.echo(f"  from {plan.valid_from:%Y-%m-%d %H:%M} UTC on{force}: {plan.reason}")


def _tier(words: str) -> Tier:
    from broker.core.money.takes import Tier
    from pricing.money import parse_usd_nanos

    amount_usd, _, bps = words.partition(":")
    if not bps.isdigit():
        raise typer.BadParameter("a tier is written USD:BPS, such as 0:1000")
    return Tier(parse_usd_nanos(amount_usd), int(bps))


def _told(tiers: tuple[Tier, ...]) -> str:
    from pricing.money import format_usd

    told = (f"{each.take_bps / 100:g} % from {format_usd(each.from_nanos)} USD" for each in tiers)
    return ", ".join(told) or "ended"
