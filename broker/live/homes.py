"""Where conversations have their context: the endpoint that answered last, known to all processes.

While Valkey is away each process goes by what it has seen itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Final
from uuid import UUID

from redis.asyncio import Redis

from broker.live.connection import Valkey

HOME_S: Final = 1_800
"""So long after its last answer a conversation is taken to have its context there still."""
HOMES_MAX: Final = 10_000
"""So many are kept in memory, for times without Valkey."""


class Homes:
    """Keeps the endpoint number of each conversation of each account."""

    def __init__(self, valkey: Valkey, now_s: Callable[[], float] = time.monotonic) -> None:
        self._valkey = valkey
        self._now_s = now_s
        self._seen: dict[str, tuple[int, float]] = {}
        """Endpoint numbers, and until when each holds."""
        self._telling: set[asyncio.Task[bool | None]] = set()

    async def of(self, account_id: UUID, session_id: str) -> int | None:
        """Return where a conversation has its context, None where nobody knows."""
        key = self._key(account_id, session_id)

        async def ask(client: Redis) -> int | None:
            told = await client.get(key)
            return None if told is None else int(told)

        number, until_s = self._seen.get(key, (None, 0.0))
        return await self._valkey.ask(ask, number if self._now_s() < until_s else None)

    def keep(self, account_id: UUID, session_id: str, endpoint: int) -> None:
        """Be told who answered; the other processes hear of it in a moment."""
        key = self._key(account_id, session_id)
        self._seen.pop(key, None)  # so that the one told last is forgotten last
        self._seen[key] = endpoint, self._now_s() + HOME_S
        if len(self._seen) > HOMES_MAX:
            self._seen.pop(next(iter(self._seen)))

        async def tell(client: Redis) -> bool | None:
            return bool(await client.set(key, endpoint, ex=HOME_S))

        task = asyncio.get_running_loop().create_task(self._valkey.ask(tell, None))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    def _key(self, account_id: UUID, session_id: str) -> str:
        # A digest, for the name is the caller's own text, of any length.
        digest = blake2b(session_id.encode(), key=account_id.bytes, digest_size=16).hexdigest()
        return self._valkey.key(f"home:{digest}")
