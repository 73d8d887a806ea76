"""What each process tells all others again and again: a hash of process to stamped bytes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from typing import Any, cast

from redis.asyncio import Redis

from broker.live.connection import Valkey

STALE_MS = 5_000
"""A process that has said nothing for so long is taken to be gone."""
QUIET_MS = 500
"""One that was connected, and is no more, is taken to be gone after so long: its connections end
with it, while one that is merely held up keeps them."""
KEPT_S = 10.0
"""What the others said last is believed for so long while Valkey is away."""
_GONE_MS = 60_000
_STAMP_DIGITS = 15

# Valkey's own clock stamps every entry, so the processes' clocks need not agree.
_EXCHANGE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local stamp = string.format('%015d', now)
local all = {now}
for i = 1, #KEYS do
  redis.call('HSET', KEYS[i], ARGV[1], stamp .. ARGV[i + 3])
  redis.call('PEXPIRE', KEYS[i], ARGV[2])
  all[i + 1] = redis.call('HGETALL', KEYS[i])
end
local signs = {}
for i, process in ipairs(redis.call('HKEYS', KEYS[1])) do
  signs[i] = ARGV[3] .. process
end
all[#KEYS + 2] = redis.call('PUBSUB', 'NUMSUB', unpack(signs))
return all
"""


def sign_of_life(valkey: Valkey, process: str = "") -> str:
    """Return the channel that a process listens to for as long as it is there: Valkey itself tells
    that it listens no more."""
    return valkey.key(f"alive:{process}")


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
        self._connected: set[bytes] = set()
        """Processes that were seen to be connected."""

    @property
    def key(self) -> str:
        """Where the hash is kept."""
        return self._key

    @property
    def process(self) -> bytes:
        """By what name this process tells."""
        return self._process

    async def exchange(self, own: bytes) -> None:
        """Tell the others, and hear them."""
        await exchange_all(self._valkey, ((self, own),))

    async def hear(self, now_ms: int, flat: Sequence[bytes], connected: Set[bytes]) -> None:
        """Take in the whole hash, its names and values in turn, as of a moment of its clock, when
        these processes were connected."""
        entries = dict(zip(flat[::2], flat[1::2], strict=True))
        ages_ms = {process: now_ms - int(said[:_STAMP_DIGITS]) for process, said in entries.items()}
        self._heard = {
            process: said[_STAMP_DIGITS:]
            for process, said in entries.items()
            if process != self._process and ages_ms[process] <= self._lasts_ms(process, connected)
        }
        self._connected = (self._connected | connected) & entries.keys()
        self._heard_at_s = self._now_s()
        await self._forget([process for process, age_ms in ages_ms.items() if age_ms > _GONE_MS])

    def _lasts_ms(self, process: bytes, connected: Set[bytes]) -> int:
        """Return how old what a process said may be."""
        left = process in self._connected and process not in connected
        return QUIET_MS if left else STALE_MS

    def others(self) -> Mapping[bytes, bytes]:
        """Return what each other process said last; nothing once that is `KEPT_S` old."""
        return self._heard if self._now_s() - self._heard_at_s < KEPT_S else {}

    async def leave(self) -> None:
        """Take back what this process said, for it is stopping."""
        await self._forget([self._process])

    async def _forget(self, processes: list[bytes]) -> None:
        if processes:
            await self._valkey.ask(lambda client: client.hdel(self._key, *processes), 0)


Telling = tuple[Bulletin, bytes]
"""A bulletin of this process's, and what it is to say there."""


async def exchange_all(valkey: Valkey, tellings: Sequence[Telling]) -> None:
    """Tell the others on several bulletins of one process, and hear them, in one question."""
    keys = [bulletin.key for bulletin, _ in tellings]
    said = [own for _, own in tellings]
    process, sign = tellings[0][0].process, sign_of_life(valkey)

    async def ask(client: Redis) -> list[Any]:
        asked = client.eval(_EXCHANGE, len(keys), *keys, process, str(_GONE_MS), sign, *said)
        return await cast(Awaitable[list[Any]], asked)

    answer = await valkey.ask(ask, None)
    if answer is not None:
        now_ms, *flats, signs = answer
        counts = zip(signs[::2], signs[1::2], strict=True)
        connected = {name.removeprefix(sign.encode()) for name, count in counts if count}
        for (bulletin, _), flat in zip(tellings, flats, strict=True):
            await bulletin.hear(now_ms, flat, connected)
