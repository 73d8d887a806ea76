"""`broker suites`: import, list and show suites, run them on an endpoint, see what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import DEFAULT_STATE, OtherNetworks, State
from broker.cli.state import StateFolder
from broker.cli.tables import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncEngine

    from broker.api.wire import Reply
    from broker.core.answers.gap import Tally
    from broker.core.answers.same_model import Comparison
    from broker.core.answers.suites import Cover, Suite
    from broker.flows.quality.import_suite import Imported
    from broker.store.quality.examinations import Examination, Order

app = typer.Typer(help="Examine endpoints on suites of prompts.", no_args_is_help=True)

DomainName = Annotated[str, typer.Argument(help="Such as law.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead, as of the API.")]
_LOOK_S = 0.5
_TOLD_CHARACTERS = 60


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="JSON lines of prompt, reference and metric.")],
    domain: Annotated[str, typer.Option(help="What the prompts are about.")],
    judge: Annotated[
        str, typer.Option(help="provider/endpoint that judges where a row names nobody.")
    ] = "",
    state: State = DEFAULT_STATE,
) -> None:
    """Import the suite of a domain; whoever claims the domain is then examined on it."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.quality.import_suite import import_suite

    told = file.read_bytes(), judge or None

    async def work(engine: AsyncEngine) -> Imported:
        async with engine.begin() as connection:
            return await import_suite(connection, OPERATOR, domain, told, now())

    made = run_with_engine(StateFolder(state), work)
    for each in made.broken:
        typer.echo(f"{file.name}, line {each.line}: {each.reason}", err=True)
    typer.echo(f"{domain} has {len(made.suite.items)} prompts; {len(made.broken)} rows are broken.")
    if not made.known:
        typer.echo(f"Nobody is examined yet: {domain} is not taught, and no endpoint claims it.")


@app.command("list")
def list_(state: State = DEFAULT_STATE) -> None:
    """List all suites."""
    from rich.table import Table

    from broker.cli.local import run_with_engine
    from broker.store.quality import suites

    async def work(engine: AsyncEngine) -> list[Cover]:
        async with engine.connect() as connection:
            return await suites.covers(connection)

    table = Table("domain", "prompts", "author", "changed (UTC)", box=None)
    for each in run_with_engine(StateFolder(state), work):
        changed = f"{each.changed_at:%Y-%m-%d %H:%M}"
        table.add_row(each.domain, str(each.rows), each.author, changed)
    print_table(table, if_empty="There are no suites.")


@app.command("show")
def show(domain: DomainName, state: State = DEFAULT_STATE) -> None:
    """Show the prompts of a suite, each cut short."""
    from rich.table import Table

    from broker.cli.local import OPERATOR, run_with_engine
    from broker.flows.quality.import_suite import read_suite

    async def work(engine: AsyncEngine) -> Suite:
        async with engine.connect() as connection:
            return await read_suite(connection, OPERATOR, domain)

    table = Table("metric", "prompt", "reference", box=None)
    for each in run_with_engine(StateFolder(state), work).items:
        prompt, reference = (
            " ".join(str(part).split())[:_TOLD_CHARACTERS] for part in (each.prompt, each.reference)
        )
        table.add_row(each.metric.value, prompt, reference)
    print_table(table)


@app.command("remove")
def remove(domain: DomainName, state: State = DEFAULT_STATE) -> None:
    """Remove a suite; what was examined on it stays."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.quality.import_suite import remove_suite

    async def work(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            await remove_suite(connection, OPERATOR, domain, now())

    run_with_engine(StateFolder(state), work)
    typer.echo(f"{domain} has no suite any more.")


@app.command("run")
def run(
    endpoint: Annotated[str, typer.Argument(help="provider/endpoint")],
    domain: Annotated[str, typer.Option(help="One domain; all that it claims if not told.")] = "",
    wait: Annotated[bool, typer.Option(help="Stay until a worker is through.")] = True,
    state: State = DEFAULT_STATE,
) -> None:
    """Have an endpoint examined again by the broker's workers."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.quality.order_examination import order_examination

    async def work(engine: AsyncEngine) -> list[Order]:
        async with engine.begin() as connection:
            return await order_examination(connection, OPERATOR, endpoint, domain or None, now())

    orders = run_with_engine(StateFolder(state), work)
    if not orders:
        typer.echo(f"{endpoint} is being examined already.")
    elif not wait:
        typer.echo(f"Ordered: {', '.join(str(each.id) for each in orders)}")
    else:
        ended = run_with_engine(StateFolder(state), lambda engine: _follow(engine, orders))
        _print(ended)


