"""A stream that breaks off goes on from what was delivered, if its caller allows it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from broker.flows.calls.continue_stream import first_event, identity_of
from provider_sdk.testing.scripted import Script
from tests.integration.gateway.house import Consumer, House, Stall

NAMES = ("acme/relay", "globex/relay", "hooli/relay")
MESSAGES = [{"role": "user", "content": "Tell me."}]


@pytest.fixture(scope="module", autouse=True)
async def market(house: House) -> None:
    await house.enrol(*(Stall(name=each, model="relay") for each in NAMES))


async def behave(house: House, shop: Consumer, *cut_after: int | None) -> None:
    """Have each cut its stream after so many chunks, the one that carries the role included."""
    for name, cut in zip(NAMES, cut_after, strict=True):
        script = Script(models=("upstream-name",), output_tokens=6)
        house.providers[name].script = script
        for _ in range(2):  # so that no breaker remembers the test before
            body = {"model": name, "messages": MESSAGES}
            assert (await shop.http.post("/v1/chat/completions", json=body)).status_code == 200
        house.providers[name].script = msgspec.structs.replace(script, cut_after_chunks=cut)


async def listen(
    shop: Consumer, path: str = "/v1/chat/completions", **more: Any
) -> tuple[str, list[dict[str, Any]]]:
    """Return the call's id and the data of its events, without `[DONE]` where it came."""
    wishes = {"continue_on_cut": True, "providers": {"order": ["acme", "globex", "hooli"]}}
    body = {"model": "relay", "max_tokens": 20, "stream": True}
    body |= {"stream_options": {"include_usage": True}, "broker": wishes} | more
    if "prompt" not in body:
        body["messages"] = MESSAGES
    answer = await shop.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    events = [each.removeprefix("data: ") for each in answer.text.split("\n\n") if each]
    told = [msgspec.json.decode(each) for each in events if each != "[DONE]"]
    assert ("[DONE]" in events) is ("error" not in told[-1])
    return answer.headers["x-broker-call-id"], told


def text_of(told: list[dict[str, Any]]) -> str:
    choices = [each["choices"][0] for each in told if each.get("choices")]
    return "".join(
        each.get("text") or each.get("delta", {}).get("content") or "" for each in choices
    )


async def test_the_next_goes_on_and_the_caller_sees_one_stream(
    house: House, shop: Consumer
) -> None:
    await behave(house, shop, 3, None, None)
    call_id, told = await listen(shop)
    sent = house.providers["globex/relay"].work_received[-1].json
    given = sent["messages"][-1]
    assert given["role"] == "assistant"
    assert sent["messages"][:-1] == MESSAGES
    assert (sent["continue_final_message"], sent["add_generation_prompt"]) == (True, False)
    text = text_of(told)
    assert given["content"]
    assert text.startswith(given["content"])
    assert len(text) > len(given["content"])
    assert len({each["id"] for each in told}) == 1, "one identity"
    roles = [each["choices"][0]["delta"].get("role") for each in told if each.get("choices")]
    assert roles.count("assistant") == 1
    story = await house.story(shop, call_id)
    first, second = story["attempts"]
    assert (first["outcome"], second["outcome"]) == ("reset", "delivered")
    usage = told[-1]["usage"]
    assert usage["completion_tokens"] == first["tokens_out"] + second["tokens_out"]
    assert sent["max_tokens"] == 20 - first["tokens_out"], "what is left of the limit"
    charges = [Decimal(each["charge_usd"]) for each in story["attempts"]]
    assert min(charges) > 0
    assert Decimal(told[-1]["broker"]["cost_usd"]) == sum(charges) == Decimal(story["charge_usd"])


async def test_a_second_cut_is_continued_too_and_a_third_attempt_is_the_last(
    house: House, shop: Consumer
) -> None:
    await behave(house, shop, 3, 3, 3)
    call_id, told = await listen(shop)
    assert told[-1]["error"]["code"] == "provider_cut_off"
    assert "no other endpoint" in told[-1]["error"]["message"]
    story = await house.story(shop, call_id)
    assert len(story["attempts"]) == 3
    charged = sum(Decimal(each["charge_usd"]) for each in story["attempts"])
    assert Decimal(told[-1]["error"]["broker"]["cost_usd"]) == charged
    given = house.providers["hooli/relay"].work_received[-1].json["messages"][-1]["content"]
    assert text_of(told).startswith(given)


async def test_who_cannot_go_on_is_passed_over(house: House, shop: Consumer) -> None:
    await behave(house, shop, 3, None, None)
    house.providers["globex/relay"].script = Script(models=("upstream-name",), status=500)
    call_id, told = await listen(shop)
    assert "error" not in told[-1]
    story = await house.story(shop, call_id)
    assert [each["outcome"] for each in story["attempts"]] == ["reset", "server_error", "delivered"]


async def test_a_completion_goes_on_behind_its_prompt(house: House, shop: Consumer) -> None:
    await behave(house, shop, 2, None, None)
    _, told = await listen(shop, "/v1/completions", prompt="Once")
    prompt = house.providers["globex/relay"].work_received[-1].json["prompt"]
    assert prompt.startswith("Once")
    assert text_of(told).startswith(prompt.removeprefix("Once"))
    assert len(prompt) > len("Once")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "it may call tools"),
        ({"response_format": {"type": "json_object"}}, "it may be JSON"),
        ({"n": 2}, "it has several choices"),
    ],
)
async def test_what_half_of_is_worth_nothing_breaks_off_and_says_why(
    house: House, shop: Consumer, more: dict[str, Any], reason: str
) -> None:
    await behave(house, shop, 3, None, None)
    before = house.providers["globex/relay"].calls
    _, told = await listen(shop, **more)
    error = told[-1]["error"]
    assert error["code"] == "provider_cut_off"
    assert f"It was not continued: {reason}." in error["message"]
    assert house.providers["globex/relay"].calls == before


async def test_whoever_did_not_ask_for_it_gets_the_error(house: House, shop: Consumer) -> None:
    await behave(house, shop, 3, None, None)
    wishes = {"providers": {"order": ["acme", "globex", "hooli"]}}
    _, told = await listen(shop, broker=wishes)
    assert told[-1]["error"]["code"] == "provider_cut_off"
    assert "continued" not in told[-1]["error"]["message"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_identity_of_a_stream_is_found_whatever_its_lines_end_with(end: str) -> None:
    """Behind lines that ended with CR LF the two halves once were streams of two names."""
    events = [": ping{}{}", 'data: {{"id":"one","choices":[]}}{}{}', 'data: {{"id":"two"}}{}{}']
    opening = "".join(each.format(end, end) for each in events).encode()
    told = identity_of(first_event(opening))
    assert {name: bytes(each) for name, each in told.items()} == {"id": b'"one"'}
