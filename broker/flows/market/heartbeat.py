"""Takes a batch of signed heartbeats: believes each on its own, and says when to come again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Final, TypeVar
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.flows.process.outage import Outage
from broker.live.beats import SEQUENCE_MAX, Beats
from broker.live.sheet import Beat
from broker.store.away import DATABASE_AWAY
from broker.store.market import deployments
from broker.store.market.stamps import NOTHING, standing
from broker.store.sealing import Sealer
from provider_sdk.protocol import (
    Heartbeat,
    HeartbeatBatch,
    HeartbeatReply,
    HeartbeatResult,
    SignedHeartbeat,
)
from provider_sdk.signing import Doubt, examine

_Each = TypeVar("_Each")

_log = structlog.get_logger(__name__)

DEPLOYMENTS_PER_INTERVAL: Final = 200
"""So many deployments may beat at the shortest interval; with more it grows in proportion."""
INTERVAL_MS_MAX: Final = 30_000
KEYS_LOADED_EVERY_S: Final = 1.0
"""Strangers' ids make us look for new deployments no more often than this."""
_DATABASE_S: Final = 5.0
"""The database has so long to tell them."""
LOADED_TOGETHER: Final = 200
"""So many keys are opened without a break: two milliseconds."""
TOGETHER: Final = 50
"""So many of a batch are examined without a break: a millisecond and a half."""


def interval_ms(shortest_ms: int, deployments_known: int) -> int:
    """Return how often each agent shall beat, in ms."""
    grown = shortest_ms * deployments_known // DEPLOYMENTS_PER_INTERVAL
    return min(max(shortest_ms, grown), max(shortest_ms, INTERVAL_MS_MAX))


