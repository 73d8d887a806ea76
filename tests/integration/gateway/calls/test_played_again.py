"""What was called through the door is played again by the simulator, from the call log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.core.catalog import Task
from broker.flows.market.tell_market import tell_market
from broker.store.sealing import Sealer
from simulations.demand import Shape, Trace
from simulations.files.load import load
from simulations.market import run
from simulations.replay.market import NothingToPlay, write_market
from simulations.studies.plan import make_plan
from tests.integration.gateway.house import Consumer, House, Stall
from tests.waiting import until

SECRET = "never to be told"
MESSAGES = [{"role": "user", "content": SECRET}]


async def ask(shop: Consumer, status: int, **body: Any) -> None:
    told = {"model": "small", "messages": MESSAGES, "max_tokens": 16} | body
    answer = await shop.http.post("/v1/chat/completions", json=told)
    assert answer.status_code == status, answer.text


async def told(house: House) -> dict[str, Any]:
    now = datetime.now(UTC)
    sealer = Sealer("ab" * 32)
    return await tell_market(house.engine, sealer, now - timedelta(hours=1), now)


async def all_told(house: House, calls: int) -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def logged() -> bool:
        found.update(await told(house))
        return len(found["calls"]) >= calls

    await until(logged)
    return found


async def test_the_calls_of_the_log_come_again(
    house: House, shop: Consumer, tmp_path: Path
) -> None:
    with pytest.raises(NothingToPlay):
        write_market(await told(house), tmp_path / "none", 1.5)
    await house.enrol(
        Stall(name="acme/chat", endpoint={"tiers": {"flex": "0.5"}}),
        Stall(name="other/chat", model="other"),
    )
    for _ in range(4):
        await ask(shop, 200)
    await ask(shop, 200, service_tier="flex")
    await ask(shop, 200, broker={"max_cost": "0.50"})
    await ask(shop, 404, broker={"max_price": "0.01"})
    await ask(shop, 404, model="nobody's")
    texts = {"model": "small", "input": [SECRET * each for each in (20, 40, 20)]}
    assert (await shop.http.post("/v1/embeddings", json=texts)).status_code == 200
    found = await all_told(house, 8)

    assert SECRET not in str(found)
    assert shop.name not in str(found)
    assert shop.key not in str(found)
    parts = [each["longest_part"] for each in found["calls"]]
    assert [each for each in parts if each != 1.0] == [pytest.approx(0.5, abs=0.1)]
    assert [each["served"] for each in found["calls"]].count(False) == 1
    written = load(str(write_market(found, tmp_path, 2.0)))
    scenario = written.build()
    assert set(scenario.endpoint_names) == {"acme/chat", "other/chat"}
    spec = dict(zip(scenario.endpoint_names, scenario.endpoints, strict=True))["acme/chat"][1]
    assert (spec.band.list_in_micros, spec.band.list_out_micros) == (500_000, 1_500_000)
    assert spec.capacity == 50
    assert list(spec.tiers_bps.values()) == [5_000]
    [several] = [each for each in scenario.classes if each.longest_part < 1.0]
    assert several.task is Task.EMBEDDING
    classes = {
        (each.tier.value, each.value.shape): each for each in scenario.classes if each != several
    }
    usual = classes["standard", Shape.ISOELASTIC]
    assert isinstance(usual.arrivals, Trace)
    assert (len(usual.arrivals.arrival_s), usual.value.elasticity) == (4, 2.0)
    flex = classes["flex", Shape.ISOELASTIC]
    paid = {each["tier"]: each["charge_nanos"] for each in found["calls"] if each["served"]}
    assert flex.value.mean_usd == pytest.approx(paid["flex"] / 1e9)
    named = classes["standard", Shape.LOGNORMAL].arrivals
    assert isinstance(named, Trace)
    assert len(named.arrival_s) == 2

    plan = make_plan(written, ["posted", "excess"], 1, settings=[("warm_up_s", 0)], static=False)
    for cell in plan.cells():
        again = run(cell.text.build(cell.settings), 1)
        assert again.arrived == 8
        assert again.totals.count() + again.under_way == 8
