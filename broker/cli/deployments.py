"""`broker deployments`: see who serves and how far each has come, take one off the market."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

import typer

from broker.cli.options import DEFAULT_STATE, State
from broker.cli.state import StateFolder

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from broker.store.deployments import DeploymentRecord

app = typer.Typer(help="See deployments, take one off the market.", no_args_is_help=True)


@app.command("list")
def list_(
    status: Annotated[
        Literal["unproven", "awaiting_approval", "failed", "listed", "withdrawn"] | None,
        typer.Option(help="Only those; who awaits approval waits for 'broker approve'."),
    ] = None,
    provider: Annotated[str | None, typer.Option(help="Only of this account.")] = None,
    state: State = DEFAULT_STATE,
) -> None:
    """List deployments, oldest first, with what their last check found wrong."""
    from broker.cli.local import OPERATOR, run_with_engine
    from broker.flows.read_deployments import read_deployments

    async def work(engine: AsyncEngine) -> list[DeploymentRecord]:
        return [
            each
            for each in await read_deployments(engine, OPERATOR)
            if status in (None, each.deployment.status.value)
            and provider in (None, each.deployment.provider)
        ]

    found = run_with_engine(StateFolder(state), work)
    if not found:
        typer.echo("There are none.")
    for record in found:
        each = record.deployment
        typer.echo(f"{each.id}  {each.provider}, {each.name}: {each.status.value}")
        typer.echo(f"  {each.kind.value} at {each.url}, {each.capacity} at once, {each.region}")
        for report in record.reports:
            if not report.ok:
                typer.echo(f"  {report.check}: {report.detail}")


@app.command("withdraw")
def withdraw(
    deployment_id: Annotated[UUID, typer.Argument(help="As 'broker deployments list' shows it.")],
    reason: Annotated[str, typer.Option(help="Kept in the audit log.")],
    state: State = DEFAULT_STATE,
) -> None:
    """Take a deployment off the market, everywhere within a second; calls under way are finished.

    While its provider has a key it can register it again: 'broker keys revoke' shuts that out too.
    """
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows import enroll

    async def work(engine: AsyncEngine) -> None:
        await enroll.withdraw(engine, OPERATOR, deployment_id, now(), reason)

    run_with_engine(StateFolder(state), work)
    typer.echo(f"{deployment_id} is off the market.")
