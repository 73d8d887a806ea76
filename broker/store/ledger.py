"""The books: holds opened and closed by the batch, each in one round trip and one commit.

Rows are locked in one order everywhere, open holds by call id before balances by account id before
periods of budgets by key, so that no two batches wait for each other. In READ COMMITTED,
`FOR UPDATE` inside a statement returns the newest committed version of a row, and the `UPDATE` of
the same statement follows to that version: what was judged is what is changed.

A batch travels as JSON: one call encodes it, where an array for each column costs the driver four
times as much; and as bytes, for text with one letter beyond ASCII is slow to encode again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec

from broker.core.ledger import CallRecord, ChargeLine, Hold, Settlement, SettlementKind
from broker.store.away import DRIVER_AWAY
from broker.store.books.budgeted_keys import BudgetedKeys, open_periods
from broker.store.books.budgets import BudgetKind, BudgetStanding
from broker.store.sql import statement

Connection = Any
"""A bare asyncpg connection, or the pool's stand-in for one."""


@dataclass(frozen=True, slots=True)
class HoldResult:
    """What became of one hold; `available_nanos` is what is left, None without an account.

    `budget` is the one that stands in the way, if one does.
    """

    accepted: bool
    available_nanos: int | None
    budget: BudgetStanding | None = None


@dataclass(frozen=True, slots=True)
class SettleResult:
    """What became of one settlement: made by us, found gone, or refused for a `fault`."""

    settled: bool
    fault: str | None = None


_COUNTS_IN_BUDGETS: Final = 4
_ACCEPTED: Final = HoldResult(accepted=True, available_nanos=0)
_SETTLED: Final = SettleResult(settled=True)
_VERDICTS: Final = {
    0: SettleResult(settled=False),
    2: SettleResult(settled=False, fault="a ledger account is missing"),
    3: SettleResult(settled=False, fault="the lines do not sum to the charge"),
}


class _Wanted(msgspec.Struct, frozen=True, gc=False):
    n: int
    call_id: UUID
    kind: SettlementKind
    due_nanos: int
    settled_at: datetime


class _Line(msgspec.Struct, frozen=True, gc=False):
    attempt: int
    endpoint_id: UUID
    payee: UUID
    line_tokens_in: int
    line_tokens_out: int
    rate_in_micros: int
    rate_out_micros: int
    rate_call_nanos: int
    line_price_version: int
    line_nanos: int
    take_nanos: int
    earnings_nanos: int


class _Nothing(msgspec.Struct, frozen=True, gc=False):
    pass


_NOTHING: Final = _Nothing()


def is_away(error: Exception) -> bool:
    """Whether a statement failed for the database or the way to it, not for its rows.

    Against the rows are held data errors (class 22), broken constraints (class 23) and whatever
    is no error of the driver at all: such a row would fail for ever.
    """
    if isinstance(error, asyncpg.PostgresError):
        return error.sqlstate is None or error.sqlstate[:2] not in ("22", "23")
    return isinstance(error, DRIVER_AWAY)


def is_lost(connection: Connection) -> bool:
    """Whether nothing more can be sent on this connection."""
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        return True  # the pool has taken it back, for it broke


async def prepare_session(connection: Connection) -> None:
    """Fix what the ledger's commits and plans rest on, before the first statement."""
    await connection.execute(statement("ledger_session"))


async def hold_batch(
    connection: Connection,
    holds: Sequence[Hold],
    process_id: int,
    known: BudgetedKeys | None = None,
    many_times: int = 1,
) -> list[HoldResult]:
    """Open holds, per account and budget in order while they fit; one statement, committed at once.

    A refused hold may fit what its account and its budgets have left: a running sum refuses all
    that stand behind a hold too big, and a period of a budget is opened by the first hold in it.
    `known` spares the keys without budgets the look-up; None looks each up. An account must have
    `many_times` the amount left. Raises asyncpg's error, with nothing written, when a call has a
    hold already.
    """
    generation = None if known is None else known.vouch(hold.key_id for hold in holds)
    text = statement("hold", budgets=generation is None)
    refused = await connection.fetch(text, _json(holds), process_id, generation, many_times)
    if known is not None and len(refused) == len(holds) and await known.refresh(connection):
        return await hold_batch(connection, holds, process_id, known, many_times)
    results = [_ACCEPTED] * len(holds)
    unopened = []
    for n, available_nanos, kind, limit_nanos, spent_nanos, held_nanos in refused:
        budget = None
        if spent_nanos is not None:
            budget = BudgetStanding(BudgetKind(kind), limit_nanos, spent_nanos, held_nanos)
        elif kind is not None:
            unopened.append(holds[n - 1])
        results[n - 1] = HoldResult(False, available_nanos, budget)
    if unopened:
        await open_periods(connection, unopened)
    return results


