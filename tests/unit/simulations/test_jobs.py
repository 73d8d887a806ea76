"""How a worker hears that nobody waits for its cell any more."""

from __future__ import annotations

import signal

import pytest
from celery.exceptions import Ignore

from simulations.files.load import parse
from simulations.jobs import _hearing_call_off, run_one
from simulations.studies.folder import fingerprint
from simulations.studies.lease import LEASE_S, LOOK_S, Awaited, CellsGivenUp, Lease
from simulations.studies.parcel import CALL_OFF, pack
from simulations.studies.plan import make_plan
from tests.integration.simulations.tiny import TOML


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

    connection_errors = (OSError,)

    def __init__(self) -> None:
        self.now_s = 0.0
        self.is_gone = False
        self._until_s: dict[str, float] = {}

    @property
    def client(self) -> Store:
        return self

    def set(self, name: str, _: str, *, ex: int) -> None:
        self._until_s[name] = self.now_s + ex

    def expire(self, name: str, seconds: int) -> bool:
        is_there = self.exists(name)
        if is_there:
            self._until_s[name] = self.now_s + seconds
        return is_there

    def exists(self, name: str) -> bool:
        if self.is_gone:
            raise OSError
        return self._until_s.get(name, 0.0) > self.now_s


def test_a_cell_is_awaited_while_who_waits_says_so_and_a_while_longer() -> None:
    store = Store()
    lease = Lease(store, lambda: store.now_s)
    awaited = Awaited(store, lease.name, lambda: store.now_s)
    for _ in range(10):
        store.now_s += LEASE_S - 1
        lease.renew()
        assert awaited()
    store.now_s += LEASE_S + LOOK_S
    assert not awaited()
    with pytest.raises(CellsGivenUp, match="the same command goes on"):
        lease.renew()


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
