"""The demo's requests are told truthfully: where they went, at what price, and why."""

from __future__ import annotations

import io
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from rich.console import Console

from broker.demo.asking import Shown, ask_all, asks, consumer
from broker.demo.showcase import curl_line, openai_lines, show, triton_lines
from provider_sdk.exchange import Exchange
from provider_sdk.listener import Listener

PROVIDERS = ["flaky", "generalist", "smolchat", "tinyclass", "vectorworks"]


class Broker:
    """Answers as a broker's doors do; the flaky family fails over at every second call."""

    def __init__(self) -> None:
        self.family_calls = 0
        self.asked: list[dict[str, Any]] = []
        self.listener = Listener(self._handle)
        self.url = f"http://127.0.0.1:{self.listener.port}"

    async def _handle(self, exchange: Exchange) -> None:
        assert exchange.header("authorization") == "Bearer bk_a_b"
        if exchange.path.startswith("/api/"):
            told = self._prices() if exchange.path == "/api/prices" else self._story(exchange.path)
            await exchange.answer(200, json.dumps(told).encode())
            return
        body = json.loads(await exchange.body())
        self.asked.append(body)
        if exchange.path == "/v1/embeddings":
            answer = {"data": [{"embedding": [0.5] * 384}]}
            await self._answer(exchange, "vectorworks/e5-small", answer)
        elif exchange.path == "/v2/models/tinyclass--topic/infer":
            answer = {"outputs": [{"name": "TOPIC", "data": ["computing"]}]}
            await self._answer(exchange, "tinyclass/topic", answer)
        elif body.get("stream"):
            await self._stream(exchange)
        else:
            self.family_calls += body["model"] != "auto"
            answer = {"choices": [{"message": {"content": "Hello [bold]there[/bold]."}}]}
            await self._answer(exchange, "smolchat/chat", answer)

    async def _answer(self, exchange: Exchange, endpoint: str, answer: dict[str, Any]) -> None:
        headers = [*_headers(endpoint), (b"x-broker-cost-usd", b"0.0000012")]
        await exchange.answer(200, json.dumps(answer).encode(), headers=headers)

    async def _stream(self, exchange: Exchange) -> None:
        events: list[dict[str, Any]] = [
            {"choices": [{"delta": {"role": "assistant", "content": None}}]},
            {"choices": [{"delta": {"content": "A list "}}]},
            {"choices": [{"delta": {"content": "is."}}]},
            {"choices": [], "usage": {}, "broker": {"cost_usd": "0.0000345"}},
        ]
        await exchange.start(
            200, [*_headers("generalist/chat"), (b"transfer-encoding", b"chunked")]
        )
        for event in events:
            await exchange.send(f"data: {json.dumps(event)}\n\n".encode())
        await exchange.send(b"data: [DONE]\n\n")
        await exchange.end()

    def _prices(self) -> dict[str, Any]:
        moved = {"price_in_usd": "0.03", "price_out_usd": "0.09", "price_call_usd": "0.00"}
        names = ("tinyclass/topic", "smolchat/chat", "generalist/chat", "flaky/chat")
        endpoints = [
            {"name": name, "provider": name.split("/")[0], "price": moved, "health": "ready"}
            for name in (*names, "vectorworks/e5-small")
        ]
        return {"version": 8, "endpoints": endpoints}

    def _story(self, path: str) -> dict[str, Any]:
        served = path.removeprefix("/api/calls/").replace("--", "/")
        attempts = [{"endpoint": served, "outcome": "delivered", "status": 200}]
        if self.family_calls == 2:
            failed = {"endpoint": "flaky/chat", "outcome": "server_error", "status": 503}
            attempts.insert(0, failed)
        candidates = [{"endpoint": served, "score": 0.91}, {"endpoint": "other/chat", "score": 0.5}]
        return {"attempts": attempts, "candidates": candidates}


