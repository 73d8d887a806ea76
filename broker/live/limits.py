"""Rate limits of keys: token buckets that all processes share, drawn upon by small leases.

A bucket holds a minute's worth and fills evenly, so a key that has rested may use a minute's worth
at once. A process takes a small part of it at a time and spends that without asking anybody: over
any time a key gets its bucket, what flows into it, and one lease a process at most. While Valkey is
away each process keeps to the whole limit by itself.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast
from uuid import UUID

import structlog
from redis.asyncio import Redis

from broker.core.key_terms import Rates
from broker.errors import RequestRefused, TooManyCalls
from broker.live.connection import Valkey

MINUTE_S: Final = 60.0
LEASE_PARTS: Final = 50
"""A lease is this part of a minute's worth, or what is asked for where that is more."""
BUCKETS_MAX: Final = 10_000
"""So many are kept in memory; a bucket that is forgotten gives up its lease."""

_log = structlog.get_logger(__name__)

# ARGV: a minute's worth, what must be granted, what may be, what is given back. Valkey's own clock
# fills the bucket; one that nobody has drawn upon for a minute is full, and so need not be kept.
_DRAW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limit, least = tonumber(ARGV[1]), tonumber(ARGV[2])
local kept = redis.call('HMGET', KEYS[1], 'left', 'at')
local left = limit
if kept[1] then
    left = tonumber(kept[1]) + math.max(now - tonumber(kept[2]), 0) * limit / 60000
end
left = math.min(left + tonumber(ARGV[4]), limit)
local granted = 0
if least <= left then
    granted = math.max(math.min(tonumber(ARGV[3]), math.floor(left)), least)
    left = left - granted
end
if granted > 0 or tonumber(ARGV[4]) > 0 then
    redis.call('HSET', KEYS[1], 'left', string.format('%.9f', left), 'at', now)
    redis.call('PEXPIRE', KEYS[1], 61000)
end
return {granted, math.ceil(math.max(least - left, 0) * 60000 / limit)}
"""


class _Bucket:
    """One limit as this process knows it."""

    def __init__(self, name: str, unit: str, limit: int, now_s: float) -> None:
        self.name = name
        self.unit = unit
        self.limit = limit
        self.lease = 0
        """Drawn and not spent."""
        self.surplus = 0
        """Came back, and is on its way to the other processes."""
        self.lock = asyncio.Lock()
        self._left = float(limit)
        """Of a bucket of this process's own, on which it falls back."""
        self._at_s = now_s

    @property
    def lease_max(self) -> int:
        """How much is drawn at a time, and at most kept of what comes back."""
        return self.limit // LEASE_PARTS

    def spend(self, amount: int, now_s: float) -> None:
        """Be told of what was granted, below zero of what came back."""
        self._fill(now_s)
        self._left -= amount

    def lacking_s(self, amount: int, now_s: float) -> float:
        """Return in how many seconds this process alone could grant so much; 0 now."""
        self._fill(now_s)
        return max(amount - self._left, 0.0) * MINUTE_S / self.limit

    def _fill(self, now_s: float) -> None:
        flowed = (now_s - self._at_s) * self.limit / MINUTE_S
        self._left = min(self._left + flowed, float(self.limit))
        self._at_s = now_s


