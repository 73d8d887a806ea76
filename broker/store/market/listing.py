"""How a deployment comes to the market and leaves it: every change of its row."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.core.catalog import ListingStatus
from broker.core.terms import checked_url
from broker.errors import Conflict, NotFound
from broker.store import changes
from broker.store.market.deployments import (
    DeploymentRecord,
    credential_place,
    opened,
    signing_key_place,
)
from broker.store.sealing import Sealer
from broker.store.tables import accounts, deployments, endpoints
from provider_sdk.protocol import DeploymentOffer, ProbeReport

_NONCE_BYTES: Final = 24
_SIGNING_KEY_BYTES: Final = 32
_TICK: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Saved:
    """A deployment's row after a registration; `signing_key` is for its provider's agent alone."""

    id: UUID
    status: ListingStatus
    nonce: str
    signing_key: bytes
    changed: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """What a provider has on the market."""

    deployments: int
    endpoints: int
    tokenizers_bytes: int


async def count_beside(connection: AsyncConnection, provider_id: UUID, name: str) -> Standing:
    """Return what of a provider stands beside the deployment of this name; the account is locked
    against registering more meanwhile."""
    await connection.execute(
        select(accounts.c.id).where(accounts.c.id == provider_id).with_for_update(key_share=True)
    )
    is_beside = (deployments.c.provider_id == provider_id) & (deployments.c.name != name)
    standing = select(func.count()).where(
        is_beside, deployments.c.status != ListingStatus.WITHDRAWN.value
    )
    # No text is read for its length.
    text_bytes = func.coalesce(func.sum(func.octet_length(endpoints.c.tokenizer_json)), 0)
    offered = (
        select(func.count(), text_bytes, standing.scalar_subquery())
        .select_from(endpoints.join(deployments, endpoints.c.deployment_id == deployments.c.id))
        .where(is_beside, endpoints.c.retired_at.is_(None))
    )
    count, total_bytes, beside = (await connection.execute(offered)).one()
    return Standing(beside, count, int(total_bytes))


async def save(
    connection: AsyncConnection,
    provider_id: UUID,
    offer: DeploymentOffer,
    sealer: Sealer,
    now: datetime,
) -> Saved:
    """Insert or update the row; a changed URL, kind, proof or credential must be proven anew."""
    found = await connection.execute(
        select(deployments).where(
            deployments.c.provider_id == provider_id, deployments.c.name == offer.name
        )
    )
    row = found.one_or_none()
    if row is None:
        return await _insert(connection, provider_id, offer, sealer, now)
    standing = _standing(offer)
    changed = {name for name, value in standing.items() if getattr(row, name) != value}
    if _credential_changed(row, offer, sealer):
        standing["credential_sealed"] = _sealed(row.id, offer, sealer)
        changed.add("credential")
    signing_key = opened(row.signing_key_sealed, signing_key_place(row.id), sealer)
    if signing_key is None:  # sealed with a key that is lost: the agent learns a new one
        signing_key = secrets.token_bytes(_SIGNING_KEY_BYTES)
        standing["signing_key_sealed"] = sealer.seal(signing_key, signing_key_place(row.id))
        changed.add("signing_key")
    if row.status == ListingStatus.WITHDRAWN:
        changed.add("status")
    if changed & {"url", "kind", "proof", "credential", "status"}:
        standing |= _unproven()
    if changed:
        await _update(connection, row, standing, now)
    status = ListingStatus(standing.get("status", row.status))
    return Saved(row.id, status, row.nonce, signing_key, bool(changed))


def _credential_changed(row: Row[Any], offer: DeploymentOffer, sealer: Sealer) -> bool:
    offered = None if offer.credential is None else offer.credential.encode()
    return opened(row.credential_sealed, credential_place(row.id), sealer) != offered


async def _insert(
    connection: AsyncConnection,
    provider_id: UUID,
    offer: DeploymentOffer,
    sealer: Sealer,
    now: datetime,
) -> Saved:
    deployment_id = uuid7()
    nonce = secrets.token_urlsafe(_NONCE_BYTES)
    signing_key = secrets.token_bytes(_SIGNING_KEY_BYTES)
    await connection.execute(
        insert(deployments).values(
            id=deployment_id,
            provider_id=provider_id,
            name=offer.name,
            **_standing(offer),
            nonce=nonce,
            credential_sealed=_sealed(deployment_id, offer, sealer),
            signing_key_sealed=sealer.seal(signing_key, signing_key_place(deployment_id)),
            status=ListingStatus.UNPROVEN.value,
            reports=[],
            created_at=now,
            updated_at=now,
        )
    )
    return Saved(deployment_id, ListingStatus.UNPROVEN, nonce, signing_key, True)


def _standing(offer: DeploymentOffer) -> dict[str, Any]:
    return {
        "url": checked_url(offer),
        "kind": offer.kind,
        "capacity": offer.capacity,
        "region": offer.region,
        "retains_data": offer.data_policy.retains_data,
        "trains_on_data": offer.data_policy.trains_on_data,
        "retention_days": offer.data_policy.retention_days,
        "proof": offer.proof,
    }


def _unproven() -> dict[str, Any]:
    return {"status": ListingStatus.UNPROVEN.value, "reports": [], "approved_by": None}


async def _update(
    connection: AsyncConnection, row: Row[Any], values: dict[str, Any], now: datetime
) -> None:
    # Always later than before, whatever the clocks say: a verdict holds for one `updated_at` only.
    values["updated_at"] = max(now, row.updated_at + _TICK)
    await connection.execute(update(deployments).where(deployments.c.id == row.id).values(**values))


async def doubt(connection: AsyncConnection, deployment_id: UUID, now: datetime) -> None:
    """Send a deployment with a new endpoint back to be verified; an approval stays."""
    row = await _locked(connection, deployments.c.id == deployment_id)
    await _update(connection, row, {"status": ListingStatus.UNPROVEN.value, "reports": []}, now)


async def approve(
    connection: AsyncConnection, deployment_id: UUID, operator: str, now: datetime
) -> None:
    """Keep who approved. Raises NotFound, or Conflict where no approval is awaited."""
    row = await _locked(connection, deployments.c.id == deployment_id)
    awaited = row.proof == "credential" or row.status == ListingStatus.AWAITING_APPROVAL
    if not awaited or row.status == ListingStatus.WITHDRAWN:
        raise Conflict(
            "Only a deployment that rests on its credential, or that could not be checked, awaits "
            "an approval."
        )
    if row.approved_by is None:
        await _update(connection, row, {"approved_by": operator}, now)


async def withdraw(
    connection: AsyncConnection, deployment_id: UUID, provider_id: UUID | None, now: datetime
) -> bool:
    """Take a deployment off the market; return False when it was off. Raises NotFound, with
    `provider_id` for another's too."""
    conditions = [deployments.c.id == deployment_id]
    if provider_id is not None:
        conditions.append(deployments.c.provider_id == provider_id)
    row = await _locked(connection, *conditions)
    if row.status == ListingStatus.WITHDRAWN:
        return False
    await _update(connection, row, {"status": ListingStatus.WITHDRAWN.value}, now)
    await changes.announce(connection, changes.CATALOG)
    return True


