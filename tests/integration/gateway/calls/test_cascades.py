"""A second model answers where the first is not sure enough, and money follows what was asked."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import msgspec
import pytest

from broker.core.answers.grading import likeness
from provider_sdk.testing.scripted import Script
from tests.integration.gateway.house import Consumer, House, Stall

# A scripted model is 0.90 sure of each token, which is worth 0.83 where nothing was learned.
SURE, UNSURE = 0.8, 0.9
CHEAP = Stall(name="acme/cheap", model="cheap", tasks=("chat",), endpoint={"quality": 0.5})
DEAR = Stall(
    name="globex/dear",
    model="dear",
    tasks=("chat",),
    usd_in="5.00",
    usd_out="15.00",
    endpoint={"quality": 0.99},
)


BROKEN = Stall(name="hooli/broken", model="broken", tasks=("chat",))


@pytest.fixture(autouse=True)
async def market(house: House) -> None:
    for each in (CHEAP, DEAR, BROKEN):
        if each.name not in house.providers:
            await house.enrol(each)
    house.providers["hooli/broken"].script = Script(models=("upstream-name",), status=500)


def chain(first: float, last: float = 0.5, **more: Any) -> dict[str, Any]:
    models = [{"model": "cheap", "keep_from": first}, {"model": "dear", "keep_from": last}]
    return {"policy": "chain", "chain": models, **more}


async def ask(shop: Consumer, cascade: dict[str, Any], **more: Any) -> Any:
    body = {"model": "cheap", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 9}
    body |= {"broker": {"cascade": cascade}} | more
    return await shop.http.post("/v1/chat/completions", json=body)


async def attempts_of(house: House, shop: Consumer, answer: Any) -> list[dict[str, Any]]:
    story = await house.story(shop, answer.headers["x-broker-call-id"])
    attempts: list[dict[str, Any]] = story["attempts"]
    return attempts


async def test_a_sure_answer_is_kept_and_nobody_else_is_asked(house: House, shop: Consumer) -> None:
    answer = await ask(shop, chain(SURE))
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-broker-endpoint"] == "acme/cheap"
    assert answer.headers["x-broker-confidence"] == "0.83"
    told = answer.json()
    assert told["broker"] == {"confidence": 0.826, "flagged": False, "answers": 1}
    assert "logprobs" not in told["choices"][0]
    assert house.providers["acme/cheap"].work_received[-1].json["logprobs"] is True
    [attempt] = await attempts_of(house, shop, answer)
    assert attempt["notes"] == ["kept: confidence 0.83 is at least 0.80"]
    judged = attempt["judged"]
    assert (judged["kept"], judged["flaw"], judged["agreement"]) == (True, None, None)
    assert judged["confidence"] == pytest.approx(0.905, abs=0.001)
    assert judged["chance"] == pytest.approx(0.826, abs=0.001)
    assert judged["reason"] == "confidence 0.83 is at least 0.80"


@pytest.mark.parametrize(("pay", "paid"), [("both", 2), ("kept", 1)])
async def test_an_unsure_answer_is_followed_by_the_next_and_both_or_one_are_paid(
    house: House, shop: Consumer, pay: str, paid: int
) -> None:
    answer = await ask(shop, chain(UNSURE, pay=pay))
    assert answer.headers["x-broker-endpoint"] == "globex/dear"
    assert answer.json()["broker"]["answers"] == 2
    first, second = await attempts_of(house, shop, answer)
    assert first["notes"] == ["not kept: confidence 0.83 is below 0.90"]
    charges = [float(each["charge_usd"]) for each in (first, second)]
    assert [charge > 0 for charge in charges] == [paid == 2, True]
    assert float(answer.headers["x-broker-cost-usd"]) == pytest.approx(sum(charges))


async def test_what_stays_below_is_flagged_or_refused(house: House, shop: Consumer) -> None:
    flagged = await ask(shop, chain(UNSURE, UNSURE))
    assert (flagged.status_code, flagged.json()["broker"]["flagged"]) == (200, True)
    refused = await ask(shop, chain(UNSURE, UNSURE, below="refuse", pay="kept"))
    assert refused.status_code == 502
    assert refused.json()["error"]["code"] == "confidence_too_low"
    attempts = await attempts_of(house, shop, refused)
    assert [float(each["charge_usd"]) for each in attempts] == [0.0, 0.0]
    assert [each["judged"]["kept"] for each in attempts] == [False, False]
    assert refused.headers["x-broker-cost-usd"] == "0.00"
    await house.let_go()


async def test_a_refusal_that_is_paid_says_what_it_cost(house: House, shop: Consumer) -> None:
    refused = await ask(shop, chain(UNSURE, UNSURE, below="refuse"))
    attempts = await attempts_of(house, shop, refused)
    cost_usd = refused.headers["x-broker-cost-usd"]
    assert 0 < float(cost_usd) == sum(float(each["charge_usd"]) for each in attempts)
    assert refused.json()["error"]["broker"]["cost_usd"] == cost_usd


async def test_what_is_asked_in_the_end_is_asked_of_the_last_and_told_where_it_refuses(
    house: House, shop: Consumer
) -> None:
    models = [{"model": "cheap", "keep_from": UNSURE}, {"model": "dear"}]
    cascade = {"policy": "chain", "chain": models, "keep_from": UNSURE, "below": "refuse"}
    refused = await ask(shop, cascade)
    assert "the confidence of 0.9 that was asked for" in refused.json()["error"]["message"]
    _, last = await attempts_of(house, shop, refused)
    assert last["judged"]["reason"].startswith("confidence 0.83 is below 0.90")
    models[1]["keep_from"] = SURE
    _, last = await attempts_of(house, shop, await ask(shop, cascade))
    told = "confidence 0.83 is at least 0.80; it is below the 0.9 that was asked for"
    assert (last["judged"]["kept"], last["judged"]["reason"]) == (False, told)
    assert last["notes"][-1] == "refused: it is below the 0.9 that was asked for"


async def test_an_answer_that_came_is_delivered_where_the_next_fails(
    house: House, shop: Consumer
) -> None:
    models = [{"model": "cheap", "keep_from": UNSURE}, {"model": "broken"}]
    answer = await ask(shop, {"policy": "chain", "chain": models})
    assert answer.headers["x-broker-endpoint"] == "acme/cheap", answer.text
    assert answer.json()["broker"] == {"confidence": 0.826, "flagged": False, "answers": 1}
    assert answer.json()["choices"][0]["message"]["content"]
    unknown = [{"model": "cheap"}, {"model": "nobody"}]
    refused = await ask(shop, {"policy": "chain", "chain": unknown})
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")


async def test_answers_of_another_form_than_asked_for_are_not_kept(
    house: House, shop: Consumer
) -> None:
    answer = await ask(
        shop, chain(0.1, 0.0), response_format={"type": "json_object"}, max_tokens=99
    )
    first, _ = await attempts_of(house, shop, answer)
    assert first["notes"][0].startswith("not kept: its form is at fault (")


async def test_the_whole_chain_must_fit_what_the_call_may_cost(
    house: House, shop: Consumer
) -> None:
    request = {
        "model": "dear",
        "messages": [{"role": "user", "content": "Why?"}],
        "max_tokens": 9,
        "broker": {},
    }
    told = (await shop.http.post("/api/route", json={"request": request})).json()
    dear = float(told["plan"][0]["ceiling_cost_usd"])
    for share, status in ((1.05, 404), (2.0, 200)):
        wishes = {"cascade": chain(UNSURE), "max_cost": f"{dear * share:.9f}"}
        answer = await ask(shop, {}, broker=wishes)
        assert answer.status_code == status, answer.text
        if status == 404:
            assert answer.json()["error"]["code"] == "nothing_within_price"


async def test_what_all_of_it_may_cost_is_told_before_and_quoted(
    house: House, shop: Consumer
) -> None:
    request = {
        "model": "x",
        "messages": [{"role": "user", "content": "Why?"}],
        "max_tokens": 9,
        "broker": {"cascade": chain(UNSURE, 0.6, pay="kept", below="refuse")},
    }
    told = (await shop.http.post("/api/route", json={"request": request})).json()
    assert [each["endpoint"] for each in told["plan"]] == ["acme/cheap", "globex/dear"]
    assert told["cascade"]["stages"] == [
        {"endpoints": ["acme/cheap"], "keep_from": 0.9},
        {"endpoints": ["globex/dear"], "keep_from": 0.6},
    ]
    whole = sum(float(each["ceiling_cost_usd"]) for each in told["plan"])
    assert float(told["ceiling_cost_usd"]) == pytest.approx(whole)
    assert (told["cascade"]["pay"], told["cascade"]["below"]) == ("kept", "refuse")
    made = (await shop.http.post("/api/quotes", json={"request": request})).json()
    assert float(made["ceiling_cost_usd"]) == pytest.approx(whole)
    assert made["cascade"] == told["cascade"]
    plain = {name: each for name, each in request.items() if name != "broker"}
    called = plain | {"model": "cheap", "broker": {"quote_id": made["quote_id"]}}
    answer = await shop.http.post("/v1/chat/completions", json=called)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-broker-endpoint"] == "globex/dear"
    assert answer.json()["broker"]["answers"] == 2
    story = await house.story(shop, answer.headers["x-broker-call-id"])
    assert float(story["hold_usd"]) == pytest.approx(whole)
    both = called | {"broker": {"quote_id": made["quote_id"], "cascade": chain(UNSURE)}}
    assert (await shop.http.post("/v1/chat/completions", json=both)).status_code == 400
    other = request | {"broker": {"cascade": chain(UNSURE, agreement="dear")}}
    refused = await shop.http.post("/api/quotes", json={"request": other})
    assert refused.status_code == 400
    assert "agreement" in refused.text


@pytest.mark.parametrize("model", ["cheap", "x", "auto", "acme/cheap"])
async def test_a_quoted_body_called_as_it_was_quoted_has_all_its_stages(
    house: House, shop: Consumer, model: str
) -> None:
    stages = [{"model": "acme/cheap", "keep_from": UNSURE}, {"model": "dear", "keep_from": 0.0}]
    body = {"model": model, "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 9}
    asked = body | {"broker": {"cascade": {"policy": "chain", "chain": stages}}}
    endpoints = []
    for called in (model, "auto", "dear"):
        made = (await shop.http.post("/api/quotes", json={"request": asked})).json()
        told = body | {"model": called, "broker": {"quote_id": made["quote_id"]}}
        answer = await shop.http.post("/v1/chat/completions", json=told)
        attempts = await attempts_of(house, shop, answer)
        endpoints.append([each["endpoint"] for each in attempts])
    whole = ["acme/cheap", "globex/dear"]
    assert endpoints == [whole, whole, ["globex/dear"]], "another model is one of the quoted alone"


async def test_a_second_answer_can_be_asked_to_compare(house: House, shop: Consumer) -> None:
    request = {"model": "x", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 9}
    sampled = chain(UNSURE, agreement="sample")
    alone = {"request": request | {"broker": {"cascade": chain(UNSURE)}}}
    twice = {"request": request | {"broker": {"cascade": sampled}}}
    low, high = [
        float((await shop.http.post("/api/route", json=each)).json()["ceiling_cost_usd"])
        for each in (alone, twice)
    ]
    assert high > low, "all that is asked is held"
    agreed = await ask(shop, sampled)
    assert agreed.headers["x-broker-endpoint"] == "acme/cheap"
    first, second = await attempts_of(house, shop, agreed)
    assert first["judged"]["agreement"] == 1.0
    assert first["judged"]["chance"] > 0.9
    assert (second["notes"], second["endpoint"]) == (["asked to compare"], "acme/cheap")
    charges = [float(each["charge_usd"]) for each in (first, second)]
    assert all(charges)
    assert float(agreed.headers["x-broker-cost-usd"]) == pytest.approx(sum(charges))
    shown = await ask(shop, sampled, logprobs=True, top_logprobs=2)
    first, second = await attempts_of(house, shop, shown)
    assert (first["judged"]["agreement"], second["outcome"]) == (1.0, "delivered")
    failing = await ask(shop, chain(UNSURE, agreement="broken"))
    first, beside, third = await attempts_of(house, shop, failing)
    assert (beside["outcome"], beside["charge_usd"]) == ("server_error", "0.00")
    assert first["judged"]["agreement"] is None
    assert third["endpoint"] == failing.headers["x-broker-endpoint"] == "globex/dear"
    assert failing.json()["broker"]["answers"] == 2


async def test_answers_are_compared_beside_the_calls(house: House, shop: Consumer) -> None:
    compared_here: list[object] = []

    def note(frame: FrameType, happened: str, _: object) -> None:
        if happened == "call" and frame.f_code is likeness.__code__:
            compared_here.append(frame)

    sys.setprofile(note)  # of this thread alone, in which all calls are served
    try:
        likeness("a", "b")
        assert len(compared_here) == 1
        answer = await ask(shop, chain(UNSURE, agreement="sample"))
    finally:
        sys.setprofile(None)
    first, _ = await attempts_of(house, shop, answer)
    assert first["judged"]["agreement"] == 1.0
    assert len(compared_here) == 1


async def test_an_answer_that_is_too_long_to_be_judged_is_its_providers_failure(
    house: House, shop: Consumer
) -> None:
    provider = house.providers["acme/cheap"]
    before, tokens = provider.script, 12_000  # each with what else was likely
    provider.script = Script(models=("upstream-name",), output_tokens=tokens)
    shown = {"max_tokens": tokens, "logprobs": True, "top_logprobs": 20}
    try:
        answer = await ask(shop, chain(SURE), **shown)
    finally:
        provider.script = before
    assert answer.headers["x-broker-endpoint"] == "globex/dear", answer.text[:200]
    first, _ = await attempts_of(house, shop, answer)
    assert (first["outcome"], first["charge_usd"]) == ("malformed", "0.00")
    assert "too long to be judged" in first["detail"]


async def test_who_wants_it_at_any_price_gets_the_dearest(house: House, shop: Consumer) -> None:
    small = Stall(name="tiny/small", model="small", tasks=("chat",), endpoint={"quality": 0.4})
    if small.name not in house.providers:
        await house.enrol(small)
    models = [{"model": "small", "keep_from": UNSURE}, {"model": "cheap", "keep_from": UNSURE}]
    answer = await ask(shop, {"policy": "chain", "chain": models, "below": "dearest"})
    assert answer.headers["x-broker-endpoint"] == "globex/dear", answer.text
    told = answer.json()["broker"]
    assert (told["answers"], told["flagged"]) == (3, True)
    once = await ask(shop, chain(UNSURE, UNSURE, below="dearest"))
    assert once.json()["broker"]["answers"] == 2, "the dearest is the last anyway"
    alone = await ask(shop, {"policy": "auto", "keep_from": UNSURE, "below": "dearest"})
    assert alone.headers["x-broker-endpoint"] == "globex/dear", "whatever model is named"
    rich = Stall(name="rich/small", model="small", tasks=("chat",), usd_in="9.00", usd_out="30.00")
    await house.enrol(rich)
    wishes = {"cascade": {"policy": "chain", "chain": models, "below": "dearest"}}
    wishes["providers"] = {"order": ["tiny"]}
    spare = await ask(shop, {}, broker=wishes)
    attempts = await attempts_of(house, shop, spare)
    assert [each["endpoint"] for each in attempts] == ["tiny/small", "acme/cheap", "rich/small"]


async def test_by_itself_it_asks_again_where_that_brings_more_than_it_costs(
    house: House, shop: Consumer
) -> None:
    auto = {"policy": "auto", "keep_from": 0.5}
    cheap = {"weights": "cheap", "providers": {"only": ["acme", "globex"]}, "cascade": auto}
    answer = await ask(shop, auto, model="auto", broker=cheap)
    attempts = await attempts_of(house, shop, answer)
    assert [each["endpoint"] for each in attempts] == ["acme/cheap", "globex/dear"]
    assert "the next is worth +0.1" in attempts[0]["notes"][0]
    thrifty = {name: each for name, each in cheap.items() if name != "weights"}
    thrifty["value_usd"] = "0.000001"
    kept = await ask(shop, auto, model="auto", broker=thrifty)
    assert len(await attempts_of(house, shop, kept)) == 1


@pytest.mark.parametrize("more", [{}, {"top_logprobs": 2}])
async def test_a_server_that_does_not_take_logprobs_is_asked_without_them(
    house: House, shop: Consumer, more: dict[str, Any]
) -> None:
    cheap = house.providers["acme/cheap"]
    usual = cheap.script
    cheap.script = msgspec.structs.replace(usual, sequence=(Script(status=400),))
    answer = await ask(shop, chain(0.0), **more)
    cheap.script = usual
    assert answer.status_code == 200, answer.text
    asked = [each.json.get("logprobs") for each in cheap.work_received[-2:]]
    assert asked == [True, None]
    first, second = await attempts_of(house, shop, answer)
    assert "its confidence is not known" in first["notes"][0]
    assert second["endpoint"] == answer.headers["x-broker-endpoint"] == "globex/dear"


async def test_a_server_that_is_asked_again_without_logprobs_has_no_more_than_the_time_left(
    house: House, shop: Consumer
) -> None:
    cheap = house.providers["acme/cheap"]
    usual, slow_ms = cheap.script, 600.0
    refuses = Script(status=400, latency_ms=slow_ms)
    cheap.script = msgspec.structs.replace(usual, latency_ms=slow_ms, sequence=(refuses,))
    cascade = {"cascade": chain(0.0), "deadline_s": 1.0}
    answer = await ask(shop, chain(0.0), broker=cascade)
    cheap.script = usual
    assert answer.status_code == 504, answer.text
    await house.let_go()


async def test_logprobs_that_the_caller_asked_for_stay(house: House, shop: Consumer) -> None:
    answer = await ask(shop, chain(SURE), logprobs=True)
    assert answer.json()["choices"][0]["logprobs"]["content"]


@pytest.mark.parametrize(
    ("cascade", "more"),
    [
        (chain(SURE), {"n": 2}),
        ({"policy": "auto", "below": "refuse"}, {}),
        (chain(SURE, agreement="sample", decide_after_tokens=4), {"stream": True}),
        (chain(SURE, buffer_bytes=-1), {"stream": True}),
        ({"policy": "chain", "chain": [{"model": "cheap"}]}, {}),
        ({"policy": "auto", "chain": [{"model": "cheap"}, {"model": "dear"}]}, {}),
        ({"policy": "chain", "chain": [{"model": "cheap", "keep_from": 2.0}] * 2}, {}),
        ({"polisy": "auto"}, {}),
    ],
)
async def test_what_makes_no_sense_is_refused_by_name(
    shop: Consumer, cascade: dict[str, Any], more: dict[str, Any]
) -> None:
    refused = await ask(shop, cascade, **more)
    assert refused.status_code == 400
    assert "cascade" in refused.text or "polisy" in refused.text


async def test_off_is_as_if_nothing_had_been_said(shop: Consumer) -> None:
    answer = await ask(shop, {"policy": "off"})
    assert "x-broker-confidence" not in answer.headers
    assert "broker" not in answer.json()


async def test_of_several_models_the_next_answers_where_one_cannot_and_alone_is_paid(
    house: House, shop: Consumer
) -> None:
    body = {"model": "broken", "models": ["cheap", "dear"], "max_tokens": 9}
    messages = [{"role": "user", "content": "Why?"}]
    answer = await shop.http.post("/v1/chat/completions", json=body | {"messages": messages})
    assert answer.headers["x-broker-endpoint"] == "acme/cheap", answer.text
    assert "models" not in house.providers["acme/cheap"].work_received[-1].json
    attempts = await attempts_of(house, shop, answer)
    assert {each["endpoint"] for each in attempts} == {"hooli/broken", "acme/cheap"}
    paid = [each["endpoint"] for each in attempts if float(each["charge_usd"]) > 0]
    assert paid == ["acme/cheap"]


@pytest.mark.parametrize(
    ("models", "answers", "skipped"),
    [
        (["cheap", "nope", "dear"], "acme/cheap", ["nope: model_not_found"]),
        (["nope", "cheap"], "acme/cheap", ["nope: model_not_found"]),
        (
            ["dear", "nope", "cheap"],
            "acme/cheap",
            ["dear: nothing_within_price", "nope: model_not_found"],
        ),
        (["broken", "dear", "cheap"], "acme/cheap", ["dear: nothing_within_price"]),
        (["cheap", "dear"], "acme/cheap", ["dear: nothing_within_price"]),
    ],
)
async def test_of_several_models_those_that_cannot_be_asked_are_skipped_and_told(
    house: House, shop: Consumer, models: list[str], answers: str, skipped: list[str] | None
) -> None:
    first, *more = models
    wishes = {"max_price": {"in": 1, "out": 2}} if "dear" in models[:2] else {}
    body = {"model": first, "models": more, "max_tokens": 9, "broker": wishes}
    body |= {"messages": [{"role": "user", "content": "Why?"}]}
    answer = await shop.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-broker-endpoint"] == answers
    story = await house.story(shop, answer.headers["x-broker-call-id"])
    assert story["requirements"].get("skipped") == skipped
    asked = {"task": "chat", "request": body}
    rehearsed = (await shop.http.post("/api/route", json=asked)).json()
    assert rehearsed["requirements"].get("skipped") == skipped
    assert rehearsed["plan"][0]["endpoint"] == story["attempts"][0]["endpoint"]


async def test_of_several_models_each_answer_is_kept_and_none_is_asked_how_sure_it_is(
    house: House, shop: Consumer
) -> None:
    messages = [{"role": "user", "content": "Why?"}]
    body = {"model": "cheap", "models": ["dear"], "messages": messages, "max_tokens": 9}
    answer = await shop.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert "logprobs" not in house.providers["acme/cheap"].work_received[-1].json
    assert answer.headers["x-broker-endpoint"] == "acme/cheap"
    assert answer.json()["broker"]["flagged"] is False
    [attempt] = await attempts_of(house, shop, answer)
    assert attempt["notes"] == ["kept: any is kept"]


async def test_of_several_models_a_quote_names_them_and_a_call_on_it_that_does_is_told_so(
    shop: Consumer,
) -> None:
    messages = [{"role": "user", "content": "Why?"}]
    body = {"model": "cheap", "messages": messages, "max_tokens": 9}
    asked = {"task": "chat", "request": body | {"models": ["dear"]}}
    quote = await shop.http.post("/api/quotes", json=asked)
    assert quote.status_code == 201, quote.text
    on_it = body | {"broker": {"quote_id": quote.json()["quote_id"]}}
    refused = await shop.http.post("/v1/chat/completions", json=on_it | {"models": ["dear"]})
    assert refused.status_code == 400
    assert "'models'" in refused.text
    assert "broker.cascade" not in refused.text
    served = await shop.http.post("/v1/chat/completions", json=on_it)
    assert served.status_code == 200, served.text


async def test_of_several_models_of_which_none_is_here_the_call_is_refused(shop: Consumer) -> None:
    messages = [{"role": "user", "content": "Why?"}]
    body = {"model": "nope", "models": ["neither"], "messages": messages}
    refused = await shop.http.post("/v1/chat/completions", json=body)
    assert refused.status_code == 404
    assert refused.json()["error"]["code"] == "model_not_found"


async def test_what_all_of_several_models_are_refused_for_is_told_of_the_first_that_is_here(
    shop: Consumer,
) -> None:
    messages = [{"role": "user", "content": "Why?"}]
    body = {"model": "nope", "models": ["dear", "cheap"], "messages": messages}
    refused = await shop.http.post(
        "/v1/chat/completions", json=body | {"broker": {"max_price": 0.000001}}
    )
    assert refused.status_code == 404
    assert refused.json()["error"]["code"] == "nothing_within_price"


async def test_of_a_chain_whose_first_model_nobody_can_serve_the_next_answers(
    house: House, shop: Consumer
) -> None:
    models = [{"model": "dear", "keep_from": UNSURE}, {"model": "cheap", "keep_from": SURE}]
    wishes = {"cascade": {"policy": "chain", "chain": models}, "max_price": {"in": 1, "out": 2}}
    messages = [{"role": "user", "content": "Why?"}]
    body = {"model": "dear", "messages": messages, "max_tokens": 9, "broker": wishes}
    answer = await shop.http.post("/v1/chat/completions", json=body)
    assert answer.headers["x-broker-endpoint"] == "acme/cheap", answer.text
    story = await house.story(shop, answer.headers["x-broker-call-id"])
    assert story["requirements"]["skipped"] == ["dear: nothing_within_price"]
    for place in (0, 1):
        wrong = [dict(each) for each in models]
        wrong[place]["model"] = "nope"
        wishes["cascade"] = {"policy": "chain", "chain": wrong}
        refused = await shop.http.post("/v1/chat/completions", json=body)
        code = refused.json()["error"]["code"]
        assert code == "model_not_found", "its threshold was meant for another"
