"""Deployments as they stand: a provider's servers, and the secrets sealed in their rows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
import structlog
from sqlalchemy import ColumnElement, Row, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.catalog import Deployment, Kind, ListingStatus
from broker.errors import NotFound
from broker.store.market.stamps import Stamps, read_stamps, stamps_by
from broker.store.sealing import Sealer, SecretUnreadable
from broker.store.tables import accounts, deployments
from provider_sdk.protocol import ProbeReport

Proof = Literal["well-known", "dns", "credential"]
ROWS_AT_ONCE: Final = 500
"""A few milliseconds of the processor; of a market there are thousands."""
Same = dict[Any, Any]
"""Values by themselves: what equals one of them need not be kept twice. Numbers, of which those of
different types may be equal, with what they are numbers of."""

_SIGNING: Final = f"""
SELECT {stamps_by("number", "ctid", "xmin")}
  FROM deployments WHERE status <> '{ListingStatus.WITHDRAWN.value}'
"""  # noqa: S608 - of constants

_log = structlog.get_logger(__name__)
_ADVICE: Final = (
    "BROKER_SECRET_KEY and BROKER_SECRET_KEYS_OLD must be the same for every broker, worker and"
    " command: agents that meet brokers of different keys register again and again"
)


@dataclass(frozen=True, slots=True)
class DeploymentRecord:
    """A deployment and what its status rests on; its terms last changed at `updated_at`."""

    deployment: Deployment
    proof: Proof
    nonce: str
    reports: tuple[ProbeReport, ...]
    approved_by: str | None
    created_at: datetime
    updated_at: datetime


async def find(
    connection: AsyncConnection,
    deployment_id: UUID,
    sealer: Sealer,
    *,
    provider_id: UUID | None = None,
) -> DeploymentRecord:
    """Return a deployment. With `provider_id`, another's is NotFound. Raises SecretUnreadable."""
    conditions = [deployments.c.id == deployment_id]
    if provider_id is not None:
        conditions.append(deployments.c.provider_id == provider_id)
    row = (await connection.execute(_select(*conditions))).one_or_none()
    if row is None:
        raise NotFound("There is no such deployment.")
    return _record(row, open_credential(row, sealer))


async def list_deployments(
    connection: AsyncConnection, *, provider_id: UUID | None = None
) -> list[DeploymentRecord]:
    """Return deployments, oldest first, of one provider or of all, without their credentials."""
    conditions = [] if provider_id is None else [deployments.c.provider_id == provider_id]
    query = _select(*conditions).order_by(deployments.c.number)
    found: list[DeploymentRecord] = []
    async with connection.stream(query, execution_options={"yield_per": ROWS_AT_ONCE}) as rows:
        async for part in rows.partitions():
            found += [_record(row, None) for row in part]
    return found


async def signing_stamps(connection: AsyncConnection) -> Stamps:
    """Return what stands for the deployments that are not withdrawn, and for their keys."""
    return await read_stamps(connection, _SIGNING)


async def load_signing_keys(
    connection: AsyncConnection, sealer: Sealer, which: Collection[UUID] | Collection[int]
) -> dict[UUID, bytes | None]:
    """Return the keys of the deployments with these ids or numbers: None of those withdrawn, and of
    unreadable ones, which are logged."""
    row_of, withdrawn = deployments.c, ListingStatus.WITHDRAWN.value
    by_number = all(isinstance(each, int) for each in which)
    query = select(row_of.id, row_of.signing_key_sealed, row_of.status).where(
        (row_of.number if by_number else row_of.id).in_(which)
    )
    return {
        row.id: None
        if row.status == withdrawn
        else opened(row.signing_key_sealed, signing_key_place(row.id), sealer)
        for row in await connection.execute(query)
    }


def open_credential(row: Row[Any], sealer: Sealer) -> str | None:
    """Return the upstream credential of a deployment's row. Raises SecretUnreadable."""
    if row.credential_sealed is None:
        return None
    return sealer.open(row.credential_sealed, credential_place(row.id)).decode()


def deployment_of(
    row: Row[Any], provider: str, credential: str | None, same: Same | None = None
) -> Deployment:
    """Return the value of a deployment's row, of parts that are in `same` where they equal."""
    one = same.setdefault if same is not None else _as_it_is
    return Deployment(
        id=row.id,
        number=row.number,
        provider_id=one(row.provider_id, row.provider_id),
        provider=one(provider, provider),
        name=row.name,
        url=one(row.url, row.url),
        kind=Kind(row.kind),
        capacity=one(("capacity", row.capacity), row.capacity),
        region=one(row.region, row.region),
        retains_data=row.retains_data,
        trains_on_data=row.trains_on_data,
        retention_days=row.retention_days,
        credential=credential,
        status=ListingStatus(row.status),
    )


def _as_it_is(_: Any, value: Any) -> Any:
    return value


def _record(row: Row[Any], credential: str | None) -> DeploymentRecord:
    return DeploymentRecord(
        deployment=deployment_of(row, row.provider, credential),
        proof=row.proof,
        nonce=row.nonce,
        reports=tuple(msgspec.convert(row.reports, list[ProbeReport])),
        approved_by=row.approved_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _select(*conditions: ColumnElement[bool]) -> Select[Any]:
    return (
        select(deployments, accounts.c.name.label("provider"))
        .join(accounts, accounts.c.id == deployments.c.provider_id)
        .where(*conditions)
    )


def opened(sealed: bytes | None, bound_to: str, sealer: Sealer) -> bytes | None:
    """Return a secret, None when there is none or it cannot be opened, which is logged once."""
    if sealed is None:
        return None
    try:
        return sealer.open(sealed, bound_to)
    except SecretUnreadable as error:
        if bound_to not in sealer.told:
            sealer.told.add(bound_to)
            _log.error("secret_not_opened", reason=error.detail, advice=_ADVICE)
        return None


def credential_place(deployment_id: UUID) -> str:
    """Return what the upstream credential of a deployment is sealed to."""
    return f"deployments/{deployment_id}/credential"


def signing_key_place(deployment_id: UUID) -> str:
    """Return what the signing key of a deployment is sealed to."""
    return f"deployments/{deployment_id}/signing_key"
