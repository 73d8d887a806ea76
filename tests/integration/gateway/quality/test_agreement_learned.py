"""What it is worth that two answers agree is learned from what was said of the first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from broker.core.cascade import Other
from broker.core.quality.evidence import Grade, Source
from broker.store.quality import evidence
from tests.integration.gateway.house import Consumer, House, Stall
from tests.integration.routing.examples import COOKING, LAW
from tests.waiting import until


async def test_a_model_that_agrees_with_itself_and_is_wrong_is_not_believed_any_more(
    house: House, shop: Consumer
) -> None:
    await house.enrol(
        Stall(name="acme/parrot", model="parrot", tasks=("chat",)),
        Stall(name="acme/other", model="parrot", tasks=("chat",), usd_in="5", usd_out="9"),
        Stall(name="globex/large", model="large", tasks=("chat",)),
    )
    for name, examples in (("law", LAW), ("cooking", COOKING)):
        await house.operator.put(f"/api/domains/{name}", json={"examples": examples})
    models = [{"model": "acme/parrot", "keep_from": 0.7}, {"model": "large", "keep_from": 0.0}]
    cascade = {"policy": "chain", "chain": models, "agreement": "sample"}
    body = {
        "model": "x",
        "messages": [{"role": "user", "content": "May he?"}],
        "broker": {"cascade": cascade, "domain": "law"},
    }

    async def ask() -> Any:
        return await shop.http.post("/v1/chat/completions", json=body)

    async def judged(answer: Any) -> Any:
        story = await house.story(shop, answer.headers["x-broker-call-id"])
        return story["attempts"][0]["judged"]

    believed = await ask()
    first = await judged(believed)
    assert (first["kept"], first["agreement"]) == (True, 1.0)
    assert "not learned yet" in first["reason"]
    call_id = believed.headers["x-broker-call-id"]
    said = await shop.http.post(f"/api/calls/{call_id}/feedback", json={"score": 0})
    assert said.status_code == 201, said.text
    async with house.engine.connect() as connection:
        [told] = [each.piece for each in await evidence.since(connection, evidence.START, 100)]
    assert (told.agreement, told.compared) == (1.0, Other.SAMPLE)
    wrong = replace(told, source=Source.EVAL, grade=Grade.BINARY, account_id=None, call_id=None)
    async with house.engine.begin() as connection:
        await evidence.record(connection, [replace(wrong, groups=None)] * 40)

    async def doubted() -> bool:
        return bool((await ask()).headers["x-broker-endpoint"] == "globex/large")

    await until(doubted, 60.0)
    then = await judged(await ask())
    assert then["agreement"] == 1.0
    assert then["chance"] < 0.4
    assert "not learned yet" not in then["reason"]
    cascade["agreement"] = "large"
    with_another = await judged(await ask())
    assert (with_another["agreement"], with_another["compared"]) == (1.0, "model")
    assert "not learned yet" in with_another["reason"], "what it says of itself says nothing of it"
    assert with_another["chance"] > then["chance"]
    cascade["agreement"] = "acme/other"
    of_its_kind = await judged(await ask())
    assert (of_its_kind["agreement"], of_its_kind["compared"]) == (1.0, "sample")
