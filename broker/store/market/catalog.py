"""The catalog as a whole: a provider's offer goes in, what the market lists comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.catalog import Deployment, Endpoint, Kind, ListingStatus
from broker.core.terms import Terms, band_of, check_deployment, factors_of, make_of, refuse
from broker.errors import NotFound
from broker.store import changes
from broker.store.access.accounts import ids_by_name
from broker.store.market import listing, offers
from broker.store.market.deployments import DeploymentRecord, Same, deployment_of, open_credential
from broker.store.sealing import Sealer, SecretUnreadable
from broker.store.tables import accounts, among, deployments
from broker.store.turns import in_turns
from provider_sdk.protocol import DeploymentOffer, EndpointOffer

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Registration:
    """Where a deployment stands after its provider registered it (again)."""

    deployment_id: UUID
    status: ListingStatus
    nonce: str
    signing_key: bytes
    changed: bool
    """False when the offer said nothing new."""


async def register(
    connection: AsyncConnection,
    provider_id: UUID,
    offer: DeploymentOffer,
    sealer: Sealer,
    terms: tuple[int, datetime],
) -> Registration:
    """Make the catalog say what the offer says; `terms` are the take in basis points, and now.

    The same name is the same deployment: it keeps its nonce and signing key, and what did not
    change stays untouched. Raises RequestMalformed with the name of the field, and NotFound for an
    account that was closed meanwhile.
    """
    take_bps, now = terms
    check_deployment(offer)
    # One registration of a provider at a time; FOR NO KEY UPDATE leaves foreign keys alone.
    is_open = (accounts.c.id == provider_id) & accounts.c.closed_at.is_(None)
    if not await connection.scalar(
        select(accounts.c.id).where(is_open).with_for_update(key_share=True)
    ):
        raise NotFound("There is no such open account.")
    wanted = await _wanted(connection, offer, take_bps)
    saved = await listing.save(connection, provider_id, offer, sealer, now)
    replaced = await offers.replace(connection, (saved.id, provider_id), wanted, now)
    status = saved.status
    if replaced.added and status is not ListingStatus.UNPROVEN:
        await listing.doubt(connection, saved.id, now)
        status = ListingStatus.UNPROVEN
    changed = saved.changed or replaced.changed
    if changed:
        await changes.announce(connection, changes.CATALOG)
    return Registration(saved.id, status, saved.nonce, saved.signing_key, changed)


async def withdraw(
    connection: AsyncConnection, provider_id: UUID | None, deployment_id: UUID, now: datetime
) -> bool:
    """Take a deployment off the market, None: whosever; False when it was off already.

    Raises NotFound.
    """
    withdrawn = await listing.withdraw(connection, deployment_id, provider_id, now)
    if withdrawn:
        await offers.retire_all(connection, deployment_id, now)
    return withdrawn


async def load_market(
    connection: AsyncConnection, sealer: Sealer
) -> tuple[list[Deployment], list[Endpoint]]:
    """Return all that is listed, each by number; what has an unreadable credential is left out."""
    listed = await _deployments(connection, _is_listed(), sealer, {})
    return listed, await offers.load(connection, {each.id: each for each in listed})


async def load_deployments(
    connection: AsyncConnection, numbers: Sequence[int], sealer: Sealer, same: Same
) -> list[Deployment]:
    """Return those of `numbers` that are listed, as `load_market` does; parts that equal what is in
    `same` are that very object, and new ones are added to it."""
    wanted = and_(_is_listed(), among(deployments.c.number, numbers))
    return await _deployments(connection, wanted, sealer, same)


def _is_listed() -> ColumnElement[bool]:
    return and_(deployments.c.status == ListingStatus.LISTED.value, accounts.c.closed_at.is_(None))


async def _deployments(
    connection: AsyncConnection, wanted: ColumnElement[bool], sealer: Sealer, same: Same
) -> list[Deployment]:
    query = (
        select(deployments, accounts.c.name.label("provider"))
        .join(accounts, accounts.c.id == deployments.c.provider_id)
        .where(wanted)
        .order_by(deployments.c.number)
    )
    listed: list[Deployment] = []
    for row in await connection.execute(query):
        try:
            credential = open_credential(row, sealer)
        except SecretUnreadable as error:
            _log.error("a deployment is left out", reason=error.detail)
            continue
        listed.append(deployment_of(row, row.provider, credential, same))
    return listed


async def endpoints_of(connection: AsyncConnection, record: DeploymentRecord) -> list[Endpoint]:
    """Return the endpoints in force on one deployment, listed or not."""
    return await offers.load(connection, {record.deployment.id: record.deployment})


async def _wanted(
    connection: AsyncConnection, offer: DeploymentOffer, take_bps: int
) -> list[offers.Wanted]:
    names = {name for each in offer.endpoints for name in each.visible_to or ()}
    known = await ids_by_name(connection, names) if names else {}
    wanted: list[offers.Wanted] = []
    async for each in in_turns(offer.endpoints):
        place = len(wanted)
        field = f"endpoints[{place}]"
        terms = Terms(
            domains=dict(each.domains),
            quality=each.quality,
            visible_to=_visible_to(each, known, field),
            take_bps=take_bps,
            band=band_of(each.price, f"{field}.price"),
            promised_ttft_ms=each.promised_ttft_ms,
            promised_latency_ms=each.promised_latency_ms,
            tiers=factors_of(each.tiers, f"{field}.tiers"),
        )
        make = make_of(each, Kind(offer.kind), field)
        wanted.append(offers.Wanted(field, each.name, make, terms))
    return wanted


def _visible_to(
    offer: EndpointOffer, known: dict[str, UUID], field: str
) -> tuple[UUID, ...] | None:
    if offer.visible_to is None:
        return None
    for name in offer.visible_to:
        if name not in known:
            raise refuse(f"{field}.visible_to", f"there is no account named '{name}'.")
    return tuple(sorted({known[name] for name in offer.visible_to}))
