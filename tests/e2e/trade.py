"""Callers for tests: the unmodified OpenAI client, and what it was told of each call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import openai
from httpx import Headers

from pricing.money import parse_usd_nanos

Wishes = dict[str, Any]
Doing = Callable[..., Awaitable["Told"]]


@dataclass(eq=False)
class Told:
    """What one caller has been told, so far; `cost_nanos` comes with or before the last byte."""

    call_id: UUID | None = None
    endpoint: str = ""
    price_version: int = 0
    text: str = ""
    tokens_out: int | None = None
    cost_nanos: int | None = None
    whole: bool = False
    """The answer came to its clean end."""
    failure: Exception | None = None

    def hear_head(self, headers: Headers) -> None:
        """Note what the headers of an answer say."""
        self.call_id = UUID(headers["x-broker-call-id"])
        self.endpoint = headers["x-broker-endpoint"]
        self.price_version = int(headers["x-broker-price-version"])
        if "x-broker-cost-usd" in headers:
            self.cost_nanos = parse_usd_nanos(headers["x-broker-cost-usd"])


def chat(model: str, wishes: Wishes | None = None, **more: Any) -> dict[str, Any]:
    """The arguments of a chat completion."""
    asked = {"model": model, "messages": [{"role": "user", "content": "What is new?"}]}
    return asked | {"max_tokens": 64, "extra_body": {"broker": wishes or {}}} | more


async def ask(client: openai.AsyncOpenAI, told: Told, **asked: Any) -> Told:
    """Have a whole answer. Raises what the client raises."""
    raw = await client.chat.completions.with_raw_response.create(**asked)
    told.hear_head(raw.headers)
    answer = raw.parse()
    told.text = answer.choices[0].message.content
    told.tokens_out = answer.usage.completion_tokens if answer.usage else None
    told.whole = True
    return told


async def listen(client: openai.AsyncOpenAI, told: Told, **asked: Any) -> Told:
    """Have a stream to its end, usage included. Raises what the client raises."""
    asked |= {"stream": True, "stream_options": {"include_usage": True}}
    raw = await client.chat.completions.with_raw_response.create(**asked)
    told.hear_head(raw.headers)
    async with raw.parse() as chunks:
        async for chunk in chunks:
            if chunk.choices:
                told.text += chunk.choices[0].delta.content or ""
            if chunk.usage is not None:
                told.tokens_out = chunk.usage.completion_tokens
                told.cost_nanos = parse_usd_nanos(chunk.model_extra["broker"]["cost_usd"])
    told.whole = told.cost_nanos is not None
    return told


async def try_to(doing: Doing, client: openai.AsyncOpenAI, told: Told, **asked: Any) -> Told:
    """`ask` or `listen`, with the client's exception kept instead of raised."""
    try:
        await doing(client, told, **asked)
    except Exception as error:  # a connection that was reset is no APIError
        told.failure = error
    return told