class RateLimits:
    """The buckets of all keys that have limits, as one process sees them."""

    def __init__(self, valkey: Valkey, now_s: Callable[[], float] = time.monotonic) -> None:
        self._valkey = valkey
        self._now_s = now_s
        self._buckets: dict[str, _Bucket] = {}
        self._taken: dict[UUID, tuple[_Bucket, int]] = {}
        """Tokens by call: what the call may use at most, until it has ended."""
        self._returning: set[asyncio.Task[None]] = set()
        self._alone = False
        self.refused = 0
        """Calls that were refused, since the process began."""
        self.granted_alone = 0
        """Grants without Valkey, since the process began."""

    async def enter(self, key_id: str, rates: Rates) -> None:
        """Count one request. Raises TooManyCalls with code `key_rate` and when to come again."""
        limit = rates.requests_per_minute
        if limit is not None:
            await self._take(self._bucket(key_id, "requests", limit), 1)

    async def count(self, key_id: str, what: str, per_minute: int) -> None:
        """Count one of what is no call, such as looking up a model. Raises as `enter` does."""
        await self._take(self._bucket(key_id, what, per_minute), 1)

    async def take(self, call_id: UUID, key_id: str, rates: Rates, tokens: int) -> None:
        """Take the most that a call may use; `give_back` tells what it did use.

        Raises TooManyCalls as `enter` does, and RequestRefused for more than a minute's worth.
        """
        limit = rates.tokens_per_minute
        if limit is None or not tokens:
            return
        if tokens > limit:
            self.refused += 1
            raise RequestRefused(
                f"This call may use up to {tokens} tokens, and its key {limit} in a minute; "
                "say fewer max_tokens.",
                code="key_rate",
                status=429,
            )
        bucket = self._bucket(key_id, "tokens", limit)
        await self._take(bucket, tokens)
        self._taken[call_id] = bucket, tokens

    def rename(self, call_id: UUID, to: UUID) -> None:
        """Be told that a call which has taken tokens goes on under another id."""
        taken = self._taken.pop(call_id, None)
        if taken is not None:
            self._taken[to] = taken

    def give_back(self, call_id: UUID, used: int = 0) -> None:
        """Be told how many tokens a call used in the end; a second time without effect."""
        bucket, tokens = self._taken.pop(call_id, (None, 0))
        if bucket is None or used >= tokens:
            return
        bucket.spend(used - tokens, self._now_s())
        bucket.lease += tokens - used
        over = bucket.lease - bucket.lease_max
        if over > 0:
            # More than a lease would be hoarded here while other processes have none.
            bucket.lease = bucket.lease_max
            bucket.surplus += over
            task = asyncio.get_running_loop().create_task(self._return(bucket))
            self._returning.add(task)
            task.add_done_callback(self._returning.discard)

    async def _take(self, bucket: _Bucket, amount: int) -> None:
        if bucket.lease < amount:
            async with bucket.lock:  # of many who wait, one draws for all
                await self._draw(bucket, amount)
        bucket.lease -= amount
        bucket.spend(amount, self._now_s())

    async def _draw(self, bucket: _Bucket, amount: int) -> None:
        """Have at least `amount` leased."""
        while bucket.lease < amount:
            least = amount - bucket.lease
            answer = await self._ask(bucket, least, max(least, bucket.lease_max))
            if answer is None:
                self._decide_alone(bucket, amount)
                return
            granted, wait_ms = answer
            if not granted:
                raise self._refusal(bucket, wait_ms / 1_000)
            bucket.lease += granted

    def _decide_alone(self, bucket: _Bucket, amount: int) -> None:
        wait_s = bucket.lacking_s(amount, self._now_s())
        if wait_s:
            raise self._refusal(bucket, wait_s)
        self.granted_alone += 1
        bucket.lease = max(bucket.lease, amount)

    def _refusal(self, bucket: _Bucket, wait_s: float) -> TooManyCalls:
        self.refused += 1
        unit = bucket.unit if bucket.limit != 1 else bucket.unit.removesuffix("s")
        return TooManyCalls(
            f"This key may use {bucket.limit} {unit} in a minute.",
            code="key_rate",
            retry_after_s=max(math.ceil(wait_s), 1),
        )

    async def _return(self, bucket: _Bucket) -> None:
        if bucket.surplus:  # else it went with what was asked for meanwhile
            await self._ask(bucket, 0, 0)

    async def _ask(self, bucket: _Bucket, least: int, most: int) -> tuple[int, int] | None:
        """Return what Valkey grants and in how many ms it would, None while it is away."""
        numbers = [str(each) for each in (bucket.limit, least, most, bucket.surplus)]
        bucket.surplus = 0

        async def draw(client: Redis) -> tuple[int, int]:
            asked = client.eval(_DRAW, 1, self._valkey.key(f"rate:{bucket.name}"), *numbers)
            granted, wait_ms = await cast(Awaitable[list[Any]], asked)
            return int(granted), int(wait_ms)

        answer = await self._valkey.ask(draw, None)
        if answer is None and not self._alone:
            _log.warning("rate limits of keys are kept by each process alone")
        self._alone = answer is None
        return answer

    def _bucket(self, key_id: str, unit: str, limit: int) -> _Bucket:
        name = f"{key_id}:{unit}"
        bucket = self._buckets.get(name)
        if bucket is None or bucket.limit != limit:
            if len(self._buckets) >= BUCKETS_MAX:
                self._buckets.pop(next(iter(self._buckets)))
            bucket = self._buckets[name] = _Bucket(name, unit, limit, self._now_s())
        return bucket
