"""The last heartbeat of every deployment, told to all processes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, Literal, cast
from uuid import UUID

import msgspec
import structlog
from redis.asyncio import Redis

from broker.live.connection import Valkey
from broker.live.sheet import Beat, BeatSheet, BeatTable

_log = structlog.get_logger(__name__)

SEQUENCE_MAX: Final = 2**63 - 1
_SEQUENCE_DIGITS: Final = 20
_HEAD_DIGITS: Final = _SEQUENCE_DIGITS + 15
_TAKEN: Final = ord("1")

# Beats travel in one string, for the client takes 20 us of Python for each value of a list: ids of
# 16 bytes, three digits of length, and the beat. Sequences are compared as text of equal length,
# for Lua's numbers are too coarse for nanoseconds. Valkey's clock stamps each beat, so that the
# clocks of the processes need not agree; by that stamp the second key tells what has come since.
_STORE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local stamp = string.format('%015d', now)
local told, at, taken = ARGV[1], 1, {}
while at < #told do
  local name = string.sub(told, at, at + 15)
  local last = at + 18 + tonumber(string.sub(told, at + 16, at + 18))
  local new = string.sub(told, at + 19, last)
  at = last + 1
  local old = redis.call('HGET', KEYS[1], name)
  local sequence = string.sub(new, 1, 20)
  if old and string.sub(old, 1, 20) >= sequence then
    taken[#taken + 1] = '0'
  else
    redis.call('HSET', KEYS[1], name, sequence .. stamp .. string.sub(new, 21))
    redis.call('ZADD', KEYS[2], now, name)
    taken[#taken + 1] = '1'
  end
end
return {now, table.concat(taken)}
"""
_LOAD: Final = """
local time = redis.call('TIME')
local parts = {}
local function tell(name, value)
  if value and #name == 16 and #value < 1000 then
    parts[#parts + 1] = name .. string.format('%03d', #value) .. value
  end
end
if ARGV[1] == '' then
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do tell(all[i], all[i + 1]) end
else
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], ARGV[1], '+inf')) do
    tell(name, redis.call('HGET', KEYS[1], name))
  end
end
return {time[1] * 1000 + math.floor(time[2] / 1000), table.concat(parts)}
"""
_FORGET: Final = """
local told, before = ARGV[1], ARGV[2]
for at = 1, #told, 16 do
  local name = string.sub(told, at, at + 15)
  local beat = redis.call('HGET', KEYS[1], name)
  if not beat or string.sub(beat, 21, 35) < before then
    redis.call('HDEL', KEYS[1], name)
    redis.call('ZREM', KEYS[2], name)
  end
end
return {}
"""
_ID_BYTES: Final = 16
_SIZE_DIGITS: Final = 3
WHOLE_EVERY_MS_MAX: Final = 30_000
"""All beats are heard anew each interval, and no less often than this: a Valkey that was replaced,
or a process of another version, may not say what has come since."""
SLEPT_MS: Final = 1_000
"""So far does Valkey's clock leave ours behind only where one was set, or our machine slept."""
FORGOTTEN_AFTER_MS: Final = 3_600_000
"""A heartbeat so old cannot be replayed: the time that is signed in it is long past."""
_FORGOTTEN_TOGETHER: Final = 1_000


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    status: Literal["ready", "draining", "down"]
    interval_ms: int
    running: int | None
    waiting: int | None
    kv_usage: float | None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Packed)


