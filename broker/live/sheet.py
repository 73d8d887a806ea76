"""The last heartbeat of every deployment, as columns: thousands are looked at twice a second."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

import msgspec
import numpy as np
from numpy.typing import NDArray

from broker.core.columns import Bools, Numbers
from broker.core.market import Presence
from provider_sdk.protocol import REPORTED_CALLS_MAX

MISSED_INTERVALS: Final = 3.5
"""Out after three missed heartbeats, and half an interval for jitter and the way here."""
UNTOLD: Final = -1
"""In place of a count."""
_ABSURD: Final = -2
"""What another process let in may be beyond an array's numbers, which would stop all prices."""
_INTERVAL_MS_MAX: Final = 2**53
_ROW: Final = np.dtype(
    [
        ("sequence", np.int64),
        ("received_ms", np.int64),
        ("interval_ms", np.int64),
        ("running", np.int64),
        ("waiting", np.int64),
        ("kv_usage", np.float64),
        ("presence", np.int64),
    ]
)
_Rows = NDArray[np.void]


class Beat(msgspec.Struct, frozen=True, gc=False):
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


@dataclass(frozen=True, slots=True, eq=False)
class BeatSheet:
    """All last heartbeats at one moment of the feed's clock; one row each, in the order of seats.

    Of counts, below zero is what was not told or was absurd.
    """

    rows: _Rows
    seats: Mapping[bytes, int]
    """By the bytes of ids, of which a UUID takes three times as many. Grows while it is the
    table's: a seat beyond the rows is of one heard later."""
    now_ms: int
    reachable_since_ms: int | None
    """Since when Valkey has answered without a break; None while it is away."""

    @property
    def ids(self) -> set[UUID]:
        """Of whom there is a beat."""
        return {UUID(bytes=name) for name, seat in self.seats.items() if seat < self.rows.size}

    def beat(self, deployment_id: UUID) -> Beat | None:
        """Return one of them as a value; what was absurd as if it had not been told."""
        seat = self.seats.get(deployment_id.bytes, self.rows.size)
        if seat >= self.rows.size:
            return None
        sequence, received_ms, interval_ms, running, waiting, kv_usage, presence = self.rows[
            seat
        ].tolist()
        return Beat(
            deployment_id,
            sequence,
            _STATUSES[presence],
            interval_ms,
            running if running >= 0 else None,
            waiting if waiting >= 0 else None,
            kv_usage if kv_usage == kv_usage else None,
            received_ms,
        )

    def fresh(self) -> Bools:
        """Say whose beats have not been missed three times since. Time in which none could be heard
        does not count."""
        heard_ms = np.maximum(self.rows["received_ms"], self.reachable_since_ms or 0)
        return self._on_time(heard_ms)

    def is_live(self) -> bool:
        """True when the feed as a whole works: Valkey is there and somebody's beats arrive."""
        if self.reachable_since_ms is None:
            return False
        return bool(self._on_time(self.rows["received_ms"]).any())

    def _on_time(self, heard_ms: Numbers) -> Bools:
        on_time: Bools = self.now_ms - heard_ms <= MISSED_INTERVALS * self.rows["interval_ms"]
        return on_time


