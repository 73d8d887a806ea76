"""The one connection to Valkey: it never raises, says now and then that Valkey is away, and comes
back."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from broker.errors import SettingInvalid

_log = structlog.get_logger(__name__)
_Answer = TypeVar("_Answer")

TIMEOUT_S = 1.0
BACKOFF_S = 0.1
BACKOFF_S_MAX = 5.0
_CONNECTIONS_MAX = 16
AGAIN_S = 30.0
"""Between two lines that say that it is away."""
_ADVICE = (
    "calls go on, by each broker's own loads, limits and last prices; no job is ordered: see to"
    " Valkey, which needs no data back, and restart no broker"
)

AWAY = (RedisError, OSError, TimeoutError)
"""What is raised when Valkey is away, or so unwell that it makes no difference."""
_LOST = "the handler is closed"
"""So does uvloop say, as a RuntimeError, that the connection was lost that is to be written to."""


class Valkey:
    """Asks Valkey, and answers with the fallback while it is away.

    After a failure nobody waits for it any more: whoever asks has it looked for beside, once in a
    while that grows to `BACKOFF_S_MAX`, so that a Valkey that is away, or hangs, costs its callers
    nothing.
    """

    def __init__(
        self,
        url: str,
        market: str = "",
        *,
        timeout_s: float = TIMEOUT_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._market = market
        self._timeout_s = timeout_s
        self._now_s = now_s
        self._failures = 0
        self._silent_until_s = 0.0
        self._away_since_s = self._told_s = -math.inf
        self._client = self.client()
        self._looking: asyncio.Task[None] | None = None
        self.reachable = True
        """As far as the last answer told."""

    def key(self, name: str) -> str:
        """Return a key of this market's own: another database's prices are none of ours."""
        return f"broker:{self._market}:{name}"

    def client(self) -> Redis:
        """Return a client with connections of its own; it connects when first used.

        Raises SettingInvalid for a URL that is none.
        """
        try:
            pool = self._pool()
        except ValueError as error:
            raise SettingInvalid(f"VALKEY_URL: {error}") from None
        return Redis.from_pool(pool)

    def _pool(self) -> BlockingConnectionPool:
        return BlockingConnectionPool.from_url(
            self._url,
            max_connections=_CONNECTIONS_MAX,
            timeout=self._timeout_s,
            socket_timeout=self._timeout_s,
            socket_connect_timeout=self._timeout_s,
            # Once, for a connection that died while it lay idle; who is silent, stays so.
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )

    async def ask(
        self, question: Callable[[Redis], Awaitable[_Answer]], fallback: _Answer
    ) -> _Answer:
        """Return Valkey's answer, or `fallback` when it is away."""
        if not self.reachable:
            self._look()
            return fallback
        cancelled = cancellations()
        try:
            answer = await question(self._client)
        except Exception as error:
            if not is_away(error):
                raise
            self.failed(error)
            answer = fallback
        else:
            self.succeeded()
        heed_cancellation(cancelled)
        return answer

    def failed(self, error: Exception) -> None:
        """Be told that Valkey did not answer."""
        now_s = self._now_s()
        if self.reachable:
            self._away_since_s = now_s
        if self.reachable or now_s - self._told_s >= AGAIN_S:
            self._told_s = now_s
            _log.warning("valkey_away", error=str(error), advice=_ADVICE)
        self.reachable = False
        if now_s >= self._silent_until_s:  # not for each of those that asked together
            self._silent_until_s = now_s + backoff_s(self._failures)
            self._failures += 1

    def succeeded(self) -> None:
        """Be told that Valkey answered."""
        if not self.reachable:
            _log.info("valkey_back", after_s=round(self._now_s() - self._away_since_s, 1))
        self.reachable = True
        self._failures = 0

    def _look(self) -> None:
        """Have it looked for, unless that was just now."""
        if self._now_s() < self._silent_until_s:
            return
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._find())

    async def _find(self) -> None:
        try:
            # It must take writes: a replica, or one that is full, answers but is of no use.
            await self._client.set(self.key("found"), b"", px=1_000)
        except Exception as error:
            if not is_away(error):
                raise
            self.failed(error)
        else:
            self.succeeded()

    async def close(self) -> None:
        """Close all connections."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        await self._client.aclose()


def is_away(error: Exception) -> bool:
    """Whether something failed because Valkey is away."""
    return isinstance(error, AWAY) or (isinstance(error, RuntimeError) and _LOST in str(error))


def cancellations() -> int:
    """Return how often the running task was asked to end."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def heed_cancellation(before: int = 0) -> None:
    """End if the running task was asked to more often than `before`, though nothing came of it.

    The client sends by `asyncio.wait_for`, which until Python 3.12 swallows a cancellation that
    comes just when what it waits for is done: a task that asks for ever would never end.
    """
    if cancellations() > before:
        raise asyncio.CancelledError


def backoff_s(failures: int) -> float:
    """Return how long to wait after one more than `failures` failures in a row."""
    return min(BACKOFF_S * 2.0 ** min(failures, 10), BACKOFF_S_MAX)