@app.command("results")
def results(
    endpoint: Annotated[str, typer.Argument(help="provider/endpoint; all if not told.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many at most.")] = 40,
    as_json: AsJson = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Show the newest examinations, and which claims they refute."""
    from broker.cli.local import OPERATOR, run_with_engine
    from broker.flows.quality.order_examination import read_examinations

    async def work(engine: AsyncEngine) -> Sequence[Examination]:
        async with engine.connect() as connection:
            return await read_examinations(connection, OPERATOR, endpoint or None, limit)

    found = run_with_engine(StateFolder(state), work)
    if as_json:
        from broker.api.quality.suites import examinations_shown

        _tell(examinations_shown(found))
    else:
        _print(found)


@app.command("gaps")
def gaps(as_json: AsJson = False, state: State = DEFAULT_STATE) -> None:
    """Show who answers canaries better than traffic."""
    from rich.table import Table

    from broker.cli.local import now, run_with_engine
    from broker.flows.quality.read_gaps import read_gaps

    found = run_with_engine(StateFolder(state), lambda engine: read_gaps(engine, now()))
    if as_json:
        from broker.api.quality.suites import gaps_shown

        _tell(gaps_shown(found))
        return
    table = Table("endpoint", "domain", "canaries", "traffic", "gap (95 %)", "", box=None)
    for each, gap in found:
        apart = "too few yet"
        if gap.apart is not None:
            apart = f"{gap.apart:+.2f} ({gap.low:+.2f} to {gap.high:+.2f})"
        table.add_row(
            each.endpoint,
            each.domain,
            _mean(each.canaries),
            _mean(each.traffic),
            apart,
            "knows canaries" if gap.shows else "",
        )
    print_table(table, if_empty="Nobody has answered canaries yet.")


@app.command("compare")
def compare(
    endpoint: Annotated[str, typer.Argument(help="provider/endpoint")],
    reference: Annotated[str, typer.Argument(help="One that surely serves the model.")],
    domain: Annotated[str, typer.Option(help="Whose suite the prompts are of.")],
    prompts: Annotated[int, typer.Option(min=2, max=200, help="How many.")] = 10,
    allow_networks: OtherNetworks = None,
    state: State = DEFAULT_STATE,
) -> None:
    """Test whether two endpoints serve the same model.

    Ends with status 1 where they do not, and with 2 where that could not be told.
    """
    from broker.cli.local import now, policy, run_with_engine, sealer
    from broker.errors import BrokerError
    from broker.flows.calls.ask_endpoint import Asker
    from broker.flows.quality.compare_models import Means, compare_models
    from broker.upstream.client import UpstreamClient

    folder = StateFolder(state)

    async def work(engine: AsyncEngine) -> Comparison:
        upstream = UpstreamClient(policy(folder, allow_networks))
        try:
            means = Means(engine, sealer(folder), Asker(upstream), now)
            return await compare_models(means, (endpoint, reference), domain, prompts)
        finally:
            await upstream.aclose()

    try:
        found = run_with_engine(folder, work)
    except BrokerError as error:
        typer.echo(f"broker: {error.detail}", err=True)
        raise typer.Exit(2) from None
    word = "Not the same model, or not served alike" if found.differs else "No difference found"
    typer.echo(
        f"{word}. p = {found.p_value:.3f}, discrepancy {found.discrepancy:.4f}, "
        f"{found.answers} answers to {found.prompts} prompts."
    )
    raise typer.Exit(int(found.differs))


def _tell(shown: Reply) -> None:
    import msgspec

    typer.echo(msgspec.json.encode(shown).decode())


def _mean(tally: Tally) -> str:
    return "none" if tally.mean is None else f"{tally.mean:.2f} of {tally.count:.0f}"


async def _follow(engine: AsyncEngine, orders: Sequence[Order]) -> list[Examination]:
    """Show how far orders are until all have ended; return them."""
    import asyncio

    from rich.progress import Progress

    from broker.flows.quality.order_examination import read_examination

    with Progress(transient=True) as progress:
        bars = {
            each.id: progress.add_task(f"{each.domain} (waits for a worker)") for each in orders
        }
        while True:
            async with engine.connect() as connection:
                found = [await read_examination(connection, each.id) for each in orders]
            for each in found:
                if each.asked:
                    bar, done = bars[each.id], each.answered
                    progress.update(bar, total=each.asked, completed=done, description=each.domain)
            if all(each.ended_at is not None for each in found):
                return found
            await asyncio.sleep(_LOOK_S)


def _print(examinations: Sequence[Examination]) -> None:
    from rich.table import Table

    from broker.flows.quality.order_examination import verdict_of

    headings = ("endpoint", "domain", "status", "claimed", "score (95 %)", "claim", "asked (UTC)")
    table = Table(*headings, box=None)
    for each in examinations:
        verdict = verdict_of(each)
        told = each.problem or f"{each.answered} of {each.asked}"
        if verdict is not None:
            told = f"{verdict.score:.2f} ({verdict.low:.2f} to {verdict.high:.2f})"
        table.add_row(
            each.endpoint,
            each.domain,
            each.status,
            "" if each.claimed is None else f"{each.claimed:.2f}",
            told,
            "" if verdict is None else verdict.on(each.claimed).value,
            f"{each.created_at:%Y-%m-%d %H:%M}",
        )
    print_table(table, if_empty="Nobody was examined yet.")
