"""Operators order simulations over HTTP; workers carry them out, whatever dies on the way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from simulations.carrying import Desk, run_ordered, take_up
from simulations.cell import run_cell
from simulations.orders import plan_of
from tests.integration.api.conftest import Person, SmallBroker, Standing
from tests.integration.simulations.tiny import TOML

ASKED: dict[str, Any] = {"toml": TOML, "controllers": ["excess"], "seeds": 2, "static": False}


@dataclass
class Worker:
    """What a worker process is, without Celery: its tasks are run one after the other."""

    broker: SmallBroker
    sent: list[tuple[UUID, str]] = field(default_factory=list)

    async def take_up(self) -> None:
        await asyncio.to_thread(take_up, self._desk(asyncio.get_running_loop()))

    async def run_next(self) -> None:
        order_id, key = self.sent.pop(0)
        desk = self._desk(asyncio.get_running_loop())
        await asyncio.to_thread(run_ordered, desk, order_id, key)

    async def run_all(self) -> None:
        await self.take_up()
        while self.sent:
            await self.run_next()

    def _desk(self, loop: asyncio.AbstractEventLoop) -> Desk:
        def run(work: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(work(self.broker), loop).result(60)

        return Desk(run, lambda order_id, key: self.sent.append((order_id, key)))


@pytest.fixture
def worker(broker: SmallBroker) -> Worker:
    return Worker(broker)


async def order(operator: Person, **asked: Any) -> str:
    answer = await operator.http.post("/api/simulations", json=ASKED | asked)
    assert answer.status_code == 202, answer.text
    assert answer.json()["status"] == "waiting"
    return str(answer.json()["id"])


async def shown(operator: Person, order_id: str) -> dict[str, Any]:
    answer = await operator.http.get(f"/api/simulations/{order_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_an_order_is_carried_out_and_its_report_can_be_read(
    operator: Person, worker: Worker
) -> None:
    order_id = await order(operator)
    await worker.take_up()
    assert len(worker.sent) == 2
    await worker.run_next()
    half = await shown(operator, order_id)
    assert (half["status"], half["cells"], half["cells_done"]) == ("running", 2, 1)
    await worker.run_next()
    done = await shown(operator, order_id)
    assert (done["status"], done["cells_done"], done["problem"]) == ("done", 2, None)
    report = await operator.http.get(f"/api/simulations/{order_id}/report")
    assert report.status_code == 200
    assert "sandbox" in report.headers["content-security-policy"]
    assert "<svg" in report.text
    assert "//" not in report.text.replace("http://www.w3.org/2000/svg", "").partition("<body")[0]


async def test_what_is_told_is_what_the_cells_say(operator: Person, worker: Worker) -> None:
    order_id = await order(operator)
    await worker.run_all()
    outcomes = [run_cell(cell) for cell in plan_of(ASKED).cells()]
    (row,) = (await shown(operator, order_id))["summary"]
    mean = sum(each.figure("welfare_usd_per_h") for each in outcomes) / len(outcomes)
    assert row["policy"] == "excess"
    assert row["measures"]["welfare_usd_per_h"]["mean"] == pytest.approx(mean, rel=1e-12)


async def test_the_search_for_a_static_price_goes_on_from_worker_to_worker(
    operator: Person, worker: Worker
) -> None:
    order_id = await order(operator, static=True, seeds=1, settings={"horizon_s": 12.0})
    await worker.run_all()
    done = await shown(operator, order_id)
    assert done["status"] == "done", done["problem"]
    assert [each["policy"] for each in done["summary"]] == ["excess", "best static"]


async def test_a_run_that_was_lost_is_sent_again_and_no_other(
    operator: Person, worker: Worker, broker: SmallBroker
) -> None:
    order_id = await order(operator)
    await worker.take_up()
    lost = worker.sent.pop(0)
    await worker.run_next()
    await worker.take_up()
    assert worker.sent == [], "it may still be under way"
    async with broker.engine.begin() as connection:
        await connection.exec_driver_sql(
            "UPDATE simulation_cells SET sent_at = sent_at - interval '1 day'"
        )
    await worker.take_up()
    assert worker.sent == [lost]
    await worker.run_next()
    assert (await shown(operator, order_id))["status"] == "done"


async def test_an_order_that_is_called_off_sends_nothing_more_and_keeps_nothing(
    operator: Person, worker: Worker
) -> None:
    order_id = await order(operator)
    await worker.take_up()
    answer = await operator.http.post(f"/api/simulations/{order_id}/cancel")
    assert answer.json()["status"] == "cancelled"
    await worker.run_all()
    found = await shown(operator, order_id)
    assert (found["status"], found["cells_done"]) == ("cancelled", 0)
    again = await operator.http.post(f"/api/simulations/{order_id}/cancel")
    assert again.status_code == 409
    assert (await operator.http.get(f"/api/simulations/{order_id}/report")).status_code == 404


async def test_this_market_cannot_be_played_again_before_anything_was_called(
    operator: Person, worker: Worker
) -> None:
    order_id = await order(operator, toml="", from_broker_days=7)
    assert (await shown(operator, order_id))["name"] == "market"
    await worker.run_all()
    ended = await shown(operator, order_id)
    assert ended["status"] == "failed"
    assert "had no call in this time" in ended["problem"]


async def test_what_can_be_ordered_is_told(operator: Person) -> None:
    told = (await operator.http.get("/api/simulations/scenarios")).json()
    assert {"flash_crowd", "day_night"} < {each["name"] for each in told["scenarios"]}
    assert {"posted", "excess", "shadow"} < {each["name"] for each in told["controllers"]}
    assert all(each["description"].endswith(".") for each in told["controllers"])


async def test_a_fault_is_told_at_once_with_its_line(operator: Person) -> None:
    asked = ASKED | {"toml": TOML.replace("capacity = 4", "capacty = 4")}
    answer = await operator.http.post("/api/simulations", json=asked)
    assert answer.status_code == 422, answer.text
    line = next(n for n, text in enumerate(TOML.splitlines(), 1) if "capacity" in text)
    assert f"toml:{line}:" in answer.json()["detail"]
    assert "was 'capacity' meant?" in answer.json()["detail"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"toml": "", "scenario": "/etc/passwd.toml"},
        {"toml": "", "scenario": "../steady.toml"},
        {"scenario": "steady"},
        {"from_broker_days": 1},
        {"toml": "", "from_broker_days": 1, "controllers": ["magic"]},
        {"controllers": ["magic"]},
        {"settings": {"no.such": 1}},
        {"seeds": 100, "grid": {"controller.gain": [n / 10 for n in range(1, 30)]}},
    ],
)
async def test_what_makes_no_sense_is_refused(standing: Standing, wrong: dict[str, Any]) -> None:
    answer = await standing.operator.http.post("/api/simulations", json=ASKED | wrong)
    assert answer.status_code in (400, 422), answer.text
    assert (await standing.operator.http.get("/api/simulations")).json() == []


async def test_only_operators_order_simulations(
    operator: Person, provider: Person, consumer: Person
) -> None:
    order_id = await order(operator)
    for person in (provider, consumer):
        assert (await person.http.post("/api/simulations", json=ASKED)).status_code == 403
        assert (await person.http.get(f"/api/simulations/{order_id}")).status_code == 403
