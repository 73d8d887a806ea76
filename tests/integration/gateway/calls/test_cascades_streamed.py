"""A stream is held back until it is judged, and then goes out, or another's does in its place."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from broker.core.answers.transcript import BYTES_MAX
from provider_sdk.testing.scripted import Script, answer_text, chat_prompt
from tests.integration.gateway.house import Consumer, House, Stall
from tests.waiting import until

# A scripted model is 0.90 sure of each token, which is worth 0.83 where nothing was learned.
SURE, UNSURE = 0.8, 0.9
MESSAGES = [{"role": "user", "content": "Why?"}]
TEXT = answer_text(chat_prompt(MESSAGES), 16)
STALLS = (
    Stall(name="acme/cheap", model="cheap", tasks=("chat",), endpoint={"quality": 0.5}),
    Stall(
        name="globex/dear",
        model="dear",
        tasks=("chat",),
        usd_in="5.00",
        usd_out="15.00",
        endpoint={"quality": 0.99},
    ),
    Stall(name="hooli/cheap", model="cheap", tasks=("chat",), usd_in="0.60", usd_out="1.60"),
)


@dataclass(frozen=True)
class Streamed:
    """What came of a stream."""

    status: int
    headers: Any
    chunks: list[dict[str, Any]]
    comment: dict[str, Any]
    raw: str

    @property
    def text(self) -> str:
        choices = [each["choices"][0] for each in self.chunks if each.get("choices")]
        return "".join(each["delta"].get("content") or "" for each in choices)


@pytest.fixture(autouse=True)
async def market(house: House) -> None:
    for each in STALLS:
        if each.name not in house.providers:
            await house.enrol(each)
    for each in STALLS:
        house.providers[each.name].script = Script(models=("upstream-name",))
        house.providers[each.name].received.clear()
        house.providers[each.name].cancelled = 0


def chain(first: float, last: float = 0.5, **more: Any) -> dict[str, Any]:
    models = [{"model": "acme/cheap", "keep_from": first}, {"model": "dear", "keep_from": last}]
    return {"policy": "chain", "chain": models, **more}


async def ask(
    shop: Consumer,
    cascade: dict[str, Any],
    headers: dict[str, str] | None = None,
    **more: Any,
) -> Streamed:
    body = {"model": "cheap", "messages": MESSAGES, "max_tokens": 99, "stream": True}
    body |= {"broker": {"cascade": cascade}} | more
    answer = await shop.http.post("/v1/chat/completions", json=body, headers=headers)
    lines = answer.text.splitlines()
    told = [each[6:] for each in lines if each.startswith("data: ")]
    chunks = [json.loads(each) for each in told if each != "[DONE]"]
    comments = [each[9:] for each in lines if each.startswith(": broker ")]
    comment = json.loads(comments[-1]) if comments else {}
    return Streamed(answer.status_code, answer.headers, chunks, comment, answer.text)


async def attempts_of(house: House, shop: Consumer, answer: Streamed) -> list[dict[str, Any]]:
    story = await house.story(shop, answer.headers["x-broker-call-id"])
    attempts: list[dict[str, Any]] = story["attempts"]
    return attempts


async def test_a_sure_stream_is_kept_and_goes_out_without_probabilities(
    house: House, shop: Consumer
) -> None:
    answer = await ask(shop, chain(SURE))
    assert (answer.status, answer.text) == (200, TEXT)
    assert answer.headers["x-broker-endpoint"] == "acme/cheap"
    assert answer.headers["x-broker-confidence"] == "0.83"
    assert "x-broker-flagged" not in answer.headers
    assert "logprobs" not in answer.raw
    assert answer.raw.endswith("data: [DONE]\n\n")
    told = {name: answer.comment[name] for name in ("confidence", "flagged", "answers")}
    assert told == {"confidence": 0.826, "flagged": False, "answers": 1}
    assert house.providers["acme/cheap"].work_received[-1].json["logprobs"] is True
    [attempt] = await attempts_of(house, shop, answer)
    assert attempt["judged"]["reason"] == "confidence 0.83 is at least 0.80"
    assert attempt["ttft_ms"] is not None


@pytest.mark.parametrize(("pay", "paid"), [("both", 2), ("kept", 1)])
async def test_nothing_of_an_unsure_stream_goes_out(
    house: House, shop: Consumer, pay: str, paid: int
) -> None:
    asked = {"stream_options": {"include_usage": True}, "logprobs": True}
    slow = Script(models=("upstream-name",), tokens_per_s=400.0)
    house.providers["globex/dear"].script = slow
    answer = await ask(shop, chain(UNSURE, pay=pay), **asked)
    assert answer.headers["x-broker-endpoint"] == "globex/dear"
    # The last goes out as it comes: what it is worth is told at its end.
    assert "x-broker-confidence" not in answer.headers
    assert answer.text == TEXT
    told = answer.chunks[-1]["broker"]
    assert (told["confidence"], told["flagged"], told["answers"]) == (0.826, False, 2)
    assert answer.chunks[1]["choices"][0]["logprobs"], "they were asked for"
    first, second = await attempts_of(house, shop, answer)
    charges = [float(each["charge_usd"]) for each in (first, second)]
    assert [charge > 0 for charge in charges] == [paid == 2, True]
    assert float(told["cost_usd"]) == pytest.approx(sum(charges))
    assert second["judged"]["chance"] == pytest.approx(0.826, abs=0.001)


async def test_the_first_tokens_can_tell_enough(house: House, shop: Consumer) -> None:
    cheap = house.providers["acme/cheap"]
    cheap.script = Script(models=("upstream-name",), output_tokens=60, tokens_per_s=100.0)
    kept = await ask(shop, chain(SURE, decide_after_tokens=3))
    assert kept.text == answer_text(chat_prompt(MESSAGES), 60)
    [attempt] = await attempts_of(house, shop, kept)
    assert attempt["judged"]["tokens"] == 3
    dropped = await ask(shop, chain(UNSURE, decide_after_tokens=3))
    assert dropped.text == TEXT
    assert dropped.headers["x-broker-endpoint"] == "globex/dear"
    first, _ = await attempts_of(house, shop, dropped)
    assert 0 < first["tokens_out"] < 40, "cut short, and paid as far as it came"
    await until(lambda: cheap.cancelled == 1)


async def test_a_stream_beyond_the_bound_goes_out_flagged(house: House, shop: Consumer) -> None:
    # In small pieces, for a bound to be met within the answer.
    slow = Script(models=("upstream-name",), output_tokens=30, tokens_per_s=400.0)
    house.providers["acme/cheap"].script = slow
    answer = await ask(shop, chain(UNSURE, UNSURE, buffer_bytes=1_000))
    assert answer.headers["x-broker-endpoint"] == "acme/cheap"
    assert answer.headers["x-broker-flagged"] == "true"
    assert answer.text == answer_text(chat_prompt(MESSAGES), 30)
    assert answer.comment["flagged"] is True
    [attempt] = await attempts_of(house, shop, answer)
    assert attempt["judged"]["reason"].endswith("longer than may be held back")


async def test_who_wants_nothing_below_gets_nothing_of_it(house: House, shop: Consumer) -> None:
    refused = await ask(shop, chain(UNSURE, UNSURE, below="refuse", pay="kept"))
    assert refused.status == 502
    assert '"confidence_too_low"' in refused.raw
    attempts = await attempts_of(house, shop, refused)
    assert [float(each["charge_usd"]) for each in attempts] == [0.0, 0.0]
    flagged = await ask(shop, chain(UNSURE, UNSURE))
    assert (flagged.status, flagged.comment["flagged"]) == (200, True)
    kept = await ask(shop, chain(UNSURE, SURE, below="refuse"))
    assert (kept.status, kept.headers["x-broker-confidence"]) == (200, "0.83")
    await house.let_go()


SLOW = Script(models=("upstream-name",), output_tokens=30, tokens_per_s=400.0)
BROKEN = Script(models=("upstream-name",), status=500)
EARLY: dict[str, Any] = {"decide_after_tokens": 4}
BEYOND: dict[str, Any] = {"buffer_bytes": 300}


@pytest.mark.parametrize("cut", [EARLY, BEYOND | {"below": "refuse", "keep_from": 0.1}])
@pytest.mark.parametrize("pay", ["kept", "both"])
async def test_nothing_is_paid_where_an_answer_was_cut_and_no_other_came(
    house: House, shop: Consumer, pay: str, cut: dict[str, Any]
) -> None:
    house.providers["acme/cheap"].script = SLOW
    house.providers["globex/dear"].script = BROKEN
    again = {"idempotency-key": f"cut-{pay}-{sorted(cut)}"}
    for _ in range(2):  # and the key is free
        failed = await ask(shop, chain(UNSURE, pay=pay, **cut), headers=again)
        assert failed.status == 502
        assert '"all_providers_failed"' in failed.raw
        attempts = await attempts_of(house, shop, failed)
        assert {each["endpoint"] for each in attempts} == {"acme/cheap", "globex/dear"}
        assert {each["charge_usd"] for each in attempts} == {"0.00"}
    await house.let_go()


@pytest.mark.parametrize(("pay", "paid"), [("both", True), ("kept", False)])
@pytest.mark.parametrize("cut", [EARLY, BEYOND, {}])
async def test_cut_answers_that_are_all_too_low_are_told_so_and_paid_as_whole_ones(
    house: House, shop: Consumer, cut: dict[str, Any], pay: str, paid: bool
) -> None:
    for name in ("acme/cheap", "globex/dear"):
        house.providers[name].script = SLOW
    refused = await ask(shop, chain(UNSURE, UNSURE, below="refuse", pay=pay, **cut))
    assert (refused.status, refused.text) == (502, "")
    assert '"confidence_too_low"' in refused.raw
    attempts = await attempts_of(house, shop, refused)
    assert [float(each["charge_usd"]) > 0 for each in attempts] == [paid, paid]
    await house.let_go()


@pytest.mark.parametrize(("pay", "paid"), [("both", True), ("kept", False)])
async def test_a_refused_stream_beyond_the_bound_is_paid_as_far_as_it_came(
    house: House, shop: Consumer, pay: str, paid: bool
) -> None:
    for name in ("acme/cheap", "globex/dear"):
        house.providers[name].script = SLOW
    cascade = chain(UNSURE, 0.0, below="refuse", pay=pay, keep_from=0.99, buffer_bytes=0)
    refused = await ask(shop, cascade)
    assert (refused.status, refused.text) == (502, "")
    assert '"confidence_too_low"' in refused.raw
    first, last = await attempts_of(house, shop, refused)
    assert (first["charge_usd"] != "0.00", last["charge_usd"] != "0.00") == (paid, paid)
    assert last["tokens_out"] < 30


async def test_a_stage_has_spares_and_an_answer_that_came_whole_is_there_to_the_end(
    house: House, shop: Consumer
) -> None:
    models = [{"model": "cheap", "keep_from": SURE}, {"model": "dear"}]
    order = {"providers": {"order": ["acme", "hooli"]}}
    cut = Script(models=("upstream-name",), cut_after_chunks=5)
    house.providers["acme/cheap"].script = cut
    wishes = {"cascade": {"policy": "chain", "chain": models}} | order
    spared = await ask(shop, {}, broker=wishes)
    assert (spared.headers["x-broker-endpoint"], spared.text) == ("hooli/cheap", TEXT)
    first, second = await attempts_of(house, shop, spared)
    assert (first["outcome"], first["charge_usd"]) == ("reset", "0.00")
    assert second["outcome"] == "delivered"
    house.providers["acme/cheap"].script = Script(models=("upstream-name",))
    house.providers["globex/dear"].script = Script(models=("upstream-name",), status=500)
    whole = await ask(shop, chain(UNSURE))
    assert (whole.headers["x-broker-endpoint"], whole.text) == ("acme/cheap", TEXT)
    assert whole.raw.endswith("data: [DONE]\n\n")
    assert whole.comment["answers"] == 1


async def test_where_nobody_is_left_what_was_cut_off_costs_nothing(
    house: House, shop: Consumer
) -> None:
    slow = Script(models=("upstream-name",), output_tokens=60, tokens_per_s=200.0)
    house.providers["acme/cheap"].script = slow
    house.providers["globex/dear"].script = Script(models=("upstream-name",), status=500)
    failed = await ask(shop, chain(UNSURE, decide_after_tokens=3))
    assert failed.status == 502, failed.raw
    call_id = json.loads(failed.raw)["error"].get("call_id") or failed.headers["x-broker-call-id"]
    first, *others = (await house.story(shop, call_id))["attempts"]
    assert (first["outcome"], first["charge_usd"]) == ("delivered", "0.00")
    assert {each["outcome"] for each in others} == {"server_error"}
    await house.let_go()


async def test_a_stream_that_another_answer_agrees_with_is_kept(
    house: House, shop: Consumer
) -> None:
    agreed = await ask(shop, chain(UNSURE, agreement="sample"))
    assert (agreed.headers["x-broker-endpoint"], agreed.text) == ("acme/cheap", TEXT)
    first, beside = await attempts_of(house, shop, agreed)
    assert first["judged"]["agreement"] == 1.0
    assert beside["notes"] == ["asked to compare"]
    assert float(agreed.comment["cost_usd"]) > float(first["charge_usd"]) > 0.0


async def test_a_stream_of_another_form_than_asked_for_is_not_kept(
    house: House, shop: Consumer
) -> None:
    answer = await ask(shop, chain(0.1, 0.0), response_format={"type": "json_object"})
    assert answer.headers["x-broker-endpoint"] == "globex/dear"
    first, _ = await attempts_of(house, shop, answer)
    assert first["judged"]["flaw"] == "not_json"


async def test_what_is_too_long_to_be_written_down_is_not_at_fault_for_its_stump(
    house: House, shop: Consumer
) -> None:
    house.providers["globex/dear"].script = Script(models=("upstream-name",), output_tokens=901)
    asked = {"logprobs": True, "top_logprobs": 20, "max_tokens": 900}
    # Cut off by its limit of tokens, which its end tells, it would be no worse for not being JSON.
    long = await ask(shop, chain(UNSURE), response_format={"type": "json_object"}, **asked)
    assert len(long.raw) > BYTES_MAX
    assert (long.headers["x-broker-endpoint"], long.comment["confidence"]) == ("globex/dear", 0.826)
    attempts = await attempts_of(house, shop, long)
    assert attempts[-1]["judged"]["flaw"] is None


async def test_who_leaves_before_anything_went_out_pays_nothing(
    house: House, shop: Consumer
) -> None:
    house.providers["globex/dear"].script = Script(models=("upstream-name",), stall=True)
    body = {"model": "x", "messages": MESSAGES, "stream": True}
    body |= {"broker": {"cascade": chain(UNSURE), "labels": {"who": "leaves"}}}
    request = shop.http.stream("POST", "/v1/chat/completions", json=body, timeout=1.0)
    with pytest.raises(httpx.ReadTimeout):
        async with request as answer:
            await answer.aread()

    async def left() -> dict[str, Any] | None:
        calls = (await shop.http.get("/api/calls")).json()["calls"]
        return next((each for each in calls if each["labels"] == {"who": "leaves"}), None)

    await until(left)
    call = await left()
    assert call is not None
    assert (call["status"], call["charge_usd"]) == (499, "0.00")


async def test_of_several_models_the_first_that_answers_streams_as_it_comes(
    house: House, shop: Consumer
) -> None:
    provider = house.providers["acme/cheap"]
    body = {"model": "acme/cheap", "models": ["dear"], "messages": MESSAGES, "stream": True}
    provider.script = Script(models=("upstream-name",), tokens_per_s=100.0)
    answer = await shop.http.post("/v1/chat/completions", json=body)
    assert TEXT.split()[-1] in answer.text
    [attempt] = (await house.story(shop, answer.headers["x-broker-call-id"]))["attempts"]
    assert attempt["notes"][-1].endswith("it went out as it came, for any is kept")
    provider.script = Script(models=("upstream-name",), stall_after_chunks=3)
    async with (
        asyncio.timeout(10),
        shop.http.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        async for line in answer.aiter_lines():
            if TEXT.split()[0] in line:
                break
    provider.script = Script(models=("upstream-name",), status=500)
    answer = await shop.http.post("/v1/chat/completions", json=body)
    assert answer.headers["x-broker-endpoint"] == "globex/dear"
