"""Who is let go where there is no room for one more caller."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from broker.server.files import connections_max
from broker.server.limits import ServerLimits
from broker.server.shedding import Shedding
from broker.server.uploads import Uploads


@dataclass(eq=False)
class Caller:
    """A connection that asks what it is told to ask."""

    crowd: set[Caller] = field(repr=False)
    idle_since: float
    asks_nothing: bool = True
    has_begun: bool = False
    has_unread: bool = False
    closed: bool = False

    def __post_init__(self) -> None:
        self.crowd.add(self)

    def abort(self) -> None:
        self.closed = True
        self.crowd.discard(self)


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_who_has_asked_nothing_for_longest_is_let_go_first() -> None:
    crowd: set[Caller] = set()
    shedding = Shedding(crowd, 4, Uploads(ServerLimits(), Clock()), Clock())
    busy = Caller(crowd, 1.0, asks_nothing=False)
    callers = [Caller(crowd, since, has_begun=since == 2.0) for since in (5.0, 2.0, 3.0)]
    gone = []
    for _ in range(3):
        assert shedding.make_room()
        gone += [each.idle_since for each in callers if each.closed and each.idle_since not in gone]
        Caller(crowd, 50.0, asks_nothing=False)
    assert gone == [3.0, 5.0, 2.0]
    assert not shedding.make_room()
    assert not busy.closed


def test_nobody_is_let_go_while_there_is_room() -> None:
    crowd: set[Caller] = set()
    caller = Caller(crowd, 1.0)
    assert Shedding(crowd, 2, Uploads(ServerLimits(), Clock()), Clock()).make_room()
    assert not caller.closed


def test_who_has_asked_since_the_last_look_stays() -> None:
    crowd: set[Caller] = set()
    clock = Clock()
    shedding = Shedding(crowd, 3, Uploads(ServerLimits(), clock), clock)
    first, again, asking = (Caller(crowd, since) for since in (1.0, 2.0, 3.0))
    assert shedding.make_room()
    assert first.closed
    newcomer = Caller(crowd, 100.0)
    again.idle_since = 100.5
    asking.asks_nothing = False
    assert not shedding.make_room()
    clock.now_s += 0.9
    assert not shedding.make_room(), "who came or was served within a second is about to ask"
    clock.now_s += 0.3
    assert shedding.make_room()
    assert (newcomer.closed, again.closed, asking.closed) == (True, False, False)


def test_who_was_served_since_the_last_look_goes_after_who_has_been_idle_for_longer() -> None:
    crowd: set[Caller] = set()
    clock = Clock()
    shedding = Shedding(crowd, 3, Uploads(ServerLimits(), clock), clock)
    callers = [Caller(crowd, since) for since in (1.0, 2.0, 3.0)]
    assert shedding.make_room()
    callers[1].idle_since = 100.1
    Caller(crowd, 100.2)
    clock.now_s += 2.0
    assert shedding.make_room()
    assert [each.closed for each in callers] == [True, False, True]


def test_one_who_is_idle_is_found_among_thousands_who_have_asked_for_longer() -> None:
    crowd: set[Caller] = set()
    for number in range(2_000):
        Caller(crowd, float(number % 50), asks_nothing=False)
    idle = Caller(crowd, 60.0)
    shedding = Shedding(crowd, 2_001, Uploads(ServerLimits(), Clock()), Clock())
    assert shedding.make_room()
    assert idle.closed


class Crowd(set[Caller]):
    """Counts how often all are looked at."""

    looks = 0

    def __iter__(self) -> Iterator[Caller]:
        self.looks += 1
        return super().__iter__()


def test_however_many_come_all_are_looked_at_a_few_times_a_second_at_most() -> None:
    crowd, clock = Crowd(), Clock()
    shedding = Shedding(crowd, 1, Uploads(ServerLimits(), clock), clock)
    Caller(crowd, 1.0, asks_nothing=False)
    for _ in range(100):
        clock.now_s += 0.01
        assert not shedding.make_room()
    assert 3 <= crowd.looks <= 5


def test_who_has_begun_goes_after_all_others_though_they_became_idle_later() -> None:
    crowd: set[Caller] = set()
    clock = Clock()
    shedding = Shedding(crowd, 2, Uploads(ServerLimits(), clock), clock)
    first, begun = Caller(crowd, 1.0), Caller(crowd, 2.0, has_begun=True)
    assert shedding.make_room()
    assert first.closed
    later = Caller(crowd, 100.0)
    clock.now_s += 2.0
    assert shedding.make_room()
    assert (later.closed, begun.closed) == (True, False)


def test_who_is_idle_is_found_though_all_who_were_at_the_last_look_have_left() -> None:
    crowd: set[Caller] = set()
    clock = Clock()
    shedding = Shedding(crowd, 3, Uploads(ServerLimits(), clock), clock)
    callers = [Caller(crowd, since) for since in (1.0, 2.0, 3.0)]
    assert shedding.make_room()
    for each in callers:
        each.asks_nothing = False
        crowd.discard(each)
    idle = [Caller(crowd, since) for since in (100.0, 101.0, 102.0)]
    clock.now_s += 10.0
    assert shedding.make_room()
    assert [each.closed for each in idle] == [True, False, False]


def test_who_has_asked_what_is_yet_to_be_read_stays() -> None:
    crowd: set[Caller] = set()
    asking, idle = Caller(crowd, 1.0, has_unread=True), Caller(crowd, 2.0)
    assert Shedding(crowd, 2, Uploads(ServerLimits(), Clock()), Clock()).make_room()
    assert (asking.closed, idle.closed) == (False, True)


@pytest.mark.parametrize(
    ("files", "calls", "callers"),
    [(300, 2_000, 118), (1_024, 2_000, 480), (20_000, 2_000, 17_936), (50, 2_000, 1)],
)
def test_a_file_is_kept_for_each_call_and_some_for_the_ledger(
    monkeypatch: pytest.MonkeyPatch, files: int, calls: int, callers: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert connections_max(calls) == callers


def test_where_files_have_no_limit_callers_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert connections_max(2_000) > 2**40
