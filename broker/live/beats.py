"""The last heartbeat of every deployment, told to all processes; who is out for want of one."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast
from uuid import UUID

import msgspec
import structlog
from redis.asyncio import Redis

from broker.core.market import Presence
from broker.live.connection import Valkey

_log = structlog.get_logger(__name__)

MISSED_INTERVALS: Final = 3.5
"""Out after three missed heartbeats, and half an interval for jitter and the way here."""

_SEQUENCE_DIGITS: Final = 20
_HEAD_DIGITS: Final = _SEQUENCE_DIGITS + 15

# Sequences are compared as text of equal length, for Lua's numbers are too coarse for nanoseconds.
# Valkey's clock stamps each beat, so that the clocks of the processes need not agree.
_STORE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local stamp = string.format('%015d', now)
local taken = {}
for i = 1, #ARGV, 2 do
  local old = redis.call('HGET', KEYS[1], ARGV[i])
  local new = ARGV[i + 1]
  local sequence = string.sub(new, 1, 20)
  if old and string.sub(old, 1, 20) >= sequence then
    taken[#taken + 1] = 0
  else
    redis.call('HSET', KEYS[1], ARGV[i], sequence .. stamp .. string.sub(new, 21))
    taken[#taken + 1] = 1
  end
end
return {now, taken}
"""
_LOAD: Final = """
local time = redis.call('TIME')
return {time[1] * 1000 + math.floor(time[2] / 1000), redis.call('HGETALL', KEYS[1])}
"""


@dataclass(frozen=True, slots=True)
class Beat:
    """What a deployment last said of itself; `received_ms` is of the feed's clock."""

    deployment_id: UUID
    sequence: int
    """From 1 to 2^63 - 1."""
    status: Literal["ready", "draining", "down"]
    interval_ms: int
    """The next one is due after so long: what its agent was told."""
    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None
    received_ms: int = 0

    @property
    def allowance_ms(self) -> float:
        """How old it may become before its deployment is out."""
        return MISSED_INTERVALS * self.interval_ms


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    status: Literal["ready", "draining", "down"]
    interval_ms: int
    running: int | None
    waiting: int | None
    kv_usage: float | None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Packed)


@dataclass(frozen=True, slots=True)
class BeatSheet:
    """All last heartbeats at one moment of the feed's clock."""

    beats: Mapping[UUID, Beat]
    now_ms: int
    reachable_since_ms: int | None
    """Since when Valkey has answered without a break; None while it is away."""

    def age_ms(self, beat: Beat) -> int:
        """How long a beat has been the last; time in which none could be heard does not count."""
        return self.now_ms - max(beat.received_ms, self.reachable_since_ms or 0)

    def is_fresh(self, beat: Beat) -> bool:
        """True when no three beats have been missed since."""
        return self.age_ms(beat) <= beat.allowance_ms

    def is_live(self) -> bool:
        """True when the feed as a whole works: Valkey is there and somebody's beats arrive."""
        return self.reachable_since_ms is not None and any(
            self.now_ms - beat.received_ms <= beat.allowance_ms for beat in self.beats.values()
        )


