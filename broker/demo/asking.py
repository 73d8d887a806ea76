"""Sends a few real requests through the broker and finds out what became of each, and why.

It is an ordinary consumer: all it knows is what the answers' headers and `/api/calls` tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec

from broker.demo.providers import CHAT_FAMILY, EMBEDDING_FAMILY

_ANSWER_LIMIT_S = 60.0
_STORY_LIMIT_S = 5.0
_LISTING_LIMIT_S = 30.0
_POLL_S = 0.1
_FAILOVER_TRIES = 4
"""The flaky provider fails every other call, so two would do if nobody else called it."""
_STREAM_LINE_START = "data: "


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of the show: what it shows, where it goes, and what it says."""

    title: str
    path: str
    body: dict[str, Any]
    provider: str
    """Without whom it makes no sense."""
    wants_failover: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """What became of one request; texts for people."""

    title: str
    endpoint: str = "-"
    price: str = "-"
    cost: str = "-"
    why: str = "-"
    answer: str = ""
    call_id: str = ""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: httpx.Headers
    text: str
    cost: str | None = None


@dataclass(frozen=True, slots=True)
class _Story:
    attempts: list[dict[str, Any]] = field(default_factory=list)
    candidates: list[dict[str, Any]] = field(default_factory=list)


def asks() -> tuple[Ask, ...]:
    """The requests of the show, in order."""
    ticket = "My printer does not print since the Windows update."
    text = {"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": [ticket]}
    return (
        Ask(
            "chat: auto, about support",
            "/v1/chat/completions",
            _chat("auto", ticket, {"domain": "support"}),
            "smolchat",
        ),
        Ask(
            "stream: auto, about code, quality first",
            "/v1/chat/completions",
            _chat("auto", "What is a Python list?", {"domain": "code", "weights": "quality"})
            | {"stream": True, "stream_options": {"include_usage": True}},
            "generalist",
        ),
        Ask(
            f"embedding: {EMBEDDING_FAMILY}",
            "/v1/embeddings",
            {"model": EMBEDDING_FAMILY, "input": [ticket]},
            "vectorworks",
        ),
        Ask(
            "KServe inference: tinyclass/topic",
            "/v2/models/tinyclass--topic/infer",
            {"inputs": [text]},
            "tinyclass",
        ),
        Ask(
            f"chat: {CHAT_FAMILY}, the flaky one first",
            "/v1/chat/completions",
            _chat(CHAT_FAMILY, "Say hello.", {"providers": {"order": ["flaky", "smolchat"]}}),
            "flaky",
            wants_failover=True,
        ),
    )


def _chat(model: str, question: str, wishes: dict[str, Any]) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    return {"model": model, "messages": messages, "max_tokens": 20, "broker": wishes}


def consumer(base_url: str, key: str) -> httpx.AsyncClient:
    """A client of the broker at the origin `base_url`, with a consumer's `key`."""
    return httpx.AsyncClient(
        base_url=base_url,
        headers={"authorization": f"Bearer {key}"},
        timeout=_ANSWER_LIMIT_S,
        trust_env=False,
    )


async def wait_for(http: httpx.AsyncClient, providers: Collection[str]) -> set[str]:
    """Wait until each of the providers has an endpoint that takes calls; return those that have.

    What was registered at an earlier start is listed at once, but takes no calls yet.
    """
    deadline_s = asyncio.get_running_loop().time() + _LISTING_LIMIT_S
    while True:
        endpoints = await _prices(http)
        listed = {each["provider"] for each in endpoints if each.get("health") == "ready"}
        missing = set(providers) - listed
        if not missing or asyncio.get_running_loop().time() > deadline_s:
            return set(providers) - missing
        await asyncio.sleep(_POLL_S)


async def ask_all(http: httpx.AsyncClient, providers: Collection[str]) -> list[Shown]:
    """Send what the `providers` at hand can serve; a refusal is shown, not raised."""
    return [await _show_one(http, ask) for ask in asks() if ask.provider in providers]


