"""`auto` finds the specialist of what a prompt is about; who names an endpoint or domain has it."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import msgspec
import pytest

from broker.core.requirements import Requirements
from tests.integration.gateway.house import Consumer, House, Stall
from tests.integration.routing.examples import COOKING, LAW
from tests.waiting import until

PROMPT = "May a landlord raise the rent before the contract ends?"


async def ask(shop: Consumer, prompt: str, **changes: Any) -> tuple[str, str]:
    """Return who served a prompt, and the call's id."""
    body = {"model": "auto", "messages": [{"role": "user", "content": prompt}], "max_tokens": 8}
    answer = await shop.http.post("/v1/chat/completions", json=body | changes)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-broker-endpoint"], answer.headers["x-broker-call-id"]


async def teach(house: House) -> None:
    """Enrol two specialists and teach their domains, once."""
    if "acme/jurist" in house.providers:
        return
    await house.enrol(
        Stall(name="acme/jurist", model="jurist", endpoint={"domains": {"law": 0.95}}),
        Stall(name="acme/chef", model="chef", endpoint={"domains": {"cooking": 0.95}}),
    )
    for name, examples in (("law", LAW), ("cooking", COOKING)):
        taught = await house.operator.put(f"/api/domains/{name}", json={"examples": examples})
        assert taught.status_code == 200, taught.text


async def test_auto_sends_a_prompt_to_the_specialist_of_its_domain(
    house: House, shop: Consumer
) -> None:
    await teach(house)

    async def demands(prompt: str, **changes: Any) -> dict[str, Any]:
        served, call_id = await ask(shop, prompt, **changes)
        story = await house.story(shop, call_id)
        return {"served": served, **story["requirements"]}

    async def recognised() -> bool:
        return (await demands(PROMPT)).get("domain") == "law"

    await until(recognised)
    law = await demands(PROMPT)
    assert law["served"] == "acme/jurist"
    assert 0.5 < law["domain_confidence"] <= 1.0
    food = await demands("How long do I bake potatoes with butter?")
    assert (food["served"], food["domain"]) == ("acme/chef", "cooking")
    named = await demands(PROMPT, broker={"domain": "cooking"})
    assert (named["served"], named["domain"]) == ("acme/chef", "cooking")
    assert "domain_confidence" not in named
    assert "domain" not in await demands(PROMPT, model="acme/chef")
    assert "domain" not in await demands("What is the capital of Mongolia?")


async def test_a_quote_of_a_request_goes_to_the_specialist_and_keeps_nothing_of_its_prompt(
    house: House, shop: Consumer
) -> None:
    await teach(house)
    for prompt, domain, specialist in (
        (PROMPT, "law", "acme/jurist"),
        ("How long do I bake potatoes with butter?", "cooking", "acme/chef"),
    ):
        messages = [{"role": "user", "content": prompt}]
        request: dict[str, Any] = {"model": "auto", "messages": messages, "max_tokens": 8}

        async def dry(request: dict[str, Any] = request, domain: str = domain) -> bool:
            told = await shop.http.post("/api/route", json={"request": request})
            return bool(told.json()["domain"] == domain)

        await until(dry)
        made = (await shop.http.post("/api/quotes", json={"request": request})).json()
        assert made["offers"][0]["endpoint"] == specialist
        kept = await house.database.fetchval(
            "SELECT demands FROM quotes WHERE id = $1", UUID(made["quote_id"])
        )
        demands = msgspec.msgpack.decode(kept, type=Requirements)
        assert (demands.domain, demands.prompt, demands.groups) == (None, None, None)
        served, call_id = await ask(shop, prompt, broker={"quote_id": made["quote_id"]})
        assert served == specialist
        told = (await house.story(shop, call_id))["requirements"]
        assert told["domain"] == domain
        assert 0.5 < told["domain_confidence"] <= 1.0


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ("", 8),
        (" \n\t", 8),
        ("Wo-hoo blixa karumba zenti obolo quay?", 8),
        ("\u13a3\u13c2 \u13e3\u13b3\u13a9 \u13c5\u13d2\u13d7 \u13cd\u13a6\u13da\u13a9", 8),
        ("\U0001f600" * 50, 8),
        ("law " * 130_000, 8),
    ],
    ids=["empty", "blank", "invented", "cherokee", "faces", "half a megabyte"],
)
async def test_a_prompt_of_which_nothing_is_to_be_told_is_served_all_the_same(
    house: House, shop: Consumer, prompt: str, tokens: int
) -> None:
    await teach(house)
    served, call_id = await ask(shop, prompt, max_tokens=tokens)
    assert served.startswith("acme/")
    story = await house.story(shop, call_id)
    if not prompt.startswith("law"):
        assert "domain" not in story["requirements"]
    assert (story["status"], story["code"]) == (200, "served")


async def test_calls_go_on_while_domains_are_renamed_forgotten_and_taught_again(
    house: House, shop: Consumer
) -> None:
    await teach(house)
    request = {"model": "auto", "messages": [{"role": "user", "content": PROMPT}]}
    calls: list[str] = []

    async def change(method: str, name: str, told: Any, domain: str | None) -> None:
        changed = await house.operator.request(method, f"/api/domains/{name}", json=told)
        assert changed.is_success, changed.text
        asked = len(calls)

        async def known() -> bool:
            shown = (await shop.http.post("/api/route", json={"request": request})).json()
            return shown["domain"] == domain and len(calls) > asked

        await until(known)

    async def call() -> None:
        while True:
            served, call_id = await ask(shop, PROMPT)
            assert served.startswith("acme/")
            calls.append(call_id)

    calling = [asyncio.create_task(call()) for _ in range(3)]
    tenancy = {"examples": [f"On tenancy: {each}" for each in LAW]}
    await change("DELETE", "law", None, None)
    await change("PUT", "tenancy", tenancy, "tenancy")
    await change("DELETE", "cooking", None, "tenancy")
    await change("DELETE", "tenancy", None, None)
    await change("PUT", "cooking", {"examples": COOKING}, None)
    await change("PUT", "law", {"examples": LAW}, "law")
    for task in calling:
        assert not task.done(), task.exception()
        task.cancel()
    await asyncio.wait(calling)
