"""`broker keys`: issue, list, rotate, limit and revoke keys."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.options import DEFAULT_STATE, State
from broker.cli.state import StateFolder
from broker.cli.tables import print_table

if TYPE_CHECKING:
    from rich.table import Table
    from sqlalchemy.ext.asyncio import AsyncEngine

    from broker.flows.access.issue_key import OwnedKey
    from broker.store.books.budgets import Budgets

app = typer.Typer(help="Issue, list, rotate, limit and revoke keys.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The account's name.")]


def _id_of(told: str) -> str:
    """Return a key's id, also where the whole key was told."""
    head, _, rest = told.partition("_")
    return rest.partition("_")[0] if head == "bk" and rest else told


KeyId = Annotated[
    str,
    typer.Argument(
        callback=_id_of,
        help="What stands between the underscores of the key, as 'broker keys list' shows it.",
    ),
]
Day = Annotated[str | None, typer.Option("--day", help="USD that it may spend in a UTC day.")]
Month = Annotated[str | None, typer.Option("--month", help="USD in a UTC month.")]
Total = Annotated[str | None, typer.Option("--total", help="USD in all.")]


Label = Annotated[str, typer.Option(help="To tell keys apart.")]
CallsMax = Annotated[int | None, typer.Option(min=1, help="Most calls under way at once.")]
Days = Annotated[
    int | None, typer.Option(min=1, max=36_500, help="Expires after so many; else never.")
]
KeepAnswers = Annotated[
    bool,
    typer.Option(
        "--keep-answers", help="Keep answers of calls with an Idempotency-Key, encrypted."
    ),
]
KeepAll = Annotated[
    bool,
    typer.Option(
        "--keep-all", help="Keep such answers, and what feedback says in words, encrypted."
    ),
]
Explore = Annotated[
    bool | None,
    typer.Option(
        "--explore/--no-explore",
        help="May auto try who may be better than it seems? Else as each call says.",
    ),
]
ScopeNames = Annotated[
    list[str] | None,
    typer.Option("--scope", help="calls, read, money, keys or deployments; again for more."),
]
Requests = Annotated[int | None, typer.Option(min=1, help="Most calls in a minute.")]
Tokens = Annotated[int | None, typer.Option(min=1, help="Most tokens in a minute.")]
Models = Annotated[
    list[str] | None, typer.Option("--model", help="It may call this; again for more.")
]
Providers = Annotated[
    list[str] | None, typer.Option("--provider", help="It may call this one's; again for more.")
]
Domains = Annotated[
    list[str] | None, typer.Option("--domain", help="Its calls may be about this; again for more.")
]


@app.command("issue")
def issue(
    name: Name,
    label: Label = "",
    calls_max: CallsMax = None,
    days: Days = None,
    keep_answers: KeepAnswers = False,
    keep_all: KeepAll = False,
    explore: Explore = None,
    scopes: ScopeNames = None,
    requests: Requests = None,
    tokens: Tokens = None,
    models: Models = None,
    providers: Providers = None,
    domains: Domains = None,
    day: Day = None,
    month: Month = None,
    total: Total = None,
    state: State = DEFAULT_STATE,
) -> None:
    """Make a key and print it; it is shown this once. What is not said is not limited."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.core.key_terms import ALL_SCOPES, Allowance, KeyTerms, Rates
    from broker.flows.access.issue_key import issue_key

    lists = [frozenset(each) if each else None for each in (models, providers, domains)]
    terms = KeyTerms(
        label=label,
        calls_max=calls_max,
        content_kept="full" if keep_all else "replay" if keep_answers else "none",
        explore=explore,
        expires_at=None if days is None else now() + timedelta(days=days),
        scopes=_scopes(scopes) if scopes else ALL_SCOPES,
        rates=Rates(requests, tokens) if requests or tokens else None,
        allowance=Allowance(*lists) if any(lists) else None,
    )
    limits = _budgets(day, month, total)

    async def work(engine: AsyncEngine) -> str:
        return (await issue_key(engine, OPERATOR, name, terms, now(), limits)).text

    typer.echo(run_with_engine(StateFolder(state), work))


@app.command("list")
def list_(name: Name, state: State = DEFAULT_STATE) -> None:
    """List an account's keys, with what their budgets have left."""
    from rich.table import Table

    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.access.issue_key import list_keys

    async def work(engine: AsyncEngine) -> Table:
        table = Table(
            "id", "label", "limits", "made (UTC)", "expires (UTC)", "revoked (UTC)", box=None
        )
        for owned in await list_keys(engine, OPERATOR, name, now()):
            key = owned.key
            times = (key.created_at, key.terms.expires_at, key.revoked_at)
            table.add_row(key.id, key.terms.label, _limits(owned), *map(_told, times))
        return table

    print_table(run_with_engine(StateFolder(state), work))


