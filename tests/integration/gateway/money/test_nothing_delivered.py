"""A call that delivered nothing costs nothing, whatever its provider claims; and one that tells
what its caller wants without a text is no such call."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from provider_sdk.testing.answers import answer_words, chat_prompt
from provider_sdk.testing.script import Script
from tests.integration.gateway.house import Consumer, House, Stall

GOOD = Script(models=("upstream-name",))
CHAT = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {"model": "small", "prompt": "hi"}


@pytest.fixture(scope="module", autouse=True)
async def market(house: House) -> None:
    await house.enrol(Stall(name="mute/chat"))


async def charged_for(house: House, shop: Consumer, path: str, body: dict[str, Any]) -> int:
    """Nano-dollars that a call took off the balance."""
    before = await available(shop)
    answer = await shop.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    await house.let_go()
    return before - await available(shop)


async def available(shop: Consumer) -> int:
    shown = (await shop.http.get("/api/balance")).json()["posted_usd"]
    return round(float(shown) * 10**9)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body"), [("/v1/chat/completions", CHAT), ("/v1/completions", COMPLETION)]
)
@pytest.mark.parametrize("lie", [{"output_tokens": 0}, {"usage_factor": 0.0}])
async def test_no_content_or_zero_completion_tokens_cost_nothing(
    house: House,
    shop: Consumer,
    path: str,
    body: dict[str, Any],
    stream: bool,
    lie: dict[str, Any],
) -> None:
    provider = house.providers["mute/chat"]
    provider.script = msgspec.structs.replace(GOOD, **lie)
    assert await charged_for(house, shop, path, body | {"stream": stream}) == 0
    provider.script = GOOD
    assert await charged_for(house, shop, path, body | {"stream": stream}) > 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("more", [{"logprobs": True, "top_logprobs": 5}, {}])
async def test_a_caller_who_has_the_text_taken_away_pays_for_what_is_told_instead(
    house: House, shop: Consumer, stream: bool, more: dict[str, Any]
) -> None:
    """Whoever stops at every label learns by the one that is stopped at, or by the probabilities of
    the first token, what an answer would have said."""
    house.providers["mute/chat"].script = GOOD
    first = answer_words(chat_prompt([{"role": "user", "content": "hi"}]), 1)[0]
    body = {**CHAT, **more, "stop": ["spam", first], "stream": stream, "max_tokens": 1}
    answer = await shop.http.post("/v1/chat/completions", json=body)
    assert f'"stop_reason":"{first}"' in answer.text
    assert ('"logprob":-0.1' in answer.text) == bool(more)
    assert f'"content":"{first}' not in answer.text
    assert await charged_for(house, shop, "/v1/chat/completions", body) == 2 * 500 + 1_500
