"""Does a request once, however often it is sent under its `Idempotency-Key`."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.store.access import idempotency
from broker.store.access.idempotency import Answer, Place
from broker.store.sealing import Sealer

Act = Callable[[AsyncConnection], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Memory:
    """Where first answers are kept, sealed, and for how long."""

    engine: AsyncEngine
    sealer: Sealer
    kept_s: float


@dataclass(frozen=True, slots=True)
class Request:
    """A request as its sender knows it; without a key it is done each time it is sent.

    `meaning` is what makes two requests the same one: the method, the path and the body; `key_id`
    is the key that its sender has proved itself by, empty without one.
    """

    account_id: UUID
    key: str | None
    meaning: bytes
    key_id: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """The answer, and whether it is a former one; of that which is shown once, what was kept."""

    answer: Answer
    replayed: bool


async def once(
    memory: Memory,
    request: Request,
    act: Act,
    now: datetime,
    kept: Callable[[Answer], Answer] = lambda answer: answer,
) -> Done:
    """Run `act` in one transaction with the record of its answer, or return the recorded one.

    Of several at once one acts, the others wait for its answer. Raises Conflict when the key stands
    for another request or another sender's, and what `act` raises, after which the key is free
    again. `kept` makes of an answer what is kept of it, where that is not all.
    """
    async with memory.engine.begin() as connection:
        if request.key is None:
            return Done(await act(connection), replayed=False)
        place = Place(request.account_id, request.key)
        meaning = hashlib.sha256(request.meaning).digest()
        expires_at = now + timedelta(seconds=memory.kept_s)
        fresh = idempotency.Fresh(meaning, request.key_id, now, expires_at)
        former = await idempotency.claim(connection, place, fresh, memory.sealer)
        if former is not None:
            return Done(former, replayed=True)
        answer = await act(connection)
        await idempotency.keep(connection, place, kept(answer), memory.sealer)
        return Done(answer, replayed=False)
