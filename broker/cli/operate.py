"""What operators do now and then: approve a deployment, log in to the console."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from broker.cli.options import DEFAULT_STATE, State
from broker.cli.state import StateFolder

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


def approve(
    deployment_id: Annotated[
        UUID, typer.Argument(help="As 'broker deployments list' or its provider's agent shows it.")
    ],
    state: State = DEFAULT_STATE,
) -> None:
    """Approve a deployment whose origin is proved by a credential only."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.providers import enroll

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
    from broker.flows.access.login import make_link
    from broker.store.access import accounts as account_store

    folder = StateFolder(state)

    async def work(engine: AsyncEngine) -> str:
        async with engine.connect() as connection:
            owner = await account_store.by_name(connection, account)
        return await make_link(engine, owner.id, now())

    token = run_with_engine(folder, work)
    typer.echo(f"{folder.url()}/console/login?token={token}")
