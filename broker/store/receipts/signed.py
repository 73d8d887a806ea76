"""Receipts as they were signed: written once for each attempt of a call, and never changed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, insert, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.money.receipts import Said
from broker.store.receipts.receipt_keys import receipt_keys
from broker.store.tables import deployments, table
from provider_sdk.protocol import Receipt

receipts = table(
    "receipts",
    """
    call_id uuid, attempt smallint, deployment_id uuid, call_at timestamptz, key_id text,
    sequence bigint, model text, status smallint, whole boolean, tokens_in bigint,
    tokens_out bigint, bytes_in bigint, bytes_out bigint, started_at timestamptz,
    first_byte_at timestamptz, ended_at timestamptz, received_at timestamptz,
    receipt_json text, signature bytea
    """,
)

Place = tuple[UUID, int, UUID]
"""Call, attempt and deployment: of each there is one receipt."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ARRIVALS: Final = 0x72656365  # any number that nothing else locks on


@dataclass(frozen=True, slots=True)
class KeptReceipt:
    """A receipt that was found good, its exact text and its signature."""

    call_id: UUID
    deployment_id: UUID
    key_id: str
    receipt: Receipt
    receipt_json: str
    signature: bytes
    received_at: datetime

    @property
    def place(self) -> Place:
        """What there is one receipt of."""
        return self.call_id, self.receipt.attempt, self.deployment_id


@dataclass(frozen=True, slots=True)
class SignedReceiptRow:
    """A receipt with all that proves it to anybody; `deployment` is the deployment's name."""

    deployment: str
    attempt: int
    received_at: datetime
    receipt_json: str
    signature: bytes
    key_id: str
    public_key: bytes


def time_of(call_id: UUID) -> datetime:
    """Return the time in the id of a call, a UUIDv7, to the millisecond."""
    return at_ms(call_id.int >> 80)


def at_ms(unix_ms: int) -> datetime:
    """Return the moment of a Unix time in ms."""
    return _EPOCH + timedelta(milliseconds=unix_ms)


async def announce(connection: AsyncConnection) -> None:
    """Say that receipts are being written, before `receipt_horizon` is read.

    Whoever moves the horizon on (`exclude`) waits until they have been committed.
    """
    await connection.execute(text("SELECT pg_advisory_xact_lock_shared(:n)"), {"n": _ARRIVALS})


async def exclude(connection: AsyncConnection) -> None:
    """Wait for all receipts that are being written, and let none begin."""
    await connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": _ARRIVALS})


async def insert_receipts(connection: AsyncConnection, kept: Sequence[KeptReceipt]) -> None:
    """Write receipts that are not there yet."""
    if kept:
        await connection.execute(insert(receipts), [_values(each) for each in kept])


async def texts_at(
    connection: AsyncConnection, places: Collection[Place], since: datetime
) -> dict[Place, str]:
    """Return the texts of those receipts that there are, of calls since then."""
    columns = (receipts.c.call_id, receipts.c.attempt, receipts.c.deployment_id)
    query = select(*columns, receipts.c.receipt_json).where(
        tuple_(*columns).in_(list(places)), receipts.c.call_at >= since
    )
    rows = await connection.execute(query)
    return {(row.call_id, row.attempt, row.deployment_id): row.receipt_json for row in rows}


async def numbers_taken(
    connection: AsyncConnection, numbers: Collection[tuple[UUID, int]], since: datetime
) -> dict[tuple[UUID, int], Place]:
    """Return whose the sequence numbers (deployment, number) are, of receipts of calls since."""
    of = receipts.c
    query = select(of.deployment_id, of.sequence, of.call_id, of.attempt).where(
        tuple_(of.deployment_id, of.sequence).in_(list(numbers)), of.call_at >= since
    )
    return {
        (row.deployment_id, row.sequence): (row.call_id, row.attempt, row.deployment_id)
        for row in await connection.execute(query)
    }


async def of_calls(
    connection: AsyncConnection, call_ids: Collection[UUID], since: datetime
) -> dict[UUID, list[Said]]:
    """Return what the receipts of these calls, none older than `since`, say."""
    query = select(receipts).where(
        receipts.c.call_id.in_(list(call_ids)), receipts.c.call_at >= since
    )
    said: dict[UUID, list[Said]] = {}
    for row in await connection.execute(query):
        said.setdefault(row.call_id, []).append(_said(row))
    return said


async def signed_of_call(
    connection: AsyncConnection, call_id: UUID, provider_id: UUID | None
) -> list[SignedReceiptRow]:
    """Return a call's receipts by attempt; with `provider_id`, those of its deployments."""
    of = receipts.c
    query = (
        select(
            deployments.c.name.label("deployment"),
            *(of.attempt, of.received_at, of.receipt_json, of.signature, of.key_id),
            receipt_keys.c.public_key,
        )
        .join(deployments, deployments.c.id == of.deployment_id)
        .join(receipt_keys, receipt_keys.c.id == of.key_id)
        .where(of.call_id == call_id)
        .order_by(of.attempt)
    )
    if provider_id is not None:
        query = query.where(deployments.c.provider_id == provider_id)
    rows = (await connection.execute(query)).mappings()
    return [SignedReceiptRow(**row) for row in rows]


def _said(row: Row[Any]) -> Said:
    return Said(
        place=(row.attempt, row.deployment_id),
        status=row.status,
        whole=row.whole,
        tokens_in=row.tokens_in,
        tokens_out=row.tokens_out,
        bytes_out=row.bytes_out,
        started_at=row.started_at,
        first_byte_at=row.first_byte_at,
        ended_at=row.ended_at,
    )


def _values(kept: KeptReceipt) -> dict[str, object]:
    receipt = kept.receipt
    names = ("attempt", "sequence", "model", "status", "whole")
    counts = ("tokens_in", "tokens_out", "bytes_in", "bytes_out")
    first_ms = receipt.first_byte_at_ms
    return {name: getattr(receipt, name) for name in (*names, *counts)} | {
        "call_id": kept.call_id,
        "deployment_id": kept.deployment_id,
        "call_at": time_of(kept.call_id),
        "key_id": kept.key_id,
        "started_at": at_ms(receipt.started_at_ms),
        "first_byte_at": None if first_ms is None else at_ms(first_ms),
        "ended_at": at_ms(receipt.ended_at_ms),
        "received_at": kept.received_at,
        "receipt_json": kept.receipt_json,
        "signature": kept.signature,
    }
