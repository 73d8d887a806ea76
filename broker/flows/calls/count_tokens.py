"""Counts what an attempt was sent and has delivered, by its endpoint's own tokenizer.

Fifty thousand characters take a tenth of a second: so a long prompt is counted beside the calls
while the provider is at work, and a long answer beside them when it has come. What is not counted
when an attempt is priced has no exact count, and the bound by bytes holds for it.
"""

from __future__ import annotations

import asyncio

import msgspec

from broker.core.call import OpenAiBody, TensorBody
from broker.core.catalog import Endpoint
from broker.core.metering import Delivered
from broker.encoding.tokens import LONG_CHARACTERS, TokenCounter

Body = OpenAiBody | TensorBody
"""What was sent; nothing is counted of tensors."""


class PromptCount(msgspec.Struct, frozen=True, eq=False):
    """What of a long body is counted, and by which tokenizer; `future` is None where nobody can."""

    body: OpenAiBody
    tokenizer_json: str | None
    prompt: str | None
    future: asyncio.Future[int | None] | None


def begin_prompt(
    body: Body, endpoint: Endpoint, begun: list[PromptCount], tokens: TokenCounter
) -> PromptCount | None:
    """Begin to count what an endpoint is sent, once for all that count alike; None where that takes
    no time. `begun` are those of the call so far, and grows."""
    if not isinstance(body, OpenAiBody) or body.size_bytes <= LONG_CHARACTERS:
        return None
    text = endpoint.tokenizer_json
    known = next((each for each in begun if each.body is body), None)
    prompt = body.prompt_text() if known is None else known.prompt
    for each in begun:
        if each.tokenizer_json == text and each.prompt == prompt:
            return each
    future = None if prompt is None else tokens.begin(endpoint.id, prompt)
    count = PromptCount(body, text, prompt, future)
    begun.append(count)
    return count


def counted(
    body: Body,
    endpoint: Endpoint,
    delivered: Delivered,
    begun: list[PromptCount],
    tokens: TokenCounter,
) -> Delivered:
    """Add the exact counts, as far as they are there or take no time."""
    if not isinstance(body, OpenAiBody):
        return delivered
    exact_out = delivered.exact_out
    if exact_out is None:
        exact_out = _with_bytes(tokens.count(endpoint.id, delivered.text), delivered)
    exact_in, count = None, begin_prompt(body, endpoint, begun, tokens)
    prompt = body.prompt_text() if count is None else count.prompt
    if count is not None and count.future is not None:
        exact_in = count.future.result() if count.future.done() else None
    elif prompt is not None:
        exact_in = tokens.count(endpoint.id, prompt)
    beside_in = 0 if exact_in is None else body.tokens_beside_text()
    return msgspec.structs.replace(
        delivered, exact_in=exact_in, exact_out=exact_out, beside_in=beside_in
    )


async def counted_beside(
    body: Body,
    endpoint: Endpoint,
    delivered: Delivered,
    begun: list[PromptCount],
    tokens: TokenCounter,
) -> Delivered:
    """Add the exact count of a long answer, once that and its prompt have been counted beside the
    calls; `counted` finds the prompt's."""
    count = begin_prompt(body, endpoint, begun, tokens)
    if len(delivered.text) > LONG_CHARACTERS and delivered.exact_out is None:
        exact = await tokens.count_beside(endpoint.id, delivered.text)
        delivered = msgspec.structs.replace(delivered, exact_out=_with_bytes(exact, delivered))
    if count is not None and count.future is not None:
        await asyncio.shield(count.future)
    return delivered


def _with_bytes(tokens: int | None, delivered: Delivered) -> int | None:
    """Reasoning and tool calls are not in the text: for them the bytes are the bound."""
    if tokens is None:
        return None
    return tokens + delivered.text_bytes - len(delivered.text.encode())