class HeartbeatDesk:
    """Knows every deployment's signing key, and where its last heartbeat left off."""

    def __init__(
        self,
        engine: AsyncEngine,
        sealer: Sealer,
        beats: Beats,
        shortest_ms: int,
        *,
        wall_s: Callable[[], float] = time.time,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._sealer = sealer
        self._beats = beats
        self._shortest_ms = shortest_ms
        self._wall_s = wall_s
        self._now_s = now_s
        self._ahead_s = wall_s() - now_s()
        """Of the wall clock before the other, when both were first read."""
        self._keys: Mapping[bytes, bytes] = {}
        """By the bytes of ids, of which a UUID takes three times as many."""
        self._stamps = NOTHING
        """Of the deployments whose keys are known."""
        self._load_again_at_s = 0.0
        self._current = False
        self._changes = 0
        self._loading = asyncio.Lock()
        self._outage = Outage(
            "signing_keys_not_loaded",
            "signing_keys_loaded_again",
            "heartbeats of new deployments are not believed until PostgreSQL answers",
        )

    def forget_keys(self) -> None:
        """Be told that the catalog has changed: a deployment may have come or gone."""
        self._current = False
        self._changes += 1
        self._load_again_at_s = 0.0

    def interval_ms(self) -> int:
        """Return the interval that agents are asked for now."""
        return interval_ms(self._shortest_ms, len(self._keys))

    async def receive(self, batch: HeartbeatBatch) -> HeartbeatReply:
        """Take a batch; each heartbeat has its own result, in the same order."""
        told, ids = batch.heartbeats, list[UUID | None]()
        for part in _parts(told):
            ids += map(_id_of, part)
            await asyncio.sleep(0)  # calls come between
        await self._know(ids)  # of all at once: within a second there is one look for strange ones
        results: list[HeartbeatResult] = []
        for part, part_ids in zip(_parts(told), _parts(ids), strict=True):
            results += await self._take(part, part_ids)
            await asyncio.sleep(0)
        return HeartbeatReply(interval_ms=self.interval_ms(), results=results)

    async def _take(
        self, heartbeats: Sequence[SignedHeartbeat], ids: Sequence[UUID | None]
    ) -> list[HeartbeatResult]:
        results = [self._examine(*each) for each in zip(heartbeats, ids, strict=True)]
        believed = [each for each in results if isinstance(each, Beat)]
        accepted = iter(await self._beats.accept(believed) if believed else ())
        return [
            _taken(signed, next(accepted)) if isinstance(each, Beat) else each
            for signed, each in zip(heartbeats, results, strict=True)
        ]

    def _examine(
        self, signed: SignedHeartbeat, deployment_id: UUID | None
    ) -> Beat | HeartbeatResult:
        key = None if deployment_id is None else self._keys.get(deployment_id.bytes)
        if deployment_id is None or key is None:
            return HeartbeatResult(
                deployment_id=signed.deployment_id,
                accepted=False,
                reason="unknown_deployment",
                # While the database is away, unknown may only mean not loaded.
                register_again=self._current,
            )
        heartbeat = self._believe(signed, key.hex(), self._beats.last_sequence(deployment_id))
        if isinstance(heartbeat, str):
            return HeartbeatResult(
                deployment_id=signed.deployment_id, accepted=False, reason=heartbeat
            )
        if heartbeat.sequence > SEQUENCE_MAX:
            return HeartbeatResult(
                deployment_id=signed.deployment_id, accepted=False, reason="malformed"
            )
        return self._beat(deployment_id, heartbeat)

    def _believe(self, signed: SignedHeartbeat, key: str, last_sequence: int) -> Heartbeat | Doubt:
        """Examine one by the wall clock, and by what that would show had it not jumped since.

        Else every provider would be gone as soon as somebody sets the broker's clock wrong; or for
        ever, where it was wrong at first.
        """
        now_s = self._wall_s()
        found = examine(signed, key, last_sequence=last_sequence, now_ms=int(now_s * 1_000))
        if found == "clock_skew":
            now_s = self._now_s() + self._ahead_s
            found = examine(signed, key, last_sequence=last_sequence, now_ms=int(now_s * 1_000))
        return found

    def _beat(self, deployment_id: UUID, heartbeat: Heartbeat) -> Beat:
        return Beat(
            deployment_id=deployment_id,
            sequence=heartbeat.sequence,
            status=heartbeat.status,
            interval_ms=self.interval_ms(),
            running=heartbeat.load.running,
            waiting=heartbeat.load.waiting,
            kv_usage=heartbeat.load.kv_usage,
        )

    async def _know(self, ids: Sequence[UUID | None]) -> None:
        """Load the keys when they have changed, or those of ids that are not among them.

        Who is known waits for nobody else's look, which may hang for as long as the database.
        """
        if not self._is_due(ids) or (self._loading.locked() and not self._strange(ids)):
            return
        async with self._loading:  # what is read first is kept first: none puts older keys back
            if self._is_due(ids):
                self._load_again_at_s = self._now_s() + KEYS_LOADED_EVERY_S
                await self._load(self._strange(ids))

    def _is_due(self, ids: Sequence[UUID | None]) -> bool:
        if self._now_s() < self._load_again_at_s:
            return False
        return not self._current or bool(self._strange(ids))

    def _strange(self, ids: Sequence[UUID | None]) -> set[UUID]:
        return {each for each in ids if each is not None and each.bytes not in self._keys}

    async def _load(self, strange: Set[UUID]) -> None:
        changes = self._changes
        try:
            async with asyncio.timeout(_DATABASE_S), self._engine.connect() as connection:
                if self._current:
                    self._keys = await self._opened(connection, strange, self._keys)
                else:
                    await self._catch_up(connection)
        except DATABASE_AWAY as error:
            self._current = False
            self._load_again_at_s = self._now_s() + KEYS_LOADED_EVERY_S  # all who waited, too
            self._outage.met(error)
            return
        self._outage.over()
        self._current = changes == self._changes

    async def _catch_up(self, connection: AsyncConnection) -> None:
        """Load the keys of those deployments that have come, changed or gone."""
        stamps = await deployments.signing_stamps(connection)
        there, before = {*stamps["number"].tolist()}, {*self._stamps["number"].tolist()}
        changed = (there | before) - {*standing(self._stamps, stamps).tolist()}
        keys = await self._opened(connection, changed, self._keys)
        if len(keys) != len(there):
            # A restored backup knows nothing of some, and gives their numbers to others.
            keys = await self._opened(connection, there, {})
        self._keys, self._stamps = keys, stamps

    async def _opened(
        self, connection: AsyncConnection, which: Set[UUID] | Set[int], known: Mapping[bytes, bytes]
    ) -> Mapping[bytes, bytes]:
        """Return these keys, read a few at a time, beside those that are known."""
        keys, wanted = dict(known), [*which]
        for part in (
            wanted[at : at + LOADED_TOGETHER] for at in range(0, len(wanted), LOADED_TOGETHER)
        ):
            told = await deployments.load_signing_keys(connection, self._sealer, part)
            for deployment_id, key in told.items():
                if key is None:
                    keys.pop(deployment_id.bytes, None)
                else:
                    keys[deployment_id.bytes] = key
            await asyncio.sleep(0)  # calls come between
        return keys


def _parts(whole: Sequence[_Each]) -> Iterator[Sequence[_Each]]:
    return (whole[begin : begin + TOGETHER] for begin in range(0, len(whole), TOGETHER))


def _id_of(signed: SignedHeartbeat) -> UUID | None:
    try:
        return UUID(signed.deployment_id)
    except ValueError:
        return None


def _taken(signed: SignedHeartbeat, accepted: bool) -> HeartbeatResult:
    return HeartbeatResult(
        deployment_id=signed.deployment_id,
        accepted=accepted,
        reason="" if accepted else "replayed",
    )
