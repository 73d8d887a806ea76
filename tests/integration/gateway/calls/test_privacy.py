"""What is told of a call and to whom; and that prompts and answers are kept nowhere."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
import structlog

from broker.store.access.accounts import Role
from provider_sdk.testing.scripted import Script, answer_text, chat_prompt
from tests.integration.gateway.house import Consumer, House, Stall

MARKER = "Zyzzyva-7731"
PROMPT = f"My secret is {MARKER}."
MESSAGES = [{"role": "user", "content": PROMPT}]
GOOD = Script(models=("upstream-name",))


@pytest.fixture(scope="module", autouse=True)
async def providers(house: House) -> None:
    """A cheap one and a dear one, and one abroad."""
    await house.enrol(
        Stall(name="cheap/chat", usd_in="0.10", usd_out="0.20"),
        Stall(name="dear/chat", usd_in="1.00", usd_out="2.00"),
        Stall(name="abroad/chat", region="us"),
        Stall(name="cheap/tensors", kind="kserve", model="tensors"),
    )


@pytest.fixture(autouse=True)
def healed(house: House) -> None:
    for name, provider in house.providers.items():
        kind = "kserve" if name.endswith("tensors") else "openai"
        provider.script = Script(kind=kind, models=("upstream-name",))  # type: ignore[arg-type]


async def _failed_over(house: House, shop: Consumer) -> dict[str, Any]:
    house.providers["cheap/chat"].script = Script(models=("upstream-name",), status=500)
    wishes = {"region": "eu", "providers": {"order": ["cheap", "dear"]}, "labels": {"team": "n"}}
    body = {"model": "small", "messages": MESSAGES, "broker": wishes}
    answer = await shop.http.post("/v1/chat/completions", json=body)
    assert answer.headers["x-broker-endpoint"] == "dear/chat"
    return await house.story(shop, answer.headers["x-broker-call-id"])


async def test_the_story_of_a_call_tells_demands_candidates_rejections_attempts_and_charge(
    house: House, shop: Consumer
) -> None:
    story = await _failed_over(house, shop)
    assert story["requirements"]["regions"] == ["eu"]
    assert story["requirements"]["providers_order"] == ["cheap", "dear"]
    assert [each["endpoint"] for each in story["candidates"]] == ["cheap/chat", "dear/chat"]
    for each in story["candidates"]:
        assert set(each["parts"]) == {"quality", "domain_fit", "cost", "latency", "availability"}
        assert 0 < each["score"] <= 1
        assert Decimal(each["expected_cost_usd"]) > 0
    assert story["rejected"] == [{"endpoint": "abroad/chat", "reason": "region"}]
    failed, served = story["attempts"]
    assert (failed["endpoint"], failed["outcome"], failed["status"]) == (
        "cheap/chat",
        "server_error",
        500,
    )
    assert (served["endpoint"], served["outcome"]) == ("dear/chat", "delivered")
    assert 0 <= failed["started_ms"] <= served["started_ms"]
    assert served["duration_ms"] > 0
    [line] = story["lines"]
    assert line["attempt"] == 1
    assert line["charge_usd"] == story["charge_usd"] == served["charge_usd"]
    assert Decimal(line["take_usd"]) + Decimal(line["earnings_usd"]) == Decimal(line["charge_usd"])
    assert Decimal(story["charge_usd"]) <= Decimal(story["hold_usd"])
    assert (story["status"], story["code"]) == (200, "served")
    assert story["labels"] == {"team": "n"}


async def test_a_refused_call_has_a_story_too(house: House, shop: Consumer) -> None:
    body = {"model": "small", "messages": MESSAGES, "broker": {"region": "moon", "task": "t-1"}}
    answer = await shop.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 404
    story = await house.story(shop, answer.headers["x-broker-call-id"])
    assert (story["code"], story["task_label"]) == ("nothing_fits", "t-1")
    assert {each["reason"] for each in story["rejected"]} == {"region"}
    assert (story["attempts"], story["lines"]) == ([], [])
    assert Decimal(story["charge_usd"]) == 0


async def test_anothers_call_is_not_found(house: House, shop: Consumer) -> None:
    story = await _failed_over(house, shop)
    rival = await house.consumer("rival", usd=0)
    answer = await rival.http.get(f"/api/calls/{story['id']}")
    assert answer.status_code == 404
    assert (await rival.http.get("/api/calls")).json()["calls"] == []
    assert (await house.operator.get(f"/api/calls/{story['id']}")).status_code == 200


async def test_a_provider_is_told_its_own_attempt_and_nothing_of_its_rivals(
    house: House, shop: Consumer
) -> None:
    story = await _failed_over(house, shop)
    cheap = house.client(await house.key("cheap", Role.PROVIDER))
    told = await cheap.get(f"/api/calls/{story['id']}")
    assert [each["outcome"] for each in told.json()["attempts"]] == ["server_error"]
    assert told.json()["lines"] == []
    for hidden in ("dear", "shop", "abroad", "regions"):
        assert hidden not in told.text
    abroad = house.client(await house.key("abroad", Role.PROVIDER))
    assert (await abroad.get(f"/api/calls/{story['id']}")).status_code == 404


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """Everything that is logged during a test, of structlog and of the standard library."""
    with caplog.at_level(logging.DEBUG), structlog.testing.capture_logs() as events:
        yield events


async def test_content_is_in_no_table_and_in_no_log(
    house: House, shop: Consumer, logged: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    answers = await _trade_of_every_kind(house, shop)
    house.providers["cheap/chat"].script = GOOD
    keeper = await house.consumer("shop", usd=0, content_kept="full")
    body, sent_again = {"model": "small", "messages": MESSAGES}, {"idempotency-key": "order-1"}
    for _ in range(2):
        answer = await keeper.http.post("/v1/chat/completions", json=body, headers=sent_again)
        assert answer.status_code == 200
    assert await house.database.fetchval("SELECT count(*) FROM stored_answers") == 1
    spoken = answer_text(chat_prompt(MESSAGES))
    assert any(spoken in answer for answer in answers)
    assert any(MARKER in answer for answer in answers), "a provider has quoted the prompt"
    await house.let_go()

    def kept(text: str) -> bool:
        return MARKER in text or spoken in text or spoken[:24] in text

    found = [where async for where, text in _everything_stored(house.database) if kept(text)]
    assert found == []
    assert not kept(repr(logged))
    ours = [each for each in caplog.records if each.name.startswith(("broker", "web"))]
    assert not kept(" ".join(each.getMessage() for each in ours))


async def _trade_of_every_kind(house: House, shop: Consumer) -> list[str]:
    """Calls that are served, fail, are refused upstream with the prompt quoted, and break off."""
    quoting = json.dumps({"error": {"message": f"cannot read: {PROMPT}"}})
    scripts = [
        GOOD,
        Script(models=("upstream-name",), status=400, body=quoting),
        Script(models=("upstream-name",), status=500, body=quoting),
        Script(models=("upstream-name",), status=200, malformed_json=True),
        Script(models=("upstream-name",), malformed_sse=True),
        Script(models=("upstream-name",), cut_after_chunks=5),
        Script(models=("upstream-name",), error_after_chunks=5),
    ]
    only = {"providers": {"only": ["cheap"]}}
    texts = []
    for script in scripts:
        house.providers["cheap/chat"].script = script
        for stream in (False, True):
            body = {"model": "small", "messages": MESSAGES, "stream": stream, "broker": only}
            texts.append((await shop.http.post("/v1/chat/completions", json=body)).text)
        more = {"model": "small", "broker": only}
        texts.append((await shop.http.post("/v1/embeddings", json=more | {"input": PROMPT})).text)
        texts.append(
            (await shop.http.post("/v1/completions", json=more | {"prompt": [PROMPT]})).text
        )
    tensor = {"name": "INPUT0", "datatype": "BYTES", "shape": [1], "data": [PROMPT]}
    path = "/v2/models/tensors/infer"
    texts.append((await shop.http.post(path, json={"inputs": [tensor]})).text)
    texts.append((await shop.http.post("/v1/completions", content=PROMPT)).text)
    return texts


async def _everything_stored(database: asyncpg.Connection) -> Any:
    """Each row of each table as text, bytea columns decoded."""
    tables = await database.fetch(
        "SELECT table_name FROM information_schema.tables"
        " WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
    )
    assert len(tables) > 10
    for (table,) in tables:
        for row in await database.fetch(f'SELECT * FROM "{table}"'):
            values = [v.decode("latin-1") if isinstance(v, bytes) else str(v) for v in row]
            yield table, " ".join(values)
