"""The call log as it is read: calls with their stories, and what was charged for each attempt."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.store.tables import accounts, calls, endpoints, settlement_lines
from pricing.book import Rate


@dataclass(frozen=True, slots=True)
class LoggedCall:
    """One call as it stands in the log, without its story."""

    id: UUID
    created_at: datetime
    account_id: UUID
    account: str
    key_id: str
    task: str
    model: str
    domain: str | None
    stream: bool
    status: int
    code: str
    endpoint_number: int | None
    price_version: int
    hold_nanos: int
    charge_nanos: int
    tokens_in: int
    tokens_out: int
    ttft_ms: float | None
    duration_ms: float
    task_label: str | None
    session_id: str | None
    labels: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class LoggedLine:
    """What one attempt delivered and cost."""

    call_id: UUID
    attempt: int
    endpoint_number: int
    tokens_in: int
    tokens_out: int
    rate: Rate
    price_version: int
    charge_nanos: int
    take_nanos: int
    earnings_nanos: int


@dataclass(frozen=True, slots=True)
class Choice:
    """Which calls: of one account, of these endpoints, or (both None) all."""

    account_id: UUID | None = None
    endpoint_numbers: Collection[int] | None = None


async def list_calls(
    connection: AsyncConnection, choice: Choice, *, before: UUID | None, limit: int
) -> list[LoggedCall]:
    """Return up to `limit` calls, newest first, before the id `before`."""
    query = _calls().order_by(calls.c.id.desc()).limit(limit)
    if choice.account_id is not None:
        query = query.where(calls.c.account_id == choice.account_id)
    if choice.endpoint_numbers is not None:
        query = query.where(calls.c.endpoint_number.in_(sorted(choice.endpoint_numbers)))
    if before is not None:
        query = query.where(calls.c.id < before)
    return [_call(row) for row in await connection.execute(query)]


async def find_call(connection: AsyncConnection, call_id: UUID) -> tuple[LoggedCall, bytes] | None:
    """Return a call and its encoded story, or None."""
    query = _calls(calls.c.story).where(calls.c.id == call_id)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else (_call(row), bytes(row.story))


async def find_lines(connection: AsyncConnection, call_ids: Collection[UUID]) -> list[LoggedLine]:
    """Return the charge lines of these calls, by call and attempt."""
    lines = settlement_lines.c
    query = (
        select(settlement_lines, endpoints.c.number)
        .join(endpoints, endpoints.c.id == lines.endpoint_id)
        .where(lines.call_id.in_(list(call_ids)))
        .order_by(lines.call_id, lines.attempt)
    )
    return [
        LoggedLine(
            call_id=row.call_id,
            attempt=row.attempt,
            endpoint_number=row.number,
            tokens_in=row.tokens_in,
            tokens_out=row.tokens_out,
            rate=Rate(row.rate_in_micros, row.rate_out_micros, row.rate_call_nanos),
            price_version=row.price_version,
            charge_nanos=row.charge_nanos,
            take_nanos=row.take_nanos,
            earnings_nanos=row.earnings_nanos,
        )
        for row in await connection.execute(query)
    ]


_COLUMNS = tuple(name for name in LoggedCall.__dataclass_fields__ if name != "account")


def _calls(*more: Any) -> Select[Any]:
    columns = (calls.c[name] for name in _COLUMNS)
    return select(*columns, accounts.c.name.label("account"), *more).join(
        accounts, accounts.c.id == calls.c.account_id
    )


def _call(row: Row[Any]) -> LoggedCall:
    return LoggedCall(account=row.account, **{name: getattr(row, name) for name in _COLUMNS})
