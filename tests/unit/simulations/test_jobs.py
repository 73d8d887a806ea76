"""How a worker hears that nobody waits for its cell any more."""

from __future__ import annotations

import signal
import threading
from typing import cast

import pytest
import redis
from celery import Celery
from celery.exceptions import Ignore, OperationalError

from simulations.cell import run_cell
from simulations.files.load import parse
from simulations.jobs import _hearing_call_off, run_one
from simulations.studies.distributed import CeleryRunner
from simulations.studies.folder import fingerprint
from simulations.studies.lease import LEASE_S, LOOK_S, Awaited, CellsGivenUp, Lease
from simulations.studies.parcel import CALL_OFF, pack
from simulations.studies.plan import make_plan
from tests.integration.simulations.tiny import TOML
from tests.waiting import PATIENCE_S


def test_a_cell_is_called_off_whatever_is_at_work_when_that_is_heard() -> None:
    number = signal.Signals[CALL_OFF]
    before = signal.getsignal(number)
    with _hearing_call_off() as wanted:
        assert wanted(0.0)
        try:
            signal.raise_signal(number)
        except Exception as error:
            raise AssertionError("a controller of prices would have swallowed it") from error
        assert not wanted(1.0)
    assert signal.getsignal(number) is before


def test_a_cell_that_nobody_waits_for_is_not_begun_and_one_under_way_ends() -> None:
    endless = parse(TOML.replace("horizon_s = 40.0", "horizon_s = 40_000_000.0"), "tiny.toml")
    [cell] = make_plan(endless, ["excess"], 1, static=False).cells()
    for answers in ([False], [True, True, True, False]):
        left = iter(answers)
        with pytest.raises(Ignore):
            run_one(pack(cell), fingerprint(), lambda: next(left))  # noqa: B023 - is run at once
        assert next(left, None) is None


class Store:
    """Keeps results as Valkey does, for as long as they are to be kept."""

    connection_errors = (redis.ConnectionError,)

    def __init__(self) -> None:
        self.now_s = 0.0
        self.is_gone = False
        self.often_renewed = threading.Event()
        self._renewals = 0
        self._until_s: dict[str, float] = {}

    @property
    def client(self) -> Store:
        return self

    def set(self, name: str, _: str, *, ex: int) -> None:
        self._until_s[name] = self.now_s + ex

    def expire(self, name: str, seconds: int) -> bool:
        self._renewals += 1
        if self._renewals > 2:
            self.often_renewed.set()
        is_there = self.exists(name)
        if is_there:
            self._until_s[name] = self.now_s + seconds
        return is_there

    def exists(self, name: str) -> bool:
        if self.is_gone:
            raise redis.ConnectionError
        return self._until_s.get(name, 0.0) > self.now_s


def test_a_cell_is_awaited_while_who_waits_says_so_and_a_while_longer() -> None:
    store = Store()
    lease = Lease(store, lambda: store.now_s)
    awaited = Awaited(store, lease.name, lambda: store.now_s)
    for _ in range(10):
        store.now_s += LEASE_S - 1
        lease.renew()
        lease.require()
        assert awaited()
    store.now_s += LEASE_S + LOOK_S
    assert not awaited()
    for _ in range(2):
        with pytest.raises(CellsGivenUp, match="the same command goes on"):
            lease.require()
        lease.renew()


def test_a_lease_outlasts_a_store_that_is_away_for_a_moment_and_no_longer_than_cells_wait() -> None:
    store = Store()
    lease = Lease(store, lambda: store.now_s)
    store.is_gone = True
    store.now_s += LEASE_S - 1
    lease.renew()
    lease.require()
    store.is_gone = False
    lease.renew()
    store.is_gone = True
    store.now_s += LEASE_S - 1
    lease.renew()
    lease.require()
    store.now_s += 1
    with pytest.raises(CellsGivenUp):
        lease.require()


def test_a_lease_is_renewed_whatever_else_is_done_meanwhile_until_it_is_left() -> None:
    store = Store()
    with Lease(store, lambda: store.now_s, every_s=0.001) as lease:
        assert store.often_renewed.wait(PATIENCE_S)
        assert any(each.name == lease.name for each in threading.enumerate())
    assert not any(each.name == lease.name for each in threading.enumerate())


class Sent:
    """A cell that has been sent, as much of a result as a runner looks at."""

    id = "cell"

    def __init__(self, store: Store, told: str) -> None:
        self._store = store
        self._told = told

    def ready(self) -> bool:
        return self._store.exists("") or True

    def get(self, *, propagate: bool) -> str:
        return self._told

    def forget(self) -> None:
        self._store.exists("")


class Workers:
    """As much of a Celery app as a runner looks at: cells end at once. The store is away when each
    is asked about, or forgotten, for the first time."""

    def __init__(self, told: str) -> None:
        self.backend = Store()
        self.control = self
        self._told = told

    def send_task(self, *_: object, **__: object) -> Sent:
        self.backend.is_gone = True
        return Sent(self.backend, self._told)

    def revoke(self, *_: object, **__: object) -> None:
        raise OperationalError


def test_a_sweep_goes_on_while_its_store_is_away_for_a_moment() -> None:
    [cell] = make_plan(parse(TOML, "tiny.toml"), ["excess"], 1, static=False).cells()
    outcome = run_cell(cell)
    workers = Workers(pack(outcome))
    looks: list[float] = []

    def told(done: float) -> bool:
        looks.append(done)
        workers.backend.is_gone = False
        return True

    runner = CeleryRunner(cast(Celery, workers), told)
    outcomes = []
    for each in runner.run([cell]):
        outcomes.append(each)
        workers.backend.is_gone = True
    assert [pack(each) for each in outcomes] == [pack(outcome)]
    assert looks == [0, 1]


def test_a_sweep_whose_store_stays_away_ends_with_its_lease() -> None:
    [cell] = make_plan(parse(TOML, "tiny.toml"), ["excess"], 1, static=False).cells()
    workers = Workers("")
    clock = workers.backend

    def told(_: float) -> bool:
        clock.now_s += LEASE_S - 1
        return clock.now_s < 10 * LEASE_S

    with pytest.raises(CellsGivenUp):
        list(CeleryRunner(cast(Celery, workers), told, lambda: clock.now_s).run([cell]))


def test_a_store_that_cannot_be_asked_ends_no_cell() -> None:
    store = Store()
    lease = Lease(store, lambda: store.now_s)
    awaited = Awaited(store, lease.name, lambda: store.now_s)
    store.is_gone = True
    for _ in range(3):
        store.now_s += LOOK_S
        assert awaited()
    store.is_gone, store.now_s = False, LEASE_S + 1.0
    assert not awaited()
