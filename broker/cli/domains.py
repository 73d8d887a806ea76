"""`broker domains`: teach, list and forget what prompts may be about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import DEFAULT_STATE, State
from broker.cli.state import StateFolder
from broker.cli.tables import print_table

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from broker.core.quality.syllabus import Domain
    from broker.store.quality.domains import Listed

app = typer.Typer(help="Teach, list and forget domains.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Such as law.")]


@app.command("teach")
def teach(
    name: Name,
    examples: Annotated[
        Path,
        typer.Argument(help="A prompt a line, as it is or as a JSON string; 20 to 200 of them."),
    ],
    state: State = DEFAULT_STATE,
) -> None:
    """Teach a domain by examples, or teach it anew; every broker knows it at once."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.quality.teach_domain import teach_domain

    # What is no UTF-8 is refused with the number of its example, as half of a character is.
    lines = examples.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    prompts = [_prompt(line) for line in lines]

    async def work(engine: AsyncEngine) -> Domain:
        async with engine.begin() as connection:
            return await teach_domain(connection, OPERATOR, name, prompts, now())

    taught = run_with_engine(StateFolder(state), work)
    typer.echo(f"{taught.name} is taught by {len(taught.examples)} examples.")


@app.command("list")
def list_(state: State = DEFAULT_STATE) -> None:
    """List all domains."""
    from rich.table import Table

    from broker.cli.local import run_with_engine
    from broker.store.quality.domains import list_domains

    async def work(engine: AsyncEngine) -> tuple[Listed, ...]:
        async with engine.connect() as connection:
            return await list_domains(connection)

    table = Table("domain", "examples", "author", "changed (UTC)", box=None)
    for each in run_with_engine(StateFolder(state), work):
        changed = f"{each.changed_at:%Y-%m-%d %H:%M}"
        table.add_row(each.name, str(each.examples), each.author, changed)
    print_table(table, if_empty="No domain is taught.")


@app.command("forget")
def forget(name: Name, state: State = DEFAULT_STATE) -> None:
    """Forget a domain."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.quality.teach_domain import forget_domain

    async def work(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            await forget_domain(connection, OPERATOR, name, now())

    run_with_engine(StateFolder(state), work)
    typer.echo(f"{name} is forgotten.")


def _prompt(line: str) -> str:
    import json

    if line.startswith('"'):
        try:
            told = json.loads(line)
        except ValueError:
            return line
        return told if isinstance(told, str) else line
    return line