def _headers(endpoint: str) -> list[tuple[bytes, bytes]]:
    price = b"call=0.00001" if endpoint == "tinyclass/topic" else b"in=0.04,out=0.10"
    return [
        (b"x-broker-price", price),
        (b"x-broker-call-id", endpoint.replace("/", "--").encode()),
        (b"x-broker-endpoint", endpoint.encode()),
        (b"x-broker-price-version", b"7"),
    ]


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    broker = Broker()
    async with broker.listener:
        yield broker


@pytest.fixture
async def shown(broker: Broker) -> dict[str, Shown]:
    async with consumer(broker.url, "bk_a_b") as http:
        titles = [ask.title.split(":")[0] for ask in asks()]
        return dict(zip([*titles[:-1], "failover"], await ask_all(http, PROVIDERS), strict=True))


def test_an_answer_is_told_with_endpoint_price_paid_cost_and_scores(
    shown: dict[str, Shown],
) -> None:
    chat = shown["chat"]

    assert chat.endpoint == "smolchat/chat"
    assert chat.price == "$0.04 in, $0.10 out per Mtok (book 7)"
    assert chat.cost == "$0.0000012"
    assert chat.why == "best score: smolchat/chat 0.91, other/chat 0.50"


def test_the_cost_of_a_stream_is_taken_from_its_last_event(shown: dict[str, Shown]) -> None:
    assert shown["stream"].cost == "$0.0000345"
    assert shown["stream"].answer == "A list is."


def test_vectors_and_tensors_are_told_in_short(shown: dict[str, Shown]) -> None:
    assert shown["embedding"].answer == "384 numbers: 0.500, 0.500, 0.500 ..."
    assert shown["KServe inference"].answer == "TOPIC computing"
    assert shown["KServe inference"].price == "$0.00001 a call (book 7)"


def test_the_flaky_family_is_asked_until_a_failover_shows(
    shown: dict[str, Shown], broker: Broker
) -> None:
    assert broker.family_calls == 2
    assert shown["failover"].why == "flaky/chat server error (503), then smolchat/chat delivered"


async def test_a_provider_that_stayed_away_is_not_asked(broker: Broker) -> None:
    async with consumer(broker.url, "bk_a_b") as http:
        told = await ask_all(http, ["vectorworks"])

    assert [each.endpoint for each in told] == ["vectorworks/e5-small"]
    assert len(broker.asked) == 1


async def test_a_refusal_is_shown_with_its_reason() -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.answer(402, b'{"error": {"message": "The balance is too low."}}')

    async with (
        Listener(refuse) as listener,
        consumer(f"http://127.0.0.1:{listener.port}", "bk_a_b") as http,
    ):
        [told] = await ask_all(http, ["vectorworks"])

    assert told.why == "refused with 402"
    assert told.answer == "The balance is too low."


async def test_the_table_and_the_lines_to_paste_are_printed(broker: Broker) -> None:
    out = io.StringIO()

    await show(broker.url, "bk_a_b", Console(file=out, width=160, soft_wrap=True), PROVIDERS)

    printed = out.getvalue()
    assert printed.index("Waiting until") < printed.index("Sending a few") < printed.index("What")
    for heading in ("request", "routed to", "price", "cost", "why"):
        assert heading in printed
    assert "Hello [bold]there[/bold]." in printed  # shown as it came, not read as markup
    assert curl_line(broker.url, "bk_a_b") in printed
    assert openai_lines(broker.url, "bk_a_b") in printed
    assert triton_lines(broker.url, "bk_a_b") in printed


def test_the_lines_to_paste_are_programs_with_the_key_in_them() -> None:
    for lines in (openai_lines("http://h:1", "bk_a_b"), triton_lines("http://h:1", "bk_a_b")):
        compile(lines, "pasted", "exec")
        assert "bk_a_b" in lines
    sent = re.search("-d '(.*)'", curl_line("http://h:1", "bk_a_b"))
    assert sent is not None
    assert json.loads(sent[1])["model"] == "auto"
