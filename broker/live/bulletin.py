"""What each process tells all others once a tick: a hash of process to stamped bytes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from redis.asyncio import Redis

from broker.live.connection import Valkey

STALE_MS = 5_000
"""A process that has said nothing for so long is taken to be gone."""
KEPT_S = 10.0
"""What the others said last is believed for so long while Valkey is away."""
_GONE_MS = 60_000
_STAMP_DIGITS = 15

# Valkey's own clock stamps every entry, so the processes' clocks need not agree.
_EXCHANGE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%015d', now) .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {now, redis.call('HGETALL', KEYS[1])}
"""


class Bulletin:
    """One such hash, as one process sees it."""

    def __init__(
        self,
        valkey: Valkey,
        name: str,
        process: str,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._valkey = valkey
        self._key = valkey.key(name)
        self._process = process.encode()
        self._now_s = now_s
        self._heard: Mapping[bytes, bytes] = {}
        self._heard_at_s = -KEPT_S

    async def exchange(self, own: bytes) -> None:
        """Tell the others, and hear them."""
        answer = await self._valkey.ask(lambda client: self._ask(client, own), None)
        if answer is None:
            return
        now_ms, flat = answer
        entries = dict(zip(flat[::2], flat[1::2], strict=True))
        ages_ms = {process: now_ms - int(said[:_STAMP_DIGITS]) for process, said in entries.items()}
        self._heard = {
            process: said[_STAMP_DIGITS:]
            for process, said in entries.items()
            if process != self._process and ages_ms[process] <= STALE_MS
        }
        self._heard_at_s = self._now_s()
        await self._forget([process for process, age_ms in ages_ms.items() if age_ms > _GONE_MS])

    def others(self) -> Mapping[bytes, bytes]:
        """Return what each other process said last; nothing once that is `KEPT_S` old."""
        return self._heard if self._now_s() - self._heard_at_s < KEPT_S else {}

    async def leave(self) -> None:
        """Take back what this process said, for it is stopping."""
        await self._forget([self._process])

    async def _ask(self, client: Redis, own: bytes) -> tuple[int, list[bytes]]:
        asked = client.eval(_EXCHANGE, 1, self._key, self._process, own, str(_GONE_MS))
        now_ms, flat = await cast(Awaitable[list[Any]], asked)
        return now_ms, flat

    async def _forget(self, processes: list[bytes]) -> None:
        if processes:
            await self._valkey.ask(lambda client: client.hdel(self._key, *processes), 0)
