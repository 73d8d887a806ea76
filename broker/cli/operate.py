"""What operators do now and then: approve a deployment, log in to the console, check the books."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from broker.cli.options import DEFAULT_STATE, State
from broker.cli.state import StateFolder

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from broker.store.invariants import Alarm


def approve(
    deployment_id: Annotated[UUID, typer.Argument(help="As the provider's agent shows it.")],
    state: State = DEFAULT_STATE,
) -> None:
    """Approve a deployment whose origin is proved by a credential only."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows import enroll

    async def work(engine: AsyncEngine) -> None:
        await enroll.approve(engine, OPERATOR.name, deployment_id, now())

    run_with_engine(StateFolder(state), work)
    typer.echo(f"{deployment_id} is approved; its agent's next check lists it.")


def login(
    account: Annotated[str, typer.Argument(help="Whose console to open.")] = "operator",
    state: State = DEFAULT_STATE,
) -> None:
    """Print a link that logs in to the console once."""
    from broker.cli.local import now, run_with_engine
    from broker.flows.login import make_link
    from broker.store import accounts as account_store

    folder = StateFolder(state)

    async def work(engine: AsyncEngine) -> str:
        async with engine.connect() as connection:
            owner = await account_store.by_name(connection, account)
        return await make_link(engine, owner.id, now())

    token = run_with_engine(folder, work)
    typer.echo(f"{folder.url()}/console/login?token={token}")


def check(
    state: State = DEFAULT_STATE,
    *,
    replay: Annotated[
        bool, typer.Option(help="Also fold every entry there ever was, and prove the seals.")
    ] = False,
) -> None:
    """Check that the books balance; exit status 1 when something is off."""
    from rich.console import Console

    from broker.cli.local import run_with_engine
    from broker.flows.check import check as check_books

    async def work(engine: AsyncEngine) -> list[Alarm]:
        return await check_books(engine, replay=replay)

    alarms = run_with_engine(StateFolder(state), work)
    console = Console(highlight=False)
    for alarm in alarms:
        console.print(f"[red]{alarm.view}[/red] {alarm.row}")
    console.print("The books balance." if not alarms else f"{len(alarms)} alarms.")
    sys.exit(1 if alarms else 0)
