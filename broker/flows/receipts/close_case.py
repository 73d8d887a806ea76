"""Lists the cases that receipts have opened, and closes one with a reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.errors import Conflict, NotFound
from broker.flows.access.authenticate import Caller
from broker.flows.money.wording import checked_reason
from broker.flows.receipts.reconcile import event_of
from broker.store.access import audit
from broker.store.access.accounts import Role
from broker.store.receipts import receipt_cases
from broker.store.receipts.receipt_cases import Case, Wanted
from broker.store.webhooks.events import tell


async def read_cases(engine: AsyncEngine, caller: Caller, wanted: Wanted) -> list[Case]:
    """Return cases, newest first: a provider's own, an operator's all."""
    if caller.role is not Role.OPERATOR:
        wanted = replace(wanted, provider_id=caller.account_id)
    async with engine.connect() as connection:
        return await receipt_cases.list_cases(connection, wanted)


async def close_case(
    connection: AsyncConnection, operator: Caller, case_id: UUID, reason: str, now: datetime
) -> Case:
    """Close a case; what it was about is settled elsewhere, by a refund or an adjustment.

    Raises NotFound, Conflict when it is closed, RequestMalformed as `checked_reason` does.
    """
    reason = checked_reason(reason)
    case = await receipt_cases.lock_case(connection, case_id)
    if case is None:
        raise NotFound("There is no such case.")
    if case.closed_at is not None:
        raise Conflict(f"The case was closed by {case.closed_by}: {case.close_reason}")
    end = ([case_id], operator.name, reason, now)
    [closed] = await receipt_cases.close_cases(connection, *end)
    detail = {"kind": case.kind.value, "call": str(case.call_id), "reason": reason}
    deed = audit.Deed(operator.name, "close_receipt_case", f"receipt_cases/{case_id}", detail)
    await audit.record(connection, deed, now)
    await tell(connection, event_of("receipt_case.closed", closed), now)
    return closed
