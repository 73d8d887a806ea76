"""`broker audit`: read the audit log, and prove that nobody has tampered with it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import DEFAULT_STATE, State
from broker.cli.state import StateFolder

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from broker.flows.access.verify_audit import Verdict
    from broker.store.access.audit import Entry
    from broker.store.access.audit_chain import Head

app = typer.Typer(help="Read the audit log, and prove it.", no_args_is_help=True)

Author = Annotated[str | None, typer.Option(help="Who did it: an account, or command-line.")]
Action = Annotated[str | None, typer.Option(help="What was done, such as close_account.")]


@app.command("list")
def list_(
    author: Author = None,
    action: Action = None,
    object_: Annotated[str | None, typer.Option("--object", help="Such as keys/abc.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many at most.")] = 50,
    state: State = DEFAULT_STATE,
) -> None:
    """Show who did what, newest first."""
    from broker.cli.local import run_with_engine
    from broker.flows.access.read_audit import read_audit
    from broker.store.access.audit import Sought

    async def work(engine: AsyncEngine) -> list[Entry]:
        sought = Sought(author, action, object_)
        return await read_audit(engine, sought, before=None, limit=limit)

    for entry in run_with_engine(StateFolder(state), work):
        deed = entry.deed
        # No table: it would cut what is there to be copied.
        when = f"{entry.at:%Y-%m-%d %H:%M:%S} UTC"
        typer.echo(f"{when}  {deed.author}  {deed.action}  {deed.target}")
        if detail := ", ".join(f"{name}={value}" for name, value in deed.detail.items()):
            typer.echo(f"  {detail}")


@app.command("verify")
def verify(
    head: Annotated[
        str | None, typer.Option(help="A link noted earlier, NUMBER:HASH: it must still stand.")
    ] = None,
    state: State = DEFAULT_STATE,
) -> None:
    """Recompute the chain through the log and open its seals; exit status 1 on any flaw."""
    from broker.cli.local import run_with_engine, sealer
    from broker.flows.access.verify_audit import verify_audit

    folder = StateFolder(state)
    noted = None if head is None else _noted(head)

    async def work(engine: AsyncEngine) -> Verdict:
        return await verify_audit(engine, sealer(folder), noted)

    verdict = run_with_engine(folder, work)
    for flaw in verdict.flaws:
        typer.echo(flaw)
    typer.echo(f"{verdict.entries} entries, sealed up to {verdict.sealed}.")
    if verdict.head is not None:
        typer.echo(f"Newest link, to be noted elsewhere: {_told(verdict.head)}")
    typer.echo(f"{len(verdict.flaws)} flaws." if verdict.flaws else "The log is as it was written.")
    sys.exit(1 if verdict.flaws else 0)


def _noted(words: str) -> Head:
    from broker.store.access.audit_chain import Head

    number, _, digest = words.partition(":")
    try:
        return Head(int(number), bytes.fromhex(digest))
    except ValueError:
        raise typer.BadParameter("a link is written NUMBER:HASH") from None


def _told(head: Head) -> str:
    return f"{head.number}:{head.hash.hex()}"
