"""What a process believes of what the others told, and for how long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import msgspec
import numpy as np
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from broker.core.money.pacing import Pace
from broker.live.breakers import Ejections
from broker.live.bulletin import KEPT_S, QUIET_MS, STALE_MS, Bulletin
from broker.live.callers import Callers
from broker.live.connection import Valkey
from broker.live.loads import Loads, RefusalMeter
from broker.live.paces import Paces

GONE_MS = 60_000
NOW_MS = 1_800_000_000_000
NONSENSE = b"\xc1"

_Answer = TypeVar("_Answer")


class Deleting(Valkey):
    """Knows what it was told to keep, and to delete."""

    def __init__(self) -> None:
        super().__init__("redis://nowhere", "market")
        self.deleted: list[tuple[Any, ...]] = []
        self.kept: dict[str, bytes] = {}

    async def ask(self, question: Callable[[Redis], Awaitable[_Answer]], _: _Answer) -> _Answer:
        return await question(cast(Redis, self))

    async def get(self, key: str) -> bytes | None:
        return self.kept.get(key)

    async def set(self, key: str, value: bytes, *, ex: int) -> None:
        assert ex > 0
        self.kept[key] = value

    async def hdel(self, key: str, *names: bytes) -> int:
        assert names, "Valkey refuses to delete nothing"
        self.deleted.append((key, *names))
        return len(names)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def valkey() -> Deleting:
    return Deleting()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bulletin(valkey: Deleting, clock: Clock) -> Bulletin:
    """That of the process `me`."""
    return Bulletin(valkey, "board", "me", clock)


def told(**ages_ms: int) -> list[bytes]:
    """What each process said so long ago, which is its name, as Valkey tells it."""
    pairs = [(name.encode(), NOW_MS - age_ms) for name, age_ms in ages_ms.items()]
    return [part for name, at_ms in pairs for part in (name, b"%015d%b" % (at_ms, name))]


async def test_nothing_is_believed_before_anything_was_heard(bulletin: Bulletin) -> None:
    assert bulletin.others() == {}


async def test_who_has_said_nothing_for_seconds_is_gone_and_deleted_in_the_end(
    bulletin: Bulletin, valkey: Deleting
) -> None:
    said = told(me=0, fresh=0, late=STALE_MS, gone=STALE_MS + 1, dead=GONE_MS, buried=GONE_MS + 1)
    await bulletin.hear(NOW_MS, said, set())
    assert bulletin.others() == {b"fresh": b"fresh", b"late": b"late"}
    assert valkey.deleted == [(bulletin.key, b"buried")]


async def test_who_was_connected_and_is_no_more_is_gone_soon(bulletin: Bulletin) -> None:
    for _ in range(2):
        await bulletin.hear(NOW_MS, told(here=0, left=0), {b"here", b"left"})
        await bulletin.hear(NOW_MS, told(here=QUIET_MS + 1, left=QUIET_MS), {b"here"})
        assert bulletin.others() == {b"here": b"here", b"left": b"left"}
        await bulletin.hear(NOW_MS, told(here=STALE_MS, left=QUIET_MS + 1), {b"here"})
        assert bulletin.others() == {b"here": b"here"}
    await bulletin.hear(NOW_MS, told(here=0), {b"here"})
    await bulletin.hear(NOW_MS, told(left=QUIET_MS + 1), set())
    assert bulletin.others() == {b"left": b"left"}, "one that was forgotten begins anew"


async def test_what_was_heard_last_is_believed_for_a_while_without_valkey(
    bulletin: Bulletin, clock: Clock
) -> None:
    clock.now_s = 100.0
    await bulletin.hear(NOW_MS, told(other=0), set())
    clock.now_s += KEPT_S - 0.01
    assert bulletin.others() == {b"other": b"other"}
    clock.now_s += 0.01
    assert bulletin.others() == {}


async def test_who_stops_takes_back_what_it_said(bulletin: Bulletin, valkey: Deleting) -> None:
    for each in (Loads(bulletin), Ejections(bulletin), Callers(bulletin)):
        await each.leave()
    assert valkey.deleted == [(bulletin.key, b"me")] * 3


async def hears(bulletin: Bulletin, *said: object) -> None:
    """Have so many other processes say something, and one what nobody understands."""
    flat = [b"nonsense", b"%015d%b" % (NOW_MS, NONSENSE)]
    for number, each in enumerate(said):
        flat += [b"p%d" % number, b"%015d%b" % (NOW_MS, msgspec.msgpack.encode(each))]
    await bulletin.hear(NOW_MS, flat, set())


async def test_what_is_not_understood_of_one_process_does_not_hide_the_others(
    bulletin: Bulletin,
) -> None:
    with capture_logs() as logs:
        await hears(bulletin, [3, 1], [7, 3])
        assert Ejections(bulletin).elsewhere() == {1, 3, 7}
        await hears(bulletin, {"a": 1, "b": 2}, {"b": 3})
        assert Callers(bulletin).elsewhere() == {"a": 1, "b": 5}
        await hears(bulletin, ([1], [2], [0.5], [1.0]))
        assert Loads(bulletin).others(2).in_flight.tolist() == [0, 2]
    assert [each["log_level"] for each in logs] == ["warning"] * 3


async def test_how_long_calls_take_is_weighed_by_how_many_each_process_has(
    bulletin: Bulletin,
) -> None:
    await hears(
        bulletin, ([0, 2], [3, 0], [0.0, 4.0], [1.0, 2.0]), ([0, 2], [1, 4], [0, 0], [5, 6])
    )
    others = Loads(bulletin).others(4)
    assert others.in_flight.tolist() == [4, 0, 4, 0]
    assert others.refused_per_s.tolist() == [0.0, 0.0, 4.0, 0.0]
    assert others.service_s.tolist() == [2.0, 1.0, 4.0, 1.0], "where there are none, one second"


async def test_deployments_that_are_not_known_here_are_left_out(bulletin: Bulletin) -> None:
    await hears(bulletin, ([-1, 1, 2], [1, 2, 3], [0.0] * 3, [1.0] * 3))
    assert Loads(bulletin).others(2).in_flight.tolist() == [0, 2]


def test_the_count_may_shrink_by_deployments() -> None:
    meter = RefusalMeter(1.0)
    meter.per_s(np.array([1, 3]), 1.0)
    meter.per_s(np.array([2, 4]), 2.0)
    assert meter.per_s(np.array([2]), 2.5).tolist() == [1.0]
    assert meter.per_s(np.array([4]), 4.0).tolist() == [1.0]


async def test_a_pace_that_nobody_understands_is_as_if_it_had_not_been_told(
    valkey: Deleting,
) -> None:
    paces, pace = Paces(valkey), Pace(1.5, 7, price=0.25)
    assert await paces.of("k") is None
    await paces.keep("k", pace)
    assert (await paces.of("k"), await paces.of("other")) == (pace, None)
    for key in valkey.kept:
        valkey.kept[key] = NONSENSE
    assert await paces.of("k") is None
