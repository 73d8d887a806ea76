"""`auto` goes by what endpoints were seen to do, wherever that was seen, and says so."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from broker.core.quality.domains import learn
from broker.core.quality.evidence import Grade, Piece, Source
from broker.flows.quality.learn_quality import LENGTHS_EVERY_S, QualitySchool, Scene
from broker.store.market import catalog
from broker.store.quality import evidence
from tests.integration.catalog.offers import SEALER
from tests.integration.gateway.house import Consumer, House, Stall
from tests.integration.gateway.quality.test_recognised import PROMPT, ask
from tests.integration.routing.examples import COOKING, LAW
from tests.waiting import until

ENDPOINT_ID = "SELECT id FROM endpoints WHERE name = $1"


async def test_a_claim_that_evidence_refutes_loses_the_calls_and_feedback_counts(
    house: House, shop: Consumer
) -> None:
    await house.enrol(
        Stall(name="acme/jurist", model="jurist", endpoint={"domains": {"law": 0.9}}),
        Stall(name="globex/large", model="large", endpoint={"quality": 0.6}),
    )
    for name, examples in (("law", LAW), ("cooking", COOKING)):
        await house.operator.put(f"/api/domains/{name}", json={"examples": examples})

    async def served_by(name: str) -> dict[str, Any] | None:
        served, call_id = await ask(shop, PROMPT)
        story = await house.story(shop, call_id)
        known = story["requirements"].get("domain") == "law"
        return story if known and served == name else None

    await until(lambda: served_by("acme/jurist"))
    ids = {name: await house.database.fetchval(ENDPOINT_ID, name) for name in ("jurist", "large")}
    right = {"jurist": 0.2, "large": 0.9}
    pieces = [
        Piece(datetime.now(UTC), ids[name], Source.EVAL, Grade.BINARY, score, "law")
        for name, share in right.items()
        for score in [1.0] * round(40 * share) + [0.0] * round(40 * (1 - share))
    ]
    async with house.engine.begin() as connection:
        await evidence.record(connection, pieces)
    stories: list[dict[str, Any]] = []
    parts: dict[str, Any] = {}

    async def learned() -> bool:
        story = await served_by("globex/large")
        if story is None:
            return False
        stories.append(story)
        parts.update({each["endpoint"]: each["parts"] for each in story["candidates"]})
        quality = {name: each["quality"] for name, each in parts.items()}
        return bool(quality["acme/jurist"] < 0.5 < 0.75 < quality["globex/large"])

    await until(learned)
    story = stories[-1]
    assert parts["acme/jurist"]["domain_fit"] < 0.7
    said = await shop.http.post(f"/api/calls/{story['id']}/feedback", json={"score": 1})
    assert (said.status_code, said.json()["domain"]) == (201, "law")
    async with house.engine.connect() as connection:
        last = (await evidence.since(connection, evidence.START, 1_000))[-1].piece
    assert last.source is Source.FEEDBACK
    await the_same_is_decided_without_calling(house, shop)
    await what_has_no_text_goes_by_it_too(shop)
    await the_stages_of_a_chain_are_of_a_domain(house, shop)


async def what_has_no_text_goes_by_it_too(shop: Consumer) -> None:
    in_law = {"domain": "law"}
    estimate = {"task": "chat", "model": "auto", "tokens_in": 9, "tokens_out_max": 9}
    for path, winner in (("/api/route", "candidates"), ("/api/quotes", "offers")):
        told = (await shop.http.post(path, json=estimate | {"broker": in_law})).json()
        assert told[winner][0]["endpoint"] == "globex/large"
    for prompt in ("", " "):
        assert (await ask(shop, prompt, broker=in_law))[0] == "globex/large"


async def the_stages_of_a_chain_are_of_a_domain(house: House, shop: Consumer) -> None:
    chain = [{"model": "jurist"}, {"model": "large"}]
    broker = {"cascade": {"policy": "chain", "chain": chain}}
    request = {"model": "auto", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 8}
    told = (
        await shop.http.post("/api/route", json={"request": request | {"broker": broker}})
    ).json()
    assert told["domain"] == "law"
    quality = {each["endpoint"]: each["parts"]["quality"] for each in told["candidates"]}
    assert quality["acme/jurist"] < 0.5 < quality["globex/large"]
    quote = (
        await shop.http.post("/api/quotes", json={"request": request | {"broker": broker}})
    ).json()
    for how in (broker, {"quote_id": quote["quote_id"]}):
        _, call_id = await ask(shop, PROMPT, broker=how)
        assert (await house.story(shop, call_id))["requirements"]["domain"] == "law"
        said = await shop.http.post(f"/api/calls/{call_id}/feedback", json={"score": 1})
        assert said.json()["domain"] == "law"


async def the_same_is_decided_without_calling(house: House, shop: Consumer) -> None:
    calls = house.providers["globex/large"].calls
    request = {"model": "auto", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 8}
    told = (await shop.http.post("/api/route", json={"request": request})).json()
    assert (told["domain"], told["refused"]) == ("law", None)
    assert told["plan"][0]["endpoint"] == told["candidates"][0]["endpoint"] == "globex/large"
    assert told["candidates"][0]["expected_cost_usd"] <= told["plan"][0]["ceiling_cost_usd"]
    worth = request | {"broker": {"value_usd": "0.01"}}
    valued = (await shop.http.post("/api/route", json={"request": worth})).json()
    best = valued["candidates"][0]
    expected = best["parts"]["quality"] * best["parts"]["availability"]
    expected -= float(best["expected_cost_usd"]) / 0.01
    assert abs(best["score"] - expected) < 0.002
    strict = request | {"broker": {"quality_min": 0.55}}
    rejected = (await shop.http.post("/api/route", json={"request": strict})).json()["rejected"]
    assert {"endpoint": "acme/jurist", "reason": "quality_too_low"} in rejected
    dear = {"task": "chat", "model": "auto", "tokens_in": 9, "tokens_out_max": 9}
    none = await shop.http.post("/api/route", json=dear | {"broker": {"max_cost": "0.000000001"}})
    assert (none.status_code, none.json()["refused"]["code"]) == (200, "nothing_within_price")
    assert none.json()["plan"] == []
    unknown = await shop.http.post("/api/route", json=dear | {"model": "nobody"})
    assert unknown.status_code == 404
    assert house.providers["globex/large"].calls == calls
    await house.let_go()


@pytest.mark.parametrize(("name", "streams"), [("writer", False), ("speaker", True)])
async def test_flaws_of_form_are_evidence_of_whose_calls_showed_them_and_few_a_day(
    house: House, shop: Consumer, name: str, streams: bool
) -> None:
    provider = f"of-{name}"
    await house.enrol(Stall(name=f"{provider}/{name}", model=name, tasks=("completion",)))
    body = {"model": "auto", "prompt": "Say it as JSON.", "max_tokens": 400}
    body |= {
        "response_format": {"type": "json_object"},
        "broker": {"providers": {"only": [provider]}},
        "stream": streams,
    }
    writer = await house.database.fetchval(ENDPOINT_ID, name)
    account = "SELECT account_id FROM calls ORDER BY id DESC LIMIT 1"

    async def checks() -> list[Piece]:
        async with house.engine.connect() as connection:
            found = await evidence.since(connection, evidence.START, 1_000)
        told = [each.piece for each in found if each.piece.endpoint_id == writer]
        return [each for each in told if each.source is Source.CHECK]

    async def flawed() -> bool:
        return 0.0 in {each.score for each in await checks()}

    for _ in range(160):
        answer = await shop.http.post("/v1/completions", json=body)
        assert answer.status_code == 200, answer.text
    await until(flawed)
    told = await checks()
    assert 0 < len(told) <= 20
    assert {each.account_id for each in told} == {await house.database.fetchval(account)}
    assert all(each.call_id is not None for each in told)


async def test_an_inference_is_of_its_task_and_flaws_of_tensors_are_evidence_too(
    house: House, shop: Consumer
) -> None:
    claims = {"domains": {"law": 0.9}}
    await house.enrol(
        Stall(name="tensors/any", model="any", kind="kserve", upstream="m-1"),
        Stall(name="tensors/law", model="law", kind="kserve", upstream="m-2", endpoint=claims),
    )
    for name, examples in (("law", LAW), ("cooking", COOKING)):
        await house.operator.put(f"/api/domains/{name}", json={"examples": examples})
    # The provider echoes what it gets: an output of three elements that has one.
    odd = {"name": "INPUT0", "shape": [3], "datatype": "FP32", "data": [1.0]}

    async def asked(**told: str) -> dict[str, Any]:
        path, body = "/v2/models/auto/infer", {"inputs": [odd]}
        answer = await shop.http.post(path, json=body, headers=told)
        assert answer.status_code == 200, answer.text
        return await house.story(shop, answer.headers["x-broker-call-id"])

    async def is_known() -> dict[str, Any] | None:
        story = await asked(**{"x-broker-task": "law", "x-broker-weights": "quality"})
        return story if story["requirements"].get("domain") == "law" else None

    await until(is_known)
    story = await is_known()
    assert story is not None
    assert story["candidates"][0]["endpoint"] == "tensors/law"
    assert story["requirements"]["score_per_usd_by"] == "quality"
    assert "domain" not in (await asked(**{"x-broker-task": "gardening"}))["requirements"]
    law = await house.database.fetchval(ENDPOINT_ID, "law")

    async def flawed() -> bool:
        await asked(**{"x-broker-domain": "law", "x-broker-weights": "quality"})
        async with house.engine.connect() as connection:
            found = await evidence.since(connection, evidence.START, 1_000)
        told = [each.piece for each in found if each.piece.endpoint_id == law]
        return ("law", 0.0) in {(one.domain, one.score) for one in told}

    await until(flawed)


async def test_calls_alone_teach_how_long_answers_are_and_nothing_else_anew(
    house: House, shop: Consumer
) -> None:
    await house.enrol(Stall(name="acme/counsel", model="counsel"))
    async with house.engine.connect() as connection:
        _, endpoints = await catalog.load_market(connection, SEALER)
    vectors = np.random.default_rng(1).normal(size=(80, 8))
    recogniser = learn(("food", "law"), np.repeat((0, 1), 40), vectors, 3.0 * vectors[:40])
    scene, now = Scene(tuple(endpoints), recogniser, None), datetime.now(UTC)
    school = QualitySchool(house.engine, lambda: now, deque())
    before = await school.learn(scene)
    assert before is not None
    _, call_id = await ask(shop, PROMPT, model="acme/counsel", max_tokens=400)
    await house.story(shop, call_id)
    assert await school.learn(scene) is None
    now += timedelta(seconds=LENGTHS_EVERY_S)
    after = await school.learn(scene)
    assert after is not None
    assert after.table is before.table
    assert after.tokens_out is not before.tokens_out
    number = next(each.number for each in endpoints if each.name == "acme/counsel")
    assert after.tokens_out[-1, number] > 0.0
