"""Forgets kept answers: one by its owner's wish, and all whose time is over."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.errors import NotFound
from broker.flows.access.authenticate import Caller
from broker.store.access import audit
from broker.store.calls import answers
from broker.store.calls.log import find_call
from broker.store.quality import words

_BATCH: Final = 500
"""So many at once: each may be megabytes, and no lock shall last."""


async def forget_answer(engine: AsyncEngine, caller: Caller, call_id: UUID, now: datetime) -> None:
    """Delete what is kept of the answer of a caller's call, and of what the caller wrote of it,
    again without effect.

    A replay is told from then on that the call was served. Raises NotFound for a call that is not,
    or is another's.
    """
    async with engine.begin() as connection:
        forgotten = await answers.delete(connection, call_id, caller.account_id)
        if await words.delete(connection, call_id, caller.account_id) or forgotten:
            deed = audit.Deed(caller.name, "forget_answer", f"calls/{call_id}")
            await audit.record(connection, deed, now)
            return
    found = await find_call(engine, call_id)
    if found is None or found.account_id != caller.account_id:
        raise NotFound("There is no such call.")


async def forget_expired(pool: asyncpg.Pool, now: datetime) -> int:
    """Delete the answers and the words that have expired; return how many."""
    count = 0
    async with pool.acquire() as connection:
        while deleted := await answers.delete_expired(connection, now, _BATCH):
            count += deleted
        while deleted := await words.delete_expired(connection, now, _BATCH):
            count += deleted
    return count
