"""`broker deployments`: see who serves and how far each has come, take one off the market."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

import typer

from broker.cli.options import DEFAULT_STATE, State
from broker.cli.state import StateFolder
from broker.errors import SettingInvalid

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from broker.store.market.deployments import DeploymentRecord

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
    """List deployments, oldest first, with what their last check found wrong, and which of those
    that are listed are not there."""
    from broker.cli.local import OPERATOR, run_with_engine
    from broker.flows.providers.read_deployments import (
        read_deployments,
        read_heartbeats,
        why_absent,
    )

    folder = StateFolder(state)

    async def work(engine: AsyncEngine) -> list[tuple[DeploymentRecord, str | None]]:
        valkey_url = _valkey_url(folder)
        heard = None if valkey_url is None else await read_heartbeats(engine, valkey_url)
        return [
            (each, None if heard is None else why_absent(each, heard))
            for each in await read_deployments(engine, OPERATOR)
            if status in (None, each.deployment.status.value)
            and provider in (None, each.deployment.provider)
        ]

    found = run_with_engine(folder, work)
    if not found:
        typer.echo("There are none.")
    for record, absent in found:
        each = record.deployment
        stands = f"{each.status.value}, but {absent}" if absent else each.status.value
        typer.echo(f"{each.id}  {each.provider}, {each.name}: {stands}")
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
    from broker.flows.providers import enroll

    async def work(engine: AsyncEngine) -> None:
        await enroll.withdraw(engine, OPERATOR, deployment_id, now(), reason)

    run_with_engine(StateFolder(state), work)
    typer.echo(f"{deployment_id} is off the market.")


def _valkey_url(folder: StateFolder) -> str | None:
    """Return where heartbeats are told; None where only the database is known here."""
    try:
        return folder.valkey_url()
    except SettingInvalid:
        return None