async def _show_one(http: httpx.AsyncClient, ask: Ask) -> Shown:
    for _ in range(_FAILOVER_TRIES if ask.wants_failover else 1):
        try:
            answer = await _send(http, ask)
        except httpx.HTTPError as error:
            return Shown(ask.title, why=f"no answer: {error!r}")
        if answer.status != 200:
            return Shown(ask.title, why=f"refused with {answer.status}", answer=answer.text)
        story = await _story(http, answer.headers.get("x-broker-call-id", ""))
        if not ask.wants_failover or len(story.attempts) > 1:
            break
    endpoint = answer.headers.get("x-broker-endpoint", "-")
    version = answer.headers.get("x-broker-price-version", "?")
    cost = answer.headers.get("x-broker-cost-usd") or answer.cost or _charged(story)
    return Shown(
        title=ask.title,
        endpoint=endpoint,
        price=f"{_priced(answer.headers.get('x-broker-price', ''))} (book {version})",
        cost=f"${cost}",
        why=_why(story),
        answer=answer.text,
        call_id=answer.headers.get("x-broker-call-id", ""),
    )


async def _send(http: httpx.AsyncClient, ask: Ask) -> _Answer:
    async with AsyncExitStack() as stack:
        response = await stack.enter_async_context(http.stream("POST", ask.path, json=ask.body))
        if response.status_code != 200 or not ask.body.get("stream"):
            return _whole(response, await response.aread())
        pieces, cost = [], None
        async for line in response.aiter_lines():
            if not line.startswith(_STREAM_LINE_START) or line.endswith("[DONE]"):
                continue
            event = msgspec.json.decode(line.removeprefix(_STREAM_LINE_START))
            cost = event.get("broker", {}).get("cost_usd", cost)
            pieces += [
                (c.get("delta") or {}).get("content") or "" for c in event.get("choices", ())
            ]
        return _Answer(200, response.headers, "".join(pieces), cost)


def _whole(response: httpx.Response, content: bytes) -> _Answer:
    try:
        text = _said(msgspec.json.decode(content))
    except (msgspec.DecodeError, LookupError, TypeError):
        text = content[:200].decode(errors="replace")
    return _Answer(response.status_code, response.headers, text)


def _said(body: dict[str, Any]) -> str:
    """The heart of an answer of any kind, short."""
    if "error" in body:
        error = body["error"]
        return str(error if isinstance(error, str) else error["message"])
    if "choices" in body:
        return str(body["choices"][0]["message"]["content"])
    if "outputs" in body:
        return ", ".join(f"{each['name']} {each['data'][0]}" for each in body["outputs"])
    vector = body["data"][0]["embedding"]
    return f"{len(vector)} numbers: {', '.join(f'{number:.3f}' for number in vector[:3])} ..."


async def _story(http: httpx.AsyncClient, call_id: str) -> _Story:
    """What the broker tells of a call; it is written down a moment after the last byte."""
    deadline_s = asyncio.get_running_loop().time() + _STORY_LIMIT_S
    while call_id and asyncio.get_running_loop().time() < deadline_s:
        answer = await http.get(f"/api/calls/{call_id}")
        if answer.status_code == 200:
            told = msgspec.json.decode(answer.content)
            return _Story(told.get("attempts", []), told.get("candidates", []))
        await asyncio.sleep(_POLL_S)
    return _Story()


def _priced(header: str) -> str:
    """The price that was charged: the market's may have moved since."""
    price = dict(part.partition("=")[::2] for part in header.split(",") if part)
    if "call" in price:
        return f"${price['call']} a call"
    return f"${price['in']} in, ${price['out']} out per Mtok" if "in" in price else "-"


async def _prices(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    answer = await http.get("/api/prices")
    told = msgspec.json.decode(answer.content) if answer.is_success else {}
    return list(told.get("endpoints", []))


def _charged(story: _Story) -> str:
    charges = [attempt.get("charge_usd", "0") for attempt in story.attempts]
    return next((charge for charge in charges if float(charge)), "0")


def _why(story: _Story) -> str:
    """One line: the way over failed attempts, or the scores that decided."""
    if len(story.attempts) > 1:
        return ", then ".join(f"{each.get('endpoint')} {_outcome(each)}" for each in story.attempts)
    scores = [f"{each.get('endpoint')} {each.get('score', 0):.2f}" for each in story.candidates]
    if len(scores) == 1:
        return "the only one that fits"
    return f"best score: {', '.join(scores[:3])}" if scores else "-"


def _outcome(attempt: dict[str, Any]) -> str:
    status = attempt.get("status")
    outcome = str(attempt.get("outcome", "?")).replace("_", " ")
    return f"{outcome} ({status})" if status and status != 200 else outcome
