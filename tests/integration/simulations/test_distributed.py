"""Sweeps on real Celery workers, `broker sweep --distributed` too: the same numbers as here."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from celery import Celery
from msgspec.structs import replace

from broker.settings import Settings
from broker.worker import create_app
from simulations.cell import Cell, CellStopped, Outcome
from simulations.files.load import parse
from simulations.studies.bench import Bench
from simulations.studies.distributed import CeleryRunner
from simulations.studies.folder import StudyFolder, fingerprint
from simulations.studies.lease import Lease
from simulations.studies.local import LocalRunner
from simulations.studies.parcel import CELL_TASK, QUEUE, pack
from simulations.studies.plan import Plan, make_plan, parse_axis
from tests.integration.commands import command
from tests.integration.ledger.jobs.test_worker import environment, worker
from tests.integration.simulations.tiny import TOML
from tests.waiting import PATIENCE_S, until

__all__ = ["environment"]


@pytest.fixture
def plan() -> Plan:
    grid = [parse_axis("controller.gain=0.5,2")]
    return make_plan(parse(TOML, "tiny.toml"), ["excess", "pi"], 2, grid=grid, static=False)


def timeless(outcomes: list[Outcome]) -> list[Outcome]:
    return [replace(each, cpu_s=0.0) for each in outcomes]


async def test_workers_find_the_same_numbers_as_this_process(
    environment: dict[str, str], tmp_path: Path, plan: Plan
) -> None:
    app = create_app(Settings.from_env(environment))
    folder = StudyFolder(tmp_path / "kept")
    async with worker(environment, tmp_path, "--queues", QUEUE):
        cells = plan.cells()
        there = await asyncio.to_thread(Bench(CeleryRunner(app), folder).run, cells)
        refused = await asyncio.to_thread(_refused, app, cells[0])
        swept = await _swept(environment, tmp_path, "--distributed")
    here = Bench(LocalRunner(1)).run(cells)
    assert [repr(each) for each in timeless(there)] == [repr(each) for each in timeless(here)]
    assert [each.key for each in there] == [each.key for each in cells]
    assert len(folder) == len(cells)
    assert "other code" in refused
    assert swept == await _swept(environment, tmp_path, "--workers", "1")
    await asyncio.to_thread(app.close)


async def test_who_stops_a_sweep_or_is_killed_leaves_its_worker_free_for_others(
    environment: dict[str, str], tmp_path: Path, plan: Plan
) -> None:
    app, stopped = create_app(Settings.from_env(environment)), threading.Event()
    endless = parse(TOML.replace("horizon_s = 40.0", "horizon_s = 40_000_000.0"), "tiny.toml")
    long = make_plan(endless, ["excess"], 1, static=False).cells()
    left = CeleryRunner(app, lambda _: not stopped.is_set())

    def is_begun() -> bool:
        active = app.control.inspect(timeout=0.5).active() or {}
        return any(each["name"] == CELL_TASK for tasks in active.values() for each in tasks)

    async with worker(environment, tmp_path, "--queues", QUEUE):
        running = asyncio.create_task(asyncio.to_thread(list, left.run(long)))
        await until(lambda: asyncio.to_thread(is_begun))
        stopped.set()
        with pytest.raises(CellStopped):
            await running
        # Nor does one that could not say that it goes: of whom no lease is left, or soon none.
        await asyncio.to_thread(_killed, app, long[0])
        [done] = await asyncio.to_thread(list, CeleryRunner(app, _patient()).run(plan.cells()[:1]))
    assert sum(done.codes.values()) > 0
    await asyncio.to_thread(app.close)


def _patient() -> Callable[[int], bool]:
    """Go on for as long as a worker takes that has nothing else to do."""
    ends_s = time.monotonic() + PATIENCE_S
    return lambda _: time.monotonic() < ends_s


async def _swept(environment: dict[str, str], folder: Path, *options: str) -> dict[str, bytes]:
    """The tables that `broker sweep` writes."""
    file, out = folder / "tiny.toml", folder / options[0]
    file.write_text(TOML)
    words = ("sweep", str(file), "--controller", "excess", "--grid", "demand.scale=1,2")
    where = ("--state", str(folder / "state"), "--out", str(out))
    ended = await command(environment, *words, "--seeds", "2", *where, *options)
    assert ended.status == 0, ended.complained
    assert str(out / "report.html") in ended.said.replace("\n", "")
    return {table.name: table.read_bytes() for table in out.glob("*.csv")}


def _killed(app: Celery, cell: Cell) -> None:
    """Send what nobody waits for any more when it is begun, and what nobody waits for soon."""
    soon = Lease(app.backend)
    app.backend.client.expire(soon.name, 1)
    for name in ("long-gone", soon.name):
        sent = app.send_task(CELL_TASK, (pack(cell), fingerprint(), name), queue=QUEUE)
        sent.forget()


def _refused(app: object, cell: Cell) -> str:
    """What a worker says to a cell from a host with other code."""
    sent = app.send_task(CELL_TASK, (pack(cell), "0" * 12, ""), queue=QUEUE)  # type: ignore[attr-defined]
    return str(sent.get(timeout=60, propagate=False))
