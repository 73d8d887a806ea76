"""What a model's being sure is worth is learned from what was said of its answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from broker.core.quality.evidence import Grade, Piece, Source
from broker.store.quality import evidence
from tests.integration.gateway.house import Consumer, House, Stall
from tests.integration.routing.examples import COOKING, LAW
from tests.waiting import until

SURE = 0.905
"""The mean probability of a scripted answer's tokens."""


async def test_a_model_that_is_sure_and_wrong_is_not_believed_any_more(
    house: House, shop: Consumer
) -> None:
    await house.enrol(
        Stall(name="acme/bluffer", model="bluffer", tasks=("chat",)),
        Stall(name="globex/large", model="large", tasks=("chat",)),
    )
    for name, examples in (("law", LAW), ("cooking", COOKING)):
        await house.operator.put(f"/api/domains/{name}", json={"examples": examples})
    models = [{"model": "bluffer", "keep_from": 0.7}, {"model": "large", "keep_from": 0.0}]

    async def ask(**more: Any) -> Any:
        cascade = {"policy": "chain", "chain": models}
        wishes = {"cascade": cascade, "domain": "law"} | more
        body = {"model": "x", "messages": [{"role": "user", "content": "May he?"}]}
        return await shop.http.post("/v1/chat/completions", json=body | {"broker": wishes})

    believed = await ask()
    assert believed.headers["x-broker-endpoint"] == "acme/bluffer"
    call_id = believed.headers["x-broker-call-id"]
    await house.story(shop, call_id)
    said = await shop.http.post(f"/api/calls/{call_id}/feedback", json={"score": 0})
    assert said.status_code == 201, said.text
    async with house.engine.connect() as connection:
        pieces = [each.piece for each in await evidence.since(connection, evidence.START, 100)]
    [told] = [each for each in pieces if each.source is Source.FEEDBACK]
    assert told.confidence == pytest.approx(SURE, abs=0.001)
    where = "SELECT id FROM endpoints WHERE name = 'bluffer'"
    bluffer = await house.database.fetchval(where)
    now = datetime.now(UTC)
    wrong = Piece(now, bluffer, Source.EVAL, Grade.BINARY, 0.0, "law", confidence=SURE)
    async with house.engine.begin() as connection:
        await evidence.record(connection, [wrong] * 40)

    async def doubted() -> bool:
        return bool((await ask()).headers["x-broker-endpoint"] == "globex/large")

    await until(doubted, 60.0)
    story = await house.story(shop, (await ask()).headers["x-broker-call-id"])
    judged = story["attempts"][0]["judged"]
    assert judged["confidence"] == pytest.approx(SURE, abs=0.001)
    assert judged["chance"] < 0.4