@app.command("rotate")
def rotate(
    key_id: KeyId,
    overlap_s: Annotated[
        int, typer.Option(min=0, help="The present secret works on for so many seconds.")
    ] = 3_600,
    state: State = DEFAULT_STATE,
) -> None:
    """Give a key a new secret and print it; it is shown this once."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.access.change_key import rotate_key

    async def work(engine: AsyncEngine) -> str:
        return (await rotate_key(engine, OPERATOR, key_id, overlap_s, now())).text

    typer.echo(run_with_engine(StateFolder(state), work))


@app.command("budget")
def budget(
    key_id: KeyId,
    day: Day = None,
    month: Month = None,
    total: Total = None,
    state: State = DEFAULT_STATE,
) -> None:
    """Set all budgets of a key; one that is left out is lifted."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.access.change_key import change_key

    limits = _budgets(day, month, total)

    async def work(engine: AsyncEngine) -> str:
        return _limits(await change_key(engine, OPERATOR, key_id, lambda same: same, limits, now()))

    told = run_with_engine(StateFolder(state), work)
    typer.echo(f"{key_id}: {told or 'no limits'}")


@app.command("revoke")
def revoke(key_id: KeyId, state: State = DEFAULT_STATE) -> None:
    """Revoke a key; it opens nothing from then on."""
    from broker.cli.local import OPERATOR, now, run_with_engine
    from broker.flows.access.issue_key import revoke_key

    async def work(engine: AsyncEngine) -> None:
        await revoke_key(engine, OPERATOR, key_id, now())

    run_with_engine(StateFolder(state), work)
    typer.echo(f"{key_id} is revoked.")


def _scopes(names: list[str]) -> frozenset[Any]:
    from broker.core.key_terms import Scope
    from broker.errors import RequestMalformed

    try:
        return frozenset(map(Scope, names))
    except ValueError:
        known = ", ".join(Scope)
        raise RequestMalformed(f"--scope is one of {known}.") from None


def _budgets(day: str | None, month: str | None, total: str | None) -> Budgets:
    from broker.store.books.budgets import Budgets
    from pricing.money import parse_usd_nanos

    return Budgets(
        *(None if each is None else parse_usd_nanos(each) for each in (day, month, total))
    )


def _limits(owned: OwnedKey) -> str:
    """Return in few words what limits a key."""
    from broker.core.key_terms import ALL_SCOPES, NO_ALLOWANCE, NO_RATES
    from pricing.money import format_usd

    terms = owned.key.terms
    rates, allowance = terms.rates or NO_RATES, terms.allowance or NO_ALLOWANCE
    words = [] if terms.scopes == ALL_SCOPES else ["scopes " + " ".join(sorted(terms.scopes))]
    for limit, unit in (
        (terms.calls_max, "at once"),
        (rates.requests_per_minute, "calls/min"),
        (rates.tokens_per_minute, "tokens/min"),
    ):
        words += [] if limit is None else [f"{limit} {unit}"]
    if terms.explore is not None:
        words.append("explores" if terms.explore else "never explores")
    for names in (allowance.models, allowance.providers, allowance.domains):
        words += [] if names is None else [" ".join(sorted(names))]
    for each in owned.budgets:
        if each.limit_nanos is not None:
            used = format_usd(each.spent_nanos + each.held_nanos)
            words.append(f"{used} of {format_usd(each.limit_nanos)} USD/{each.kind}")
    return ", ".join(words)


def _told(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M}" if time else ""
