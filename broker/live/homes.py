"""Where conversations have their context: the endpoint that answered last, known to all processes.

While Valkey is away each process goes by what it has seen itself. What many calls ask and tell goes
together: a question takes as long as a call takes otherwise, and ten of them hardly longer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Final
from uuid import UUID

import structlog
from redis.asyncio import Redis

from broker.live.connection import Valkey

HOME_S: Final = 1_800
"""So long after its last answer a conversation is taken to have its context there still."""
HOMES_MAX: Final = 10_000
"""So many are kept in memory, for times without Valkey."""

_log = structlog.get_logger()

_Waiting = dict[str, list[asyncio.Future[int | None]]]


class Homes:
    """Keeps the endpoint number of each conversation of each account."""

    def __init__(self, valkey: Valkey, now_s: Callable[[], float] = time.monotonic) -> None:
        self._valkey = valkey
        self._now_s = now_s
        self._seen: dict[str, tuple[int, float]] = {}
        """Endpoint numbers, and until when each holds."""
        self._waiting: _Waiting = {}
        """Who asks in the next exchange,"""
        self._news: dict[str, int] = {}
        """and what is told in it."""
        self._exchanging: asyncio.Task[None] | None = None

    async def of(self, account_id: UUID, session_id: str) -> int | None:
        """Return where a conversation has its context, None where nobody knows."""
        answer: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(self._key(account_id, session_id), []).append(answer)
        self._begin()
        return await answer

    def keep(self, account_id: UUID, session_id: str, endpoint: int) -> None:
        """Be told who answered; the other processes hear of it in a moment."""
        key = self._key(account_id, session_id)
        self._seen.pop(key, None)  # so that the one told last is forgotten last
        self._seen[key] = endpoint, self._now_s() + HOME_S
        if len(self._seen) > HOMES_MAX:
            self._seen.pop(next(iter(self._seen)))
        self._news[key] = endpoint
        self._begin()

    def _begin(self) -> None:
        if self._exchanging is None:
            self._exchanging = asyncio.get_running_loop().create_task(self._exchange())

    async def _exchange(self) -> None:
        """Tell what is new and hear what is asked, until there is nothing more."""
        try:
            while self._waiting or self._news:
                waiting, self._waiting = self._waiting, {}
                news, self._news = self._news, {}
                told = None
                try:
                    told = await self._valkey.ask(partial(_exchange, news, [*waiting]), None)
                except Exception as error:  # those who ask meanwhile wait for the next
                    _log.error("homes_not_exchanged", exc_info=error)
                finally:  # nobody waits for ever, whatever becomes of this
                    self._answer(waiting, told)
        finally:
            self._exchanging = None

    def _answer(self, waiting: _Waiting, told: Mapping[str, int] | None) -> None:
        """Answer who waits; `told` is None where Valkey is away."""
        now_s = self._now_s()
        for key, answers in waiting.items():
            if told is None:
                number, until_s = self._seen.get(key, (None, 0.0))
                number = number if now_s < until_s else None
            else:
                number = told.get(key)
            for answer in answers:
                if not answer.done():  # its caller has left
                    answer.set_result(number)

    def _key(self, account_id: UUID, session_id: str) -> str:
        # A digest, for the name is the caller's own text, of any length.
        digest = blake2b(session_id.encode(), key=account_id.bytes, digest_size=16).hexdigest()
        return self._valkey.key(f"home:{digest}")


async def _exchange(
    news: Mapping[str, int], asked: Sequence[str], client: Redis
) -> Mapping[str, int]:
    """Tell the endpoints of some conversations, and return those of others as far as known."""
    async with client.pipeline(transaction=False) as pipe:
        for key, endpoint in news.items():
            pipe.set(key, endpoint, ex=HOME_S)
        if asked:
            pipe.mget(asked)
        answers = await pipe.execute()
    numbers = answers[-1] if asked else []
    return {key: int(each) for key, each in zip(asked, numbers, strict=True) if each is not None}
