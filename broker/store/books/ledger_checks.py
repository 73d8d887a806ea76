"""What the monitor of the ledger found when it last looked, for all processes to see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.store.tables import table

ledger_checks = table("ledger_checks", "kind text, at timestamptz, took_ms double, alarms jsonb")


class CheckKind(StrEnum):
    """Which check: of the open period, or of all records there are."""

    INVARIANTS = "invariants"
    REPLAY = "replay"


@dataclass(frozen=True, slots=True)
class LastCheck:
    """When a check began and what it found: rows by view, at most 100 each, 0 where all is well."""

    kind: CheckKind
    at: datetime
    took_ms: float
    alarms: Mapping[str, int]


async def keep(connection: AsyncConnection, last: LastCheck) -> None:
    """Put what was found in the place of what an earlier check has found."""
    values = {"at": last.at, "took_ms": last.took_ms, "alarms": dict(last.alarms)}
    statement = insert(ledger_checks).values(kind=last.kind.value, **values)
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["kind"], set_=values, where=ledger_checks.c.at <= last.at
        )
    )


async def read(connection: AsyncConnection) -> list[LastCheck]:
    """Return the last check of each kind; none of a kind that was never made."""
    rows = await connection.execute(select(ledger_checks).order_by(ledger_checks.c.kind))
    return [LastCheck(CheckKind(row.kind), row.at, row.took_ms, row.alarms) for row in rows]
