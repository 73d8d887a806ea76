"""Two providers of many families, one that fails as told and one that serves, and their callers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec

from provider_sdk.protocol import DeploymentOffer
from provider_sdk.testing.scripted import Script, ScriptedProvider, answer_text, chat_prompt
from tests.integration.gateway.house import Consumer, House, Stall

PATH = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Name some trees, please"}]
ANSWER = answer_text(chat_prompt(MESSAGES))
WRONG_ANSWER = answer_text("another question")
GOOD = Script(models=("upstream-name",))


@dataclass(frozen=True, kw_only=True)
class Rack(Stall):
    """A deployment with an endpoint for each family."""

    families: tuple[str, ...]

    def offer(self, url: str) -> DeploymentOffer:
        """The offer of all of them."""
        offer = super().offer(url)
        [one] = offer.endpoints
        endpoints = [msgspec.structs.replace(one, name=each, model=each) for each in self.families]
        return msgspec.structs.replace(offer, endpoints=endpoints)


@dataclass
class Heard:
    """What one caller got."""

    status: int
    endpoint: str = ""
    call_id: str = ""
    text: str = ""
    cost: Decimal = Decimal(0)
    ended: bool = False
    """Whole, or by `[DONE]`."""
    error: str | None = None
    """The code of the error that the answer is, or that a stream ends with."""


@dataclass
class Trade:
    """The house with both racks in it."""

    house: House
    shop: Consumer
    providers: dict[str, ScriptedProvider] = field(default_factory=dict)

    async def enrol(self, families: Sequence[str], *providers: str, **more: Any) -> None:
        """List an endpoint of each provider for each family."""
        racks = [
            Rack(name=f"{each}/rack", families=tuple(families), capacity=200, **more)
            for each in providers
        ]
        async with asyncio.TaskGroup() as group:
            for rack in racks:
                group.create_task(self.house._enrol(rack))
        for each in providers:
            self.providers[each] = self.house.providers[f"{each}/rack"]
        await self.house.priced(*(f"{each}/{family}" for each in providers for family in families))

    def behave(self, provider: str, **script: Any) -> ScriptedProvider:
        """Tell a provider how to behave; its counts begin anew."""
        scripted = self.providers[provider]
        scripted.script = msgspec.structs.replace(GOOD, **script)
        scripted.calls = 0
        return scripted

    async def ask(
        self,
        family: str,
        *,
        stream: bool = False,
        first: str | None = None,
        messages: Any = MESSAGES,
        **wishes: Any,
    ) -> Heard:
        """Make one call; `first` is the provider to be tried first."""
        if first is not None:
            wishes["providers"] = {"order": [first]}
        body = {"model": family, "messages": messages, "stream": stream, "broker": wishes}
        answer = await self.shop.http.post(PATH, json=body)
        heard = Heard(
            answer.status_code,
            answer.headers.get("x-broker-endpoint", ""),
            answer.headers.get("x-broker-call-id", ""),
        )
        if answer.status_code != 200:
            heard.error = answer.json()["error"]["code"]
        elif stream:
            _read_stream(heard, answer.text)
        else:
            heard.text = answer.json()["choices"][0]["message"]["content"]
            heard.cost = Decimal(answer.headers["x-broker-cost-usd"])
            heard.ended = True
        return heard

    async def balance(self) -> Decimal:
        """What the shop has, once nothing is held any more."""
        await self.house.let_go()
        return Decimal((await self.shop.http.get("/api/balance")).json()["posted_usd"])

    async def paid(self, family: str) -> dict[str, int]:
        """Nano-dollars charged for each endpoint of a family."""
        rows = await self.house.database.fetch(
            "SELECT e.name, sum(l.charge_nanos)::bigint AS nanos FROM calls c"
            " JOIN settlement_lines l ON l.call_id = c.id"
            " JOIN endpoints e ON e.id = l.endpoint_id"
            " WHERE c.model = $1 GROUP BY e.name",
            family,
        )
        return {row["name"]: row["nanos"] for row in rows}


def _read_stream(heard: Heard, text: str) -> None:
    events = [each for each in text.split("\n\n") if each]
    for event in events:
        if event == "data: [DONE]":
            heard.ended = True
        elif event.startswith(": broker "):
            heard.cost = Decimal(json.loads(event.removeprefix(": broker "))["cost_usd"])
        elif event.startswith("data: "):
            told = json.loads(event.removeprefix("data: "))
            if "error" in told:
                heard.error = told["error"]["code"]
                heard.cost = Decimal(told["error"]["broker"]["cost_usd"])
            else:
                choices = told["choices"]
                heard.text += (choices[0]["delta"].get("content") or "") if choices else ""