def judge(
    sheet: BeatSheet, numbers: Mapping[UUID, int], before: Mapping[int, Presence]
) -> dict[int, Presence]:
    """Return who is not ready, by the deployment numbers of `numbers`; `before` is the last answer.

    What a deployment says of itself counts while its beat is fresh. A beat that is not fresh means
    down, but only in a live feed: a stale one leaves everybody as they were before.
    """
    live = sheet.is_live()
    absent: dict[int, Presence] = {}
    for deployment_id, number in numbers.items():
        beat = sheet.beats.get(deployment_id)
        if beat is None:
            continue
        if sheet.is_fresh(beat):
            presence = Presence[beat.status.upper()]
        elif live:
            presence = Presence.DOWN
        else:
            presence = before.get(number, Presence[beat.status.upper()])
        if presence is not Presence.READY:
            absent[number] = presence
    return absent


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
        self._key = valkey.key("beats")
        self._now_s = now_s
        self._offset_ms = int((wall_s() - now_s()) * 1_000)
        self._known: dict[UUID, Beat] = {}
        self._reachable_since_ms: int | None = None

    def now_ms(self) -> int:
        """Return the feed's clock: Valkey's, carried on by our own while it is away."""
        return int(self._now_s() * 1_000) + self._offset_ms

    def last_sequence(self, deployment_id: UUID) -> int:
        """Return the highest sequence this process knows of, 0 when none."""
        beat = self._known.get(deployment_id)
        return 0 if beat is None else beat.sequence

    async def accept(self, beats: Sequence[Beat]) -> list[bool]:
        """Store beats; False for one whose sequence is not above the last any process had."""
        arguments: list[bytes] = []
        for beat in beats:
            arguments += [beat.deployment_id.bytes, _pack(beat)]
        everything: list[Any] = [None, [1] * len(beats)]
        answer = await self._valkey.ask(
            lambda client: self._evaluate(client, _STORE, arguments), everything
        )
        self._heard_at(answer[0])
        received_ms = self.now_ms()
        accepted = []
        for beat, taken in zip(beats, answer[1], strict=True):
            accepted.append(bool(taken) and beat.sequence > self.last_sequence(beat.deployment_id))
            if accepted[-1]:
                self._known[beat.deployment_id] = _received(beat, received_ms)
        return accepted

    async def load(self) -> BeatSheet:
        """Hear what all processes were told, and return it with what this one knows."""
        nothing: list[Any] = [None, []]
        now_ms, flat = await self._valkey.ask(
            lambda client: self._evaluate(client, _LOAD, []), nothing
        )
        self._heard_at(now_ms)
        for beat in _unpack_all(zip(flat[::2], flat[1::2], strict=True)):
            if beat.sequence >= self.last_sequence(beat.deployment_id):
                self._known[beat.deployment_id] = beat
        return self.sheet()

    def sheet(self) -> BeatSheet:
        """Return what is known, without asking."""
        return BeatSheet(dict(self._known), self.now_ms(), self._reachable_since_ms)

    async def _evaluate(self, client: Redis, script: str, arguments: list[bytes]) -> list[Any]:
        asked = client.eval(script, 1, self._key, *arguments)
        return await cast(Awaitable[list[Any]], asked)

    def _heard_at(self, now_ms: int | None) -> None:
        if now_ms is None:
            self._reachable_since_ms = None
            return
        self._offset_ms = now_ms - int(self._now_s() * 1_000)
        if self._reachable_since_ms is None:
            self._reachable_since_ms = now_ms


def _pack(beat: Beat) -> bytes:
    said = _Packed(beat.status, beat.interval_ms, beat.running, beat.waiting, beat.kv_usage)
    return f"{beat.sequence:0{_SEQUENCE_DIGITS}d}".encode() + _encoder.encode(said)


def _unpack_all(entries: Iterable[tuple[bytes, bytes]]) -> Iterable[Beat]:
    for name, value in entries:
        try:
            said = _decoder.decode(value[_HEAD_DIGITS:])
            yield Beat(
                deployment_id=UUID(bytes=name),
                sequence=int(value[:_SEQUENCE_DIGITS]),
                status=said.status,
                interval_ms=said.interval_ms,
                running=said.running,
                waiting=said.waiting,
                kv_usage=said.kv_usage,
                received_ms=int(value[_SEQUENCE_DIGITS:_HEAD_DIGITS]),
            )
        except (ValueError, msgspec.MsgspecError):
            _log.warning("a stored heartbeat is not understood", entry=name.hex())


def _received(beat: Beat, received_ms: int) -> Beat:
    return Beat(
        beat.deployment_id,
        beat.sequence,
        beat.status,
        beat.interval_ms,
        beat.running,
        beat.waiting,
        beat.kv_usage,
        received_ms,
    )