class Beats:
    """Takes heartbeats and tells them to all processes; while Valkey is away, to this one alone."""

    def __init__(
        self,
        valkey: Valkey,
        *,
        now_s: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._valkey = valkey
        self.key = valkey.key("beats")
        self._now_s = now_s
        self._offset_ms = int((wall_s() - now_s()) * 1_000)
        self._table = BeatTable()
        self._reachable_since_ms: int | None = None
        self._since_ms: int | None = None
        """Up to when all that Valkey was told has been heard; None where that is not known."""
        self._whole_due_ms = 0

    def now_ms(self) -> int:
        """Return the feed's clock: Valkey's, carried on by our own while it is away."""
        return int(self._now_s() * 1_000) + self._offset_ms

    def last_sequence(self, deployment_id: UUID) -> int:
        """Return the highest sequence this process knows of, 0 when none."""
        return self._table.last_sequence(deployment_id)

    async def accept(self, beats: Sequence[Beat]) -> list[bool]:
        """Store beats; False for one whose sequence is not above the last any process had."""
        told = b"".join(map(_pack, beats))
        everything: list[Any] = [None, b"1" * len(beats)]
        answer = await self._valkey.ask(
            lambda client: self._evaluate(client, _STORE, told), everything
        )
        self._heard_at(answer[0])
        received_ms, told_here = self.now_ms(), answer[0] is None
        accepted = []
        for beat, taken in zip(beats, answer[1], strict=True):
            # What Valkey took, `load` may have heard from it sooner than we its answer.
            least = self.last_sequence(beat.deployment_id) + told_here
            accepted.append(taken == _TAKEN and beat.sequence >= least)
            if accepted[-1]:
                self._table.put(msgspec.structs.replace(beat, received_ms=received_ms))
        return accepted

    async def load(self) -> BeatSheet:
        """Hear what all processes were told, and return it with what this one knows."""
        since_ms = self._since_ms
        whole = since_ms is None or since_ms >= self._whole_due_ms
        since = b"" if whole else str(since_ms).encode()
        nothing: list[Any] = [None, b""]
        now_ms, told = await self._valkey.ask(
            lambda client: self._evaluate(client, _LOAD, since), nothing
        )
        self._heard_at(now_ms)
        self._since_ms = now_ms
        table = self._table
        for beat in _unpack_all(told):
            if beat.sequence >= table.last_sequence(beat.deployment_id):
                table.put(beat)
        sheet = self.sheet()
        if whole and now_ms is not None:
            # Who has left may have been told to beat often, when the market was small.
            fresh_ms = sheet.rows["interval_ms"][sheet.fresh()]
            self._whole_due_ms = now_ms + int(fresh_ms.min(initial=WHOLE_EVERY_MS_MAX))
        return sheet

    async def forget(self, listed: Iterable[UUID]) -> None:
        """Forget here and in Valkey who has not been heard for `FORGOTTEN_AFTER_MS`, but for
        `listed`: a deployment of which nothing is known counts as ready."""
        before_ms = self.now_ms() - FORGOTTEN_AFTER_MS
        old = self._table.older_than(before_ms)
        if not old:
            return
        gone = list(set(old).difference(listed))
        self._table.drop(gone)
        for begin in range(0, len(gone), _FORGOTTEN_TOGETHER):
            await self._drop(gone[begin : begin + _FORGOTTEN_TOGETHER], before_ms)

    async def _drop(self, names: Sequence[UUID], before_ms: int) -> None:
        """Drop them from Valkey, but for one that has come back meanwhile."""
        told = b"".join(each.bytes for each in names)
        await self._valkey.ask(
            lambda client: self._evaluate(client, _FORGET, told, b"%015d" % before_ms), []
        )

    def miss(self) -> None:
        """Be told that this process was halted: who came to it meanwhile was not heard, and of many
        who wait to be heard now, the first show a feed that works and all others as missing."""
        self._reachable_since_ms = None

    def sheet(self) -> BeatSheet:
        """Return what is known, without asking."""
        return self._table.sheet(self.now_ms(), self._reachable_since_ms)

    async def _evaluate(self, client: Redis, script: str, *arguments: bytes) -> list[Any]:
        asked = client.eval(script, 2, self.key, self.key + ":since", *arguments)
        return await cast(Awaitable[list[Any]], asked)

    def _heard_at(self, now_ms: int | None) -> None:
        if now_ms is None:
            self._reachable_since_ms = None
            return
        before_ms, self._offset_ms = self._offset_ms, now_ms - int(self._now_s() * 1_000)
        # The clock of a machine that sleeps stands still, and nobody is late on it.
        slept = self._offset_ms - before_ms >= SLEPT_MS
        if slept or self._reachable_since_ms is None:
            self._reachable_since_ms = now_ms


def _pack(beat: Beat) -> bytes:
    said = _Packed(beat.status, beat.interval_ms, beat.running, beat.waiting, beat.kv_usage)
    value = b"%020d%b" % (beat.sequence, _encoder.encode(said))
    return b"%b%03d%b" % (beat.deployment_id.bytes, len(value), value)


def _unpack_all(told: bytes) -> Iterable[Beat]:
    at = 0
    while at < len(told):
        begin = at + _ID_BYTES + _SIZE_DIGITS
        name, end = told[at : at + _ID_BYTES], begin + int(told[at + _ID_BYTES : begin])
        at = end
        try:
            said = _decoder.decode(told[begin + _HEAD_DIGITS : end])
            sequence = int(told[begin : begin + _SEQUENCE_DIGITS])
            if sequence > SEQUENCE_MAX:
                raise ValueError
            yield Beat(
                UUID(bytes=name),
                sequence,
                said.status,
                said.interval_ms,
                said.running,
                said.waiting,
                said.kv_usage,
                int(told[begin + _SEQUENCE_DIGITS : begin + _HEAD_DIGITS]),
            )
        except (ValueError, msgspec.MsgspecError):
            _log.warning("a stored heartbeat is not understood", entry=name.hex())
