"""`broker webhooks`: who is told of events, and how that goes."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from broker.cli.options import DEFAULT_STATE, State, in_utc
from broker.cli.state import StateFolder

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from broker.flows.access.authenticate import Caller
    from broker.flows.webhooks.read_webhooks import Subscriptions
    from broker.outbound.webhooks import Receipt

app = typer.Typer(help="Be told of what happens to money.", no_args_is_help=True)

Account = Annotated[str, typer.Argument(help="Whose it is; an operator is told of everything.")]
WebhookId = Annotated[UUID, typer.Argument(help="As 'broker webhooks list' shows it.")]


@app.command("add")
def add(
    account: Account,
    url: Annotated[str, typer.Argument(help="https://host/path")],
    kind: Annotated[
        list[str], typer.Option(help="Such as refund.posted, refund.* or *; again for more.")
    ],
    state: State = DEFAULT_STATE,
) -> None:
    """Send an account's events to a URL; prints the secret that they are signed with."""
    from broker.cli.local import now, policy, run_with_engine, sealer
    from broker.flows.webhooks.subscribe import check_target, subscribe

    folder = StateFolder(state)

    async def work(engine: AsyncEngine) -> str:
        owner = await _owner(engine, account)
        await check_target(url, policy(folder))
        async with engine.begin() as connection:
            made = await subscribe(connection, owner, (url, kind), sealer(folder), now())
        return f"{made.webhook.id} {made.secret}"

    typer.echo(run_with_engine(folder, work))


@app.command("list")
def list_(account: Account, state: State = DEFAULT_STATE) -> None:
    """List an account's webhooks and what waits for them."""
    from broker.cli.local import run_with_engine
    from broker.flows.webhooks.read_webhooks import list_webhooks

    async def work(engine: AsyncEngine) -> Subscriptions:
        return await list_webhooks(engine, await _owner(engine, account))

    found = run_with_engine(StateFolder(state), work)
    if not found.webhooks:
        typer.echo(f"{account} has no webhooks.")
    for each in found.webhooks:
        backlog = found.backlog.get(each.id)
        since = each.failing_since
        failing = f", failing since {since:%Y-%m-%d %H:%M} UTC" if since else ""
        waiting = 0 if backlog is None else backlog.waiting
        # No table: it would cut the ids, which are there to be copied.
        typer.echo(f"{each.id}  {each.url}")
        typer.echo(f"  {' '.join(each.kinds)}; {each.status}{failing}; {waiting} events wait")


@app.command("remove")
def remove(account: Account, webhook: WebhookId, state: State = DEFAULT_STATE) -> None:
    """Tell a webhook no more, and forget it."""
    from broker.cli.local import now, run_with_engine
    from broker.flows.webhooks.subscribe import unsubscribe

    async def work(engine: AsyncEngine) -> None:
        owner = await _owner(engine, account)
        async with engine.begin() as connection:
            await unsubscribe(connection, owner, webhook, now())

    run_with_engine(StateFolder(state), work)
    typer.echo(f"{webhook} is told no more.")


@app.command("enable")
def enable_(account: Account, webhook: WebhookId, state: State = DEFAULT_STATE) -> None:
    """Tell a webhook again that was disabled."""
    from broker.cli.local import now, run_with_engine
    from broker.flows.webhooks.subscribe import enable

    async def work(engine: AsyncEngine) -> None:
        owner = await _owner(engine, account)
        async with engine.begin() as connection:
            await enable(connection, owner, webhook, now())

    run_with_engine(StateFolder(state), work)
    typer.echo(f"{webhook} is told from now on; 'broker webhooks replay' sends what it missed.")


@app.command("ping")
def ping(account: Account, webhook: WebhookId, state: State = DEFAULT_STATE) -> None:
    """Send a test event; exit status 1 when it was not taken."""
    from broker.cli.local import now, policy, run_with_engine, sealer
    from broker.flows.webhooks.ping_webhook import Postbag, ping_webhook

    folder = StateFolder(state)

    async def work(engine: AsyncEngine) -> Receipt:
        bag = Postbag(engine, sealer(folder), policy(folder))
        return await ping_webhook(bag, await _owner(engine, account), webhook, now())

    receipt = run_with_engine(folder, work)
    if receipt.fault is not None:
        typer.echo(f"{receipt.fault}: {receipt.detail}")
        raise typer.Exit(1)
    typer.echo(f"taken with {receipt.status} in {receipt.took_ms:.0f} ms")


@app.command("replay")
def replay(
    account: Account,
    webhook: WebhookId,
    event: Annotated[UUID | None, typer.Option(help="This one.")] = None,
    from_: Annotated[
        datetime | None, typer.Option("--from", help="All from this time (UTC) on.")
    ] = None,
    state: State = DEFAULT_STATE,
) -> None:
    """Send a webhook events once more."""
    from broker.cli.local import now, run_with_engine
    from broker.flows.webhooks.replay_events import replay_events

    wanted = event or in_utc(from_)
    if wanted is None or (event and from_):
        raise typer.BadParameter("either --event or --from is needed, and not both")

    async def work(engine: AsyncEngine) -> str:
        owner = await _owner(engine, account)
        async with engine.begin() as connection:
            queued = await replay_events(connection, owner, webhook, wanted, now())
        rest = f"; go on with --from {queued.goes_on_at:%FT%T}" if queued.goes_on_at else ""
        return f"{queued.events} events are sent once more{rest}"

    typer.echo(run_with_engine(StateFolder(state), work))


async def _owner(engine: AsyncEngine, name: str) -> Caller:
    """Return the account as the command line acts for it."""
    from broker.cli.local import OPERATOR
    from broker.flows.access.authenticate import Caller
    from broker.store.access import accounts

    async with engine.connect() as connection:
        account = await accounts.by_name(connection, name)
    return Caller(account.id, OPERATOR.name, account.role)
