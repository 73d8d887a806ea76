"""Endpoints and their standing terms: what a provider offers now, and what it offered before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Update,
    Uuid,
    and_,
    any_,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.core.catalog import Band, Deployment, Endpoint, Task
from broker.core.terms import Make, Terms, refuse
from broker.store.access.accounts import LEDGER_KINDS, Role
from broker.store.market.deployments import Same
from broker.store.market.signatures import signature_of, signatures
from broker.store.tables import (
    accounts,
    among,
    deployments,
    endpoints,
    ledger_accounts,
    offers,
)
from broker.store.turns import in_turns
from pricing.tiers import Factors, Tier

_TICK: Final = timedelta(microseconds=1)
_BAND_FIELDS: Final = tuple(field.name for field in fields(Band))


@dataclass(frozen=True, slots=True)
class Wanted:
    """An endpoint as a checked offer describes it; `field` is its place in the offer."""

    field: str
    name: str
    make: Make
    terms: Terms


@dataclass(frozen=True, slots=True)
class Replaced:
    """What bringing the endpoints in line with an offer came to."""

    changed: bool
    added: bool
    """There is an endpoint that nobody has probed yet."""


async def replace(
    connection: AsyncConnection,
    deployment: tuple[UUID, UUID],
    wanted: Sequence[Wanted],
    now: datetime,
) -> Replaced:
    """Make a deployment's endpoints what is wanted; `deployment` is its id and its provider's.

    Raises RequestMalformed when another deployment of the provider has an endpoint of that name.
    """
    await _refuse_taken_names(connection, deployment, wanted)
    rows = await connection.execute(_in_force(endpoints.c.deployment_id == deployment[0]))
    standing = {row.name: row for row in rows}
    kept = {each.name for each in wanted if _is_same(standing.get(each.name), each.make)}
    gone = [row.id for name, row in standing.items() if name not in kept]
    await _retire(connection, gone, now)
    changed = added = False
    async for each in in_turns(wanted):
        if each.name in kept:
            changed |= await _renew(connection, standing[each.name], each.terms, now)
        else:
            await _add(connection, deployment, each, now)
            added = True
    return Replaced(changed=changed or added or bool(gone), added=added)


async def retire_all(connection: AsyncConnection, deployment_id: UUID, now: datetime) -> None:
    """Retire every endpoint of a deployment, so that their names are free."""
    rows = await connection.execute(
        select(endpoints.c.id).where(
            endpoints.c.deployment_id == deployment_id, endpoints.c.retired_at.is_(None)
        )
    )
    await _retire(connection, [row.id for row in rows], now)


async def load(connection: AsyncConnection, servers: Mapping[UUID, Deployment]) -> list[Endpoint]:
    """Return the endpoints in force on these deployments, by number."""
    ids = literal(list(servers), ARRAY(Uuid))
    query = _in_force(endpoints.c.deployment_id == any_(ids))
    rows = await connection.execute(query.order_by(endpoints.c.number))
    same: Same = {}
    return [_endpoint(row, servers[row.deployment_id], same) for row in rows]


async def load_numbers(
    connection: AsyncConnection,
    numbers: Sequence[int],
    servers: Mapping[int, Deployment],
    same: Same,
) -> list[Endpoint]:
    """Return those of `numbers` that are in force on these deployments, which are by number; parts
    that equal what is in `same` are that very object, and new ones are added to it."""
    query = (
        _in_force(among(endpoints.c.number, numbers))
        .join(deployments, deployments.c.id == endpoints.c.deployment_id)
        .add_columns(deployments.c.number.label("server"))
    )
    rows = await connection.execute(query)
    return [_endpoint(row, servers[row.server], same) for row in rows if row.server in servers]


async def _refuse_taken_names(
    connection: AsyncConnection, deployment: tuple[UUID, UUID], wanted: Sequence[Wanted]
) -> None:
    deployment_id, provider_id = deployment
    places = {each.name: each.field for each in wanted}
    taken = await connection.execute(
        select(endpoints.c.name).where(
            endpoints.c.provider_id == provider_id,
            endpoints.c.deployment_id != deployment_id,
            endpoints.c.retired_at.is_(None),
            endpoints.c.name.in_(list(places)),
        )
    )
    for name in taken.scalars():
        raise refuse(f"{places[name]}.name", f"'{name}' is on another of your deployments.")


async def _retire(connection: AsyncConnection, ids: Sequence[UUID], now: datetime) -> None:
    if not ids:
        return
    await connection.execute(
        update(endpoints).where(endpoints.c.id.in_(ids)).values(retired_at=now)
    )
    await connection.execute(_ending(offers.c.endpoint_id.in_(ids), now))


def _ending(condition: ColumnElement[bool], now: datetime) -> Update:
    return (
        update(offers)
        .where(condition, offers.c.valid_to.is_(None))
        .values(valid_to=func.greatest(now, offers.c.valid_from))
    )


async def _add(
    connection: AsyncConnection, deployment: tuple[UUID, UUID], wanted: Wanted, now: datetime
) -> None:
    endpoint_id = uuid7()
    make = asdict(wanted.make) | {"tasks": [task.value for task in wanted.make.tasks]}
    retired = await _take_back(connection, deployment[0], {"name": wanted.name, **make})
    if retired is not None:
        former_id, ended_at = retired
        await _offer(connection, former_id, wanted.terms, max(now, ended_at))
        return
    await connection.execute(
        insert(endpoints).values(
            id=endpoint_id,
            deployment_id=deployment[0],
            provider_id=deployment[1],
            name=wanted.name,
            created_at=now,
            **make,
        )
    )
    await _offer(connection, endpoint_id, wanted.terms, now)


async def _take_back(
    connection: AsyncConnection, deployment_id: UUID, is_: Mapping[str, Any]
) -> tuple[UUID, datetime] | None:
    """Put the newest endpoint of the deployment that was just this back in force; return its id,
    and when its next offer may begin. None: there was none.

    What is the same is the same endpoint: what it has shown to be worth stays with it, and nobody
    loses that, or is rid of it, by leaving the market and coming back.
    """
    same = [endpoints.c[name].is_not_distinct_from(value) for name, value in is_.items()]
    begins = func.greatest(func.max(offers.c.valid_to), func.max(offers.c.valid_from) + _TICK)
    query = (
        select(endpoints.c.id, begins)
        .join(offers, offers.c.endpoint_id == endpoints.c.id)
        .where(endpoints.c.deployment_id == deployment_id, *same)
        .where(endpoints.c.retired_at.is_not(None))
        .group_by(endpoints.c.id, endpoints.c.number)
        .order_by(endpoints.c.number.desc())
        .limit(1)
    )
    found = (await connection.execute(query)).one_or_none()
    if found is None:
        return None
    endpoint_id, ended_at = found
    of_it = endpoints.c.id == endpoint_id
    await connection.execute(update(endpoints).where(of_it).values(retired_at=None))
    return endpoint_id, ended_at


async def _renew(connection: AsyncConnection, row: Row[Any], terms: Terms, now: datetime) -> bool:
    if _terms(row) == terms:
        return False
    # The clocks of two processes may differ, but one offer's end is the next one's beginning.
    begins = max(now, row.valid_from + _TICK)
    await connection.execute(_ending(offers.c.endpoint_id == row.id, begins))
    await _offer(connection, row.id, terms, begins)
    return True


async def _offer(
    connection: AsyncConnection, endpoint_id: UUID, terms: Terms, begins: datetime
) -> None:
    await connection.execute(
        insert(offers).values(
            endpoint_id=endpoint_id,
            valid_from=begins,
            domains=terms.domains,
            quality=terms.quality,
            visible_to=None if terms.visible_to is None else list(terms.visible_to),
            take_bps=terms.take_bps,
            promised_ttft_ms=terms.promised_ttft_ms,
            promised_latency_ms=terms.promised_latency_ms,
            tiers={tier.value: bps for tier, bps in terms.tiers.items()} or None,
            **asdict(terms.band),
        )
    )


def _in_force(condition: ColumnElement[bool]) -> Select[Any]:
    earnings = and_(
        ledger_accounts.c.owner_id == endpoints.c.provider_id,
        ledger_accounts.c.kind == LEDGER_KINDS[Role.PROVIDER],
        ledger_accounts.c.shard == 0,
    )
    return (
        select(
            *endpoints.c,
            *(column for column in offers.c if column.name != "endpoint_id"),
            accounts.c.name.label("provider"),
            ledger_accounts.c.id.label("ledger_account"),
            signatures.c.signature,
        )
        .select_from(endpoints)
        .join(offers, and_(offers.c.endpoint_id == endpoints.c.id, offers.c.valid_to.is_(None)))
        .join(accounts, accounts.c.id == endpoints.c.provider_id)
        .join(ledger_accounts, earnings)
        .outerjoin(signatures, signatures.c.endpoint_id == endpoints.c.id)
        .where(condition, endpoints.c.retired_at.is_(None))
    )


def _is_same(row: Row[Any] | None, make: Make) -> bool:
    if row is None:
        return False
    same = all(
        getattr(row, field.name) == getattr(make, field.name)
        for field in fields(Make)
        if field.name != "tasks"
    )
    return same and sorted(row.tasks) == [task.value for task in make.tasks]


def _terms(row: Row[Any]) -> Terms:
    return Terms(
        domains=row.domains,
        quality=row.quality,
        visible_to=None if row.visible_to is None else tuple(row.visible_to),
        take_bps=row.take_bps,
        band=_band(row),
        promised_ttft_ms=row.promised_ttft_ms,
        promised_latency_ms=row.promised_latency_ms,
        tiers=_tiers(row),
    )


def _tiers(row: Row[Any]) -> Factors:
    return {Tier(name): bps for name, bps in (row.tiers or {}).items()}


def _band(row: Row[Any]) -> Band:
    return Band(**{name: getattr(row, name) for name in _BAND_FIELDS})


def _endpoint(row: Row[Any], deployment: Deployment, same: Same) -> Endpoint:
    """Return the value of a row. Of ten thousand endpoints most are alike in most of their terms,
    which take a quarter of the memory when they are kept once."""
    one = same.setdefault
    tasks, visible = frozenset(map(Task, row.tasks)), row.visible_to
    band, tiers, context = _band(row), _tiers(row), row.context_length_tokens
    signature = signature_of(row.signature)
    return Endpoint(
        id=row.id,
        number=row.number,
        deployment=deployment,
        name=f"{row.provider}/{row.name}",
        model=one(row.model, row.model),
        version=one(row.version, row.version),
        upstream_model=one(row.upstream_model, row.upstream_model),
        tasks=one(tasks, tasks),
        domains=one(("domains", *row.domains.items()), row.domains),
        quality=one(("quality", row.quality), row.quality),
        context_length_tokens=one(("tokens", context), context),
        max_output_tokens=one(("tokens", row.max_output_tokens), row.max_output_tokens),
        tokenizer_json=one(row.tokenizer_json, row.tokenizer_json),
        visible_to=None if visible is None else frozenset(visible),
        band=one(band, band),
        ledger_account=one(row.ledger_account, row.ledger_account),
        take_bps=one(("bps", row.take_bps), row.take_bps),
        take_bps_by_domain=one(("takes",), {}),
        tiers=one(("tiers", *tiers.items()), tiers),
        signature=one(signature, signature),
    )
