"""All that the console asks the database, each a plain query over a `console_*` view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.answers.examination import Verdict, judge
from broker.flows.access.authenticate import Caller
from broker.store.access.accounts import Role

_BEFORE = text(
    "SELECT p.* FROM console_endpoints e CROSS JOIN LATERAL ("
    " SELECT * FROM console_prices WHERE endpoint_number = e.number AND at < :since"
    " ORDER BY at DESC, version DESC LIMIT 1) p"
    " WHERE e.retired_at IS NULL AND e.number = ANY(:numbers)"
)
_SINCE = text(
    "SELECT DISTINCT ON (endpoint_number, date_bin(:step, at, :since)) * FROM console_prices"
    " WHERE at >= :since AND endpoint_number = ANY(:numbers)"
    " ORDER BY endpoint_number, date_bin(:step, at, :since), at DESC, version DESC"
)
_CALL = (
    "SELECT id, created_at, account_id, account, key_id, task, model, domain, stream, status, code,"
    " endpoint_number, price_version, hold_nanos, charge_nanos, tokens_in, tokens_out, ttft_ms,"
    " duration_ms, task_label, session_id, labels FROM console_calls"
)
_ONE_CALL = text(f"{_CALL} WHERE id = :id")
_CALLS = text(f"{_CALL} WHERE id = ANY(:ids) ORDER BY id DESC")
_STORIES = text("SELECT id, story FROM console_calls WHERE id = ANY(:ids)")
_CHARGES = text("SELECT * FROM console_charges WHERE call_id = ANY(:ids) ORDER BY call_id, attempt")
_NAMES = text(
    "SELECT number, name, provider_id FROM console_endpoints WHERE number = ANY(:numbers)"
)
_WAITING = text(
    "SELECT * FROM console_deployments WHERE status NOT IN ('listed', 'withdrawn')"
    " AND (:everyone OR provider_id = :account) ORDER BY updated_at DESC LIMIT 50"
)
_EXAMINED = text(
    "SELECT domain, score, scored FROM console_examinations WHERE endpoint_number = :number"
)
_PURSE = text(
    "SELECT kind, posted_nanos, held_nanos FROM console_purses"
    " WHERE account_id = :account OR (:operator AND account_id IS NULL)"
)


@dataclass(frozen=True, slots=True)
class Named:
    """What an endpoint number stands for, also once it is retired."""

    name: str
    provider_id: UUID


async def price_steps(
    connection: AsyncConnection, since: datetime, step: timedelta, numbers: Sequence[int]
) -> list[Row[Any]]:
    """Return the prices in force before `since`, and the last of every `step` since, of these
    endpoints, oldest first."""
    values = {"since": since, "numbers": list(numbers)}
    before = await connection.execute(_BEFORE, values)
    after = await connection.execute(_SINCE, {**values, "step": step})
    return [*before, *after]


async def call(connection: AsyncConnection, call_id: UUID) -> Row[Any] | None:
    """Return one call, whoever it concerns."""
    return (await connection.execute(_ONE_CALL, {"id": call_id})).first()


async def calls(connection: AsyncConnection, ids: Sequence[UUID]) -> list[Row[Any]]:
    """Return these calls, whoever they concern, newest first."""
    return list(await connection.execute(_CALLS, {"ids": list(ids)}))


async def stories(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, bytes]:
    """Return the packed stories of calls."""
    rows = await connection.execute(_STORIES, {"ids": list(ids)})
    return {row.id: row.story for row in rows}


async def charges(connection: AsyncConnection, ids: Sequence[UUID]) -> list[Row[Any]]:
    """Return the charge lines of calls, by call and attempt."""
    return list(await connection.execute(_CHARGES, {"ids": list(ids)}))


async def names(connection: AsyncConnection, numbers: Sequence[int]) -> dict[int, Named]:
    """Return what these endpoint numbers stand for."""
    rows = await connection.execute(_NAMES, {"numbers": list(numbers)})
    return {row.number: Named(row.name, row.provider_id) for row in rows}


async def examined(connection: AsyncConnection, number: int) -> dict[str, Verdict]:
    """Return what the newest examinations of an endpoint say, by domain."""
    rows = await connection.execute(_EXAMINED, {"number": number})
    return {row.domain: judge(row.score, row.scored) for row in rows}


async def waiting(connection: AsyncConnection, caller: Caller) -> list[Row[Any]]:
    """Return deployments that are not on the market yet: a provider's own, for operators all."""
    if caller.role is Role.CONSUMER:
        return []
    values = {"everyone": caller.role is Role.OPERATOR, "account": caller.account_id}
    return list(await connection.execute(_WAITING, values))


async def purse(connection: AsyncConnection, caller: Caller) -> Row[Any] | None:
    """Return the caller's funds or earnings; of an operator, the broker's take."""
    values = {"operator": caller.role is Role.OPERATOR, "account": caller.account_id}
    return (await connection.execute(_PURSE, values)).first()
