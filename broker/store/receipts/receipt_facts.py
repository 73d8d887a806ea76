"""Collects what is known of calls that have ended, for their comparison with the receipts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.money.receipts import Billed, ComparedCall, Place, Said
from broker.core.story import decode
from broker.store.receipts import receipt_keys, signed
from broker.store.receipts.receipt_horizon import MARGIN
from broker.store.receipts.receipt_keys import PublicKey
from broker.store.receipts.signed import time_of
from broker.store.tables import calls, endpoints, settlement_lines, settlements


async def load(connection: AsyncConnection, call_ids: Sequence[UUID]) -> list[ComparedCall]:
    """Return all that is known of these calls."""
    if not call_ids:
        return []
    since = time_of(min(call_ids)) - MARGIN
    billed = await _billed(connection, call_ids, since)
    said = await signed.of_calls(connection, call_ids, since)
    settled = await _settled(connection, call_ids, since)
    keys = await receipt_keys.of_deployments(
        connection, {line.place[1] for lines in billed.values() for line in lines}
    )
    unbilled = [each for each in said if _is_unbilled(said[each], billed.get(each, []))]
    tried = await _tried(connection, unbilled, since)
    return [
        ComparedCall(
            id=call_id,
            begun_at=time_of(call_id),
            settled_at=settled.get(call_id),
            tried=tried.get(call_id),
            billed=tuple(billed.get(call_id, ())),
            said=tuple(said.get(call_id, ())),
            promised=_promised(keys, time_of(call_id)),
        )
        for call_id in call_ids
    ]


def _is_unbilled(said: Sequence[Said], billed: Sequence[Billed]) -> bool:
    lines = {line.place for line in billed}
    return any(each.place not in lines for each in said)


def _promised(keys: Sequence[PublicKey], at: datetime) -> frozenset[UUID]:
    return frozenset(
        key.deployment_id
        for key in keys
        if key.registered_at <= at and (key.retired_at is None or at < key.retired_at)
    )


async def _billed(
    connection: AsyncConnection, call_ids: Sequence[UUID], since: datetime
) -> dict[UUID, list[Billed]]:
    of = settlement_lines.c
    query = (
        select(settlement_lines, endpoints.c.deployment_id)
        .join(endpoints, endpoints.c.id == of.endpoint_id)
        .where(of.call_id.in_(call_ids), of.settled_at >= since)
        .order_by(of.call_id, of.attempt)
    )
    found: dict[UUID, list[Billed]] = {}
    for row in await connection.execute(query):
        place = (row.attempt, row.deployment_id)
        line = Billed(place, row.tokens_in, row.tokens_out, row.charge_nanos)
        found.setdefault(row.call_id, []).append(line)
    return found


async def _settled(
    connection: AsyncConnection, call_ids: Sequence[UUID], since: datetime
) -> dict[UUID, datetime]:
    query = select(settlements.c.call_id, settlements.c.settled_at).where(
        settlements.c.call_id.in_(call_ids), settlements.c.settled_at >= since
    )
    return {row.call_id: row.settled_at for row in await connection.execute(query)}


async def _tried(
    connection: AsyncConnection, call_ids: Sequence[UUID], since: datetime
) -> Mapping[UUID, Mapping[Place, str]]:
    """How each attempt came out, of those calls that have a record."""
    query = select(calls.c.id, calls.c.story).where(
        calls.c.id.in_(call_ids), calls.c.created_at >= since
    )
    stories = {row.id: decode(row.story).attempts for row in await connection.execute(query)}
    numbers = {each["endpoint_number"] for attempts in stories.values() for each in attempts}
    homes = await _deployments_of(connection, numbers)
    return {
        call_id: {
            (place, homes[each["endpoint_number"]]): str(each["outcome"])
            for place, each in enumerate(attempts)
        }
        for call_id, attempts in stories.items()
    }


async def _deployments_of(
    connection: AsyncConnection, numbers: Collection[int]
) -> Mapping[int, UUID]:
    query = select(endpoints.c.number, endpoints.c.deployment_id)
    rows = await connection.execute(query.where(endpoints.c.number.in_(sorted(numbers))))
    return {row.number: row.deployment_id for row in rows}
