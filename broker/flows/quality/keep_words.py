"""Keeps what consumers write of answers, where their key wants it kept, and tells it to them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.ledger import CallRecord
from broker.core.story import decode
from broker.errors import NotFound
from broker.flows.access.authenticate import Caller
from broker.store.calls.answers import Owner
from broker.store.calls.log import find_call
from broker.store.quality import words
from broker.store.quality.words import Words
from broker.store.sealing import Sealer

KEPT: Final = timedelta(days=30)


def may_keep(caller: Caller, call: CallRecord) -> bool:
    """True where the caller's key opted in to have content kept, and the call did not forbid it."""
    opted_in = caller.terms is not None and caller.terms.content_kept == "full"
    if not opted_in or not call.story:  # what it forbade is forgotten with its story
        return False
    allowed: bool = decode(call.story).requirements.get("allow_retention", True)
    return allowed


async def keep_words(
    connection: AsyncConnection, call: CallRecord, said: Words, sealer: Sealer, now: datetime
) -> None:
    """Keep what was written of a call, sealed, for KEPT; the last takes the place of all before."""
    owner = Owner(call.account_id, call.id, now, now + KEPT)
    await words.put(connection, owner, said, sealer)


async def read_words(
    engine: AsyncEngine, caller: Caller, call_id: UUID, sealer: Sealer, now: datetime
) -> Words:
    """Return what is kept of what the caller wrote of its call, which may be nothing.

    Raises NotFound for a call that is not, or is another's.
    """
    found = await find_call(engine, call_id)
    if found is None or found.account_id != caller.account_id:
        raise NotFound("There is no such call.")
    async with engine.connect() as connection:
        kept = await words.find(connection, call_id, caller.account_id, sealer, now)
    return kept or Words(None, None)