class BeatTable:
    """The columns of one process, which it writes to as it hears."""

    def __init__(self) -> None:
        self._seats: dict[bytes, int] = {}
        self._keep(np.zeros(0, dtype=_ROW))

    def put(self, beat: Beat) -> None:
        """Replace what was last heard of the deployment."""
        seat = self._seats.setdefault(beat.deployment_id.bytes, len(self._seats))
        if seat >= self._rows.size:
            wider = np.zeros(seat + seat // 4 + 64, dtype=_ROW)
            wider[:seat] = self._rows[:seat]
            self._keep(wider)
        self._rows[seat] = (
            beat.sequence,
            beat.received_ms,
            min(beat.interval_ms, _INTERVAL_MS_MAX),
            _count(beat.running),
            _count(beat.waiting),
            np.nan if beat.kv_usage is None else beat.kv_usage,
            _PRESENCES[beat.status],
        )

    def last_sequence(self, deployment_id: UUID) -> int:
        """Return the sequence of the last beat, 0 where none was heard."""
        seat = self._seats.get(deployment_id.bytes)
        return 0 if seat is None else self._sequences.item(seat)

    def older_than(self, received_ms: int) -> list[UUID]:
        """Return whose last beat came before then."""
        old = (self._rows["received_ms"][: len(self._seats)] < received_ms).tolist()
        return [UUID(bytes=name) for name, seat in self._seats.items() if old[seat]]

    def drop(self, names: Collection[UUID]) -> None:
        """Forget what was heard of these."""
        gone = {each.bytes for each in names}
        kept = {name: seat for name, seat in self._seats.items() if name not in gone}
        self._keep(self._rows[np.fromiter(kept.values(), dtype=np.int64, count=len(kept))])
        self._seats = {name: seat for seat, name in enumerate(kept)}

    def sheet(self, now_ms: int, reachable_since_ms: int | None) -> BeatSheet:
        """Return all as it is now."""
        # As plain numbers: row by row it takes three times as long.
        rows = self._rows[: len(self._seats)].view(np.int64).copy().view(_ROW)
        return BeatSheet(rows, self._seats, now_ms, reachable_since_ms)

    def _keep(self, rows: _Rows) -> None:
        self._rows = rows
        self._sequences: Numbers = rows["sequence"]


class Roster:
    """Deployments whose beats somebody looks for, again and again: where each stands in the columns
    is looked up only when somebody new was heard."""

    def __init__(self, numbers: Mapping[UUID, int]) -> None:
        """`numbers`: the deployments' own, by id."""
        self.ids = tuple(numbers)
        self._numbers: Numbers = np.fromiter(numbers.values(), dtype=np.int64, count=len(numbers))
        self._seen: tuple[Mapping[bytes, int], int] | None = None
        self._heard: tuple[Numbers, Numbers] = (self._numbers[:0], self._numbers[:0])

    def heard(self, sheet: BeatSheet) -> tuple[Numbers, Numbers]:
        """Return (seats, deployment numbers) of those of whom there is a beat."""
        size = sheet.rows.size
        if self._seen is None or self._seen[0] is not sheet.seats or self._seen[1] != size:
            found = [sheet.seats.get(each.bytes, size) for each in self.ids]
            seats: Numbers = np.array(found, dtype=np.int64)
            there = seats < size
            self._seen, self._heard = (sheet.seats, size), (seats[there], self._numbers[there])
        return self._heard


def judge(sheet: BeatSheet, roster: Roster, before: Mapping[int, Presence]) -> dict[int, Presence]:
    """Return who is not ready, by deployment number; `before` is the last answer.

    What a deployment says of itself counts while its beat is fresh. A beat that is not fresh means
    down, but only in a live feed: a stale one leaves everybody as they were before.
    """
    seats, numbers = roster.heard(sheet)
    fresh, said = sheet.fresh()[seats], sheet.rows["presence"][seats]
    odd = np.flatnonzero(~fresh | (said != Presence.READY))
    live = odd.size > 0 and sheet.is_live()
    absent: dict[int, Presence] = {}
    for at in odd.tolist():
        number, presence = int(numbers[at]), Presence(said[at])
        if not fresh[at]:
            presence = Presence.DOWN if live else before.get(number, presence)
        if presence is not Presence.READY:
            absent[number] = presence
    return absent


def _count(told: int | None) -> int:
    if told is None:
        return UNTOLD
    return told if 0 <= told <= REPORTED_CALLS_MAX else _ABSURD


_PRESENCES: Final = {
    "ready": Presence.READY,
    "draining": Presence.DRAINING,
    "down": Presence.DOWN,
}
_STATUSES: Final[dict[int, Literal["ready", "draining", "down"]]] = {
    Presence.READY: "ready",
    Presence.DRAINING: "draining",
    Presence.DOWN: "down",
}
