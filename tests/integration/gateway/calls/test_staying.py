"""The follow-ups of a conversation go where its context is."""

from __future__ import annotations

from typing import Any

from provider_sdk.testing.scripted import Script
from tests.integration.gateway.house import Consumer, House, Stall
from tests.waiting import until

# Next to so long, what the machine adds is nothing, and nobody is found to be twice as quick.
ALIKE = Script(models=("upstream-name",), ttft_ms=50)


async def test_follow_ups_of_a_conversation_stay_with_who_answered_it_first(
    house: House, shop: Consumer
) -> None:
    names = [f"stay{number}/m" for number in range(4)]
    await house.enrol(*(Stall(name=name, model="alike", script=ALIKE) for name in names))

    async def ask(stream: bool = False, **broker: Any) -> str:
        body: dict[str, Any] = {
            "model": "alike",
            "messages": [{"role": "user", "content": "and then?"}],
            "max_tokens": 8,
            "stream": stream,
        }
        if broker:
            body["broker"] = broker
        answer = await shop.http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        return answer.headers["x-broker-endpoint"]

    assert len({await ask() for _ in range(12)}) > 1, "calls of no conversation spread"
    home = await ask(session_id="talk")

    async def known() -> bool:
        return await ask(session_id="talk") == home

    await until(known)
    assert {await ask(session_id="talk") for _ in range(12)} == {home}
    assert await ask(stream=True, session_id="talk") == home
    other = next(name for name in names if name != home).partition("/")[0]
    moved = await ask(session_id="talk", providers={"only": [other]})
    assert moved.startswith(other)