async def set_verdict(
    connection: AsyncConnection,
    seen: DeploymentRecord,
    status: ListingStatus,
    reports: Sequence[ProbeReport],
) -> None:
    """Store what verifying `seen` came to. Raises Conflict when its terms changed meanwhile."""
    judged = await connection.execute(
        update(deployments)
        .where(
            deployments.c.id == seen.deployment.id,
            deployments.c.updated_at == seen.updated_at,
            deployments.c.status != ListingStatus.WITHDRAWN.value,
        )
        .values(status=status.value, reports=[_storable(each) for each in reports])
    )
    if judged.rowcount == 0:
        raise Conflict("The deployment was changed while it was being verified; verify it again.")
    await changes.announce(connection, changes.CATALOG)


def _storable(report: ProbeReport) -> Any:
    # What a server answered is quoted in there, and jsonb takes everything but NUL.
    return msgspec.to_builtins(
        msgspec.structs.replace(
            report, detail=report.detail.replace("\0", "\N{REPLACEMENT CHARACTER}")
        )
    )


async def _locked(connection: AsyncConnection, *conditions: ColumnElement[bool]) -> Row[Any]:
    found = await connection.execute(select(deployments).where(*conditions).with_for_update())
    row = found.one_or_none()
    if row is None:
        raise NotFound("There is no such deployment.")
    return row


def _sealed(deployment_id: UUID, offer: DeploymentOffer, sealer: Sealer) -> bytes | None:
    if offer.credential is None:
        return None
    return sealer.seal(offer.credential.encode(), credential_place(deployment_id))
