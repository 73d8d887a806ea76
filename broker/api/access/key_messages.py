"""How keys are asked for and shown: terms, lists, rates, and budgets as decimal strings in USD."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from broker.api.wire import Body, Reply, in_utc
from broker.core.key_terms import (
    ALL_SCOPES,
    NO_ALLOWANCE,
    NO_RATES,
    Allowance,
    ContentKept,
    KeyTerms,
    Rates,
    Scope,
)
from broker.errors import RequestMalformed
from broker.flows.access.change_key import OVERLAP_S_MAX
from broker.flows.access.issue_key import NO_BUDGETS, OwnedKey
from broker.store.books.budgets import BudgetKind, Budgets, BudgetStanding
from pricing.money import MoneyError, format_usd, parse_usd_nanos

Label = Annotated[str, msgspec.Meta(max_length=200)]
CallsMax = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
PerMinute = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]
Names = Annotated[
    list[Annotated[str, msgspec.Meta(min_length=1, max_length=200)]],
    msgspec.Meta(min_length=1, max_length=1_000),
]
Scopes = Annotated[list[Scope], msgspec.Meta(min_length=1)]


class BudgetWanted(Body):
    """What a key may spend in each UTC day, each UTC month and in total; null is no limit."""

    day_usd: str | None = None
    month_usd: str | None = None
    total_usd: str | None = None


class KeyWanted(Body):
    """A key to make. What is left out is not limited; `content_kept` opts in to keeping, `explore`
    says for all its calls whether `auto` may try who may be better than it seems."""

    label: Label = ""
    expires_at: datetime | None = None
    calls_max: CallsMax | None = None
    content_kept: ContentKept = "none"
    explore: bool | None = None
    scopes: Scopes | None = None
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None
    models: Names | None = None
    providers: Names | None = None
    domains: Names | None = None
    budget: BudgetWanted | None = None


class KeyChange(Body):
    """What is to change of a key; what is left out stays, null lifts a limit.

    `budget` replaces all three budgets of the key.
    """

    label: Label | UnsetType = UNSET
    expires_at: datetime | UnsetType | None = UNSET
    calls_max: CallsMax | UnsetType | None = UNSET
    content_kept: ContentKept | UnsetType = UNSET
    explore: bool | UnsetType | None = UNSET
    scopes: Scopes | UnsetType | None = UNSET
    requests_per_minute: PerMinute | UnsetType | None = UNSET
    tokens_per_minute: PerMinute | UnsetType | None = UNSET
    models: Names | UnsetType | None = UNSET
    providers: Names | UnsetType | None = UNSET
    domains: Names | UnsetType | None = UNSET
    budget: BudgetWanted | None = None


class RotationWanted(Body):
    """The present secret works on for so many seconds."""

    overlap_s: Annotated[int, msgspec.Meta(ge=0, le=OVERLAP_S_MAX)] = 3_600


class KeyIssued(Reply):
    """A new key, or one with a new secret; `key` is shown this once and never again."""

    id: str
    key: str


class BudgetShown(Reply):
    """A budget in its present period; what is held belongs to calls under way."""

    kind: BudgetKind
    limit_usd: str | None
    spent_usd: str
    held_usd: str


class KeyShown(Reply):
    """A key without its secret; a former secret opens it as well until `former_until`."""

    id: str
    label: str
    calls_max: int | None
    content_kept: ContentKept
    explore: bool | None
    scopes: list[Scope]
    requests_per_minute: int | None
    tokens_per_minute: int | None
    models: list[str] | None
    providers: list[str] | None
    domains: list[str] | None
    budgets: list[BudgetShown]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    former_until: datetime | None


class KeyList(Reply):
    """An account's keys, newest first, revoked ones too."""

    keys: list[KeyShown]


def terms_of(asked: KeyWanted) -> KeyTerms:
    """Return what a key is to be able to do."""
    return _changed(KeyTerms(), msgspec.structs.asdict(asked))


def changer(asked: KeyChange) -> Callable[[KeyTerms], KeyTerms]:
    """Return what makes a key's new terms of its old ones."""
    told = {
        name: value
        for name, value in msgspec.structs.asdict(asked).items()
        if not isinstance(value, UnsetType)
    }
    return lambda terms: _changed(terms, told)


def budgets_of(asked: BudgetWanted | None) -> Budgets:
    """Return budgets in nano-dollars. Raises RequestMalformed, naming the field."""
    if asked is None:
        return NO_BUDGETS
    return Budgets(
        _nanos("budget.day_usd", asked.day_usd),
        _nanos("budget.month_usd", asked.month_usd),
        _nanos("budget.total_usd", asked.total_usd),
    )


def key_shown(owned: OwnedKey, now: datetime) -> KeyShown:
    """Write down a key."""
    key, terms = owned.key, owned.key.terms
    rates, allowance = terms.rates or NO_RATES, terms.allowance or NO_ALLOWANCE
    overlaps = key.former_until is not None and now < key.former_until
    return KeyShown(
        id=key.id,
        label=terms.label,
        calls_max=terms.calls_max,
        content_kept=terms.content_kept,
        explore=terms.explore,
        scopes=sorted(terms.scopes),
        requests_per_minute=rates.requests_per_minute,
        tokens_per_minute=rates.tokens_per_minute,
        models=_list(allowance.models),
        providers=_list(allowance.providers),
        domains=_list(allowance.domains),
        budgets=[_budget(each) for each in owned.budgets],
        created_at=key.created_at,
        expires_at=terms.expires_at,
        revoked_at=key.revoked_at,
        former_until=key.former_until if overlaps else None,
    )


def _changed(terms: KeyTerms, told: dict[str, Any]) -> KeyTerms:
    plain = ("label", "calls_max", "content_kept", "explore")
    own: dict[str, Any] = {each: told[each] for each in plain if each in told}
    if "expires_at" in told:
        own["expires_at"] = in_utc(told["expires_at"])
    if "scopes" in told:
        own["scopes"] = ALL_SCOPES if told["scopes"] is None else frozenset(told["scopes"])
    rates = {each: told[each] for each in Rates.__struct_fields__ if each in told}
    limits = msgspec.structs.replace(terms.rates or NO_RATES, **rates)
    lists = {
        each: None if told[each] is None else frozenset(told[each])
        for each in Allowance.__struct_fields__
        if each in told
    }
    allowance = msgspec.structs.replace(terms.allowance or NO_ALLOWANCE, **lists)
    return replace(
        terms,
        **own,
        rates=None if limits == NO_RATES else limits,
        allowance=None if allowance == NO_ALLOWANCE else allowance,
    )


def _nanos(field: str, amount_usd: str | None) -> int | None:
    if amount_usd is None:
        return None
    try:
        return parse_usd_nanos(amount_usd)
    except MoneyError as error:
        raise RequestMalformed(
            f"{field}: {error}.", code="amount_invalid", facts={"field": field}
        ) from None


def _list(names: frozenset[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


def _budget(standing: BudgetStanding) -> BudgetShown:
    limit = standing.limit_nanos
    return BudgetShown(
        kind=standing.kind,
        limit_usd=None if limit is None else format_usd(limit),
        spent_usd=format_usd(standing.spent_nanos),
        held_usd=format_usd(standing.held_nanos),
    )