async def forestall(
    connection: Connection, holds: Sequence[Hold], patience_s: float
) -> frozenset[UUID]:
    """Keep holds of unknown fate from being opened by a statement that may still run; return the
    calls whose hold has been opened, and is to be released.

    Raises asyncpg's error where who opens one now takes longer than `patience_s`.
    """
    async with connection.transaction():
        # Cut off here alone, the server would go on waiting, one more with each time.
        limit_ms = str(int(patience_s * 1_000))
        await connection.execute("SELECT set_config('lock_timeout', $1, true)", limit_ms)
        rows = await connection.fetch(statement("forestall"), _json(holds))
    return frozenset(UUID(bytes=row["call_id"].bytes) for row in rows)


async def settle_batch(
    connection: Connection,
    settlements: Sequence[Settlement],
    take_account: UUID,
    known: BudgetedKeys | None = None,
) -> list[SettleResult]:
    """Close holds, with lines and call records; one statement, committed on return.

    Whoever deletes the open hold settles the call; everybody else is told that it was gone. A
    missing account refuses that call alone. Holds that count in budgets, other than those `known`
    for it, are settled by a second statement, and so are those whose budget has just begun. Raises
    asyncpg's error when a row breaks a constraint, such as a charge above its hold: of that
    statement nothing is written then.
    """
    wanted, lines, records = _rows(settlements)
    called = {each.call_id.int for each in settlements}
    assert len(called) == len(settlements), "a batch settles a call once"
    keys = (each.record.key_id for each in settlements if each.record is not None)
    counts = known is None or known.vouch(keys) is None
    left = await connection.fetch(
        statement("settle", budgets=counts),
        _json(wanted),
        _json(lines),
        _json(records),
        take_account,
        counts,
    )
    results = [_SETTLED] * len(settlements)
    counted = []
    for n, verdict in left:
        if verdict == _COUNTS_IN_BUDGETS:
            counted.append(n - 1)
        else:
            results[n - 1] = _VERDICTS[verdict]
    if counted:
        again = [settlements[n] for n in counted]
        settled = await settle_batch(connection, again, take_account, None)
        for n, result in zip(counted, settled, strict=True):
            results[n] = result
    return results


async def record_batch(connection: Connection, records: Sequence[CallRecord]) -> None:
    """Write call records that belong to no hold: refused calls. Writing one twice is harmless."""
    await connection.execute(statement("record"), _json(records))


async def settled_as(
    connection: Connection, call_ids: Sequence[UUID]
) -> dict[UUID, tuple[SettlementKind, int]]:
    """Return kind and charge in nanos of those calls that are settled."""
    rows = await connection.fetch(
        "SELECT call_id, kind, charge_nanos FROM settlements WHERE call_id = ANY($1::uuid[])",
        call_ids,
    )
    return {row["call_id"]: (SettlementKind(row["kind"]), row["charge_nanos"]) for row in rows}


async def expire_holds(
    connection: Connection, now: datetime, limit: int, spared: Sequence[int] = ()
) -> int:
    """Settle up to `limit` holds past their expiry as expired, but for those of the `spared`
    processes; return how many.
    """
    return int(await connection.fetchval(statement("expire_holds"), now, limit, spared))


async def release_holds_of(connection: Connection, process_ids: Sequence[int], limit: int) -> int:
    """Settle up to `limit` holds of dead processes as released; return how many."""
    return int(await connection.fetchval(statement("release_holds"), process_ids, limit))


async def take_account(connection: Connection, process_id: int) -> UUID:
    """Return this process's shard of the account of takes, which is sharded to have no hot row.

    Raises LookupError when the schema has none.
    """
    ids = await connection.fetch("SELECT id FROM ledger_accounts WHERE kind = 'take' ORDER BY id")
    if not ids:
        raise LookupError("the ledger has no take account")
    return UUID(bytes=ids[process_id % len(ids)]["id"].bytes)


def _rows(
    settlements: Sequence[Settlement],
) -> tuple[list[_Wanted], list[_Line | _Nothing], list[CallRecord | _Nothing]]:
    """Settlements, lines and records side by side: a row for each line, one where there is none."""
    wanted: list[_Wanted] = []
    lines: list[_Line | _Nothing] = []
    records: list[CallRecord | _Nothing] = []
    for n, each in enumerate(settlements, 1):
        row = _Wanted(n, each.call_id, each.kind, each.charge_nanos, each.settled_at)
        lines += map(_line, each.lines) if each.lines else (_NOTHING,)
        records.append(_NOTHING if each.record is None else each.record)
        wanted.append(row)
        for _ in each.lines[1:]:
            wanted.append(row)
            records.append(_NOTHING)
    return wanted, lines, records


def _line(line: ChargeLine) -> _Line:
    return _Line(
        line.attempt,
        line.endpoint_id,
        line.payee,
        line.tokens_in,
        line.tokens_out,
        line.rate.rate_in_micros,
        line.rate.rate_out_micros,
        line.rate.rate_call_nanos,
        line.price_version,
        line.charge_nanos,
        line.take_nanos,
        line.earnings_nanos,
    )


_json: Final = msgspec.json.encode
