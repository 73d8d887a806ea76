"""Counts what an attempt was sent and has delivered, by its endpoint's own tokenizer.

Fifty thousand characters take a tenth of a second: so a long prompt is counted beside the calls
while the provider is at work, and a long answer beside them when it has come. What is not counted
when an attempt is priced has no exact count, and the bound by bytes holds for it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from broker.core.call import OpenAiBody
from broker.core.catalog import Endpoint
from broker.core.metering import Delivered
from broker.core.outcome import Outcome
from broker.encoding.tokens import LONG_CHARACTERS

if TYPE_CHECKING:
    from broker.flows.calls.tab import Tab


class PromptCount(msgspec.Struct, frozen=True, eq=False):
    """What of a long body is counted, and by which tokenizer; `future` is None where nobody can."""

    body: OpenAiBody
    tokenizer_json: str | None
    prompt: str | None
    future: asyncio.Future[int | None] | None


class Uncounted(msgspec.Struct, frozen=True, eq=False):
    """What became of an attempt, and when it was over; it ends when that has been counted."""

    outcome: Outcome
    delivered: Delivered
    now_s: float


def begin_prompt(tab: Tab, endpoint: Endpoint) -> PromptCount | None:
    """Begin to count what an endpoint is sent, once for all that count alike; None where that takes
    no time."""
    body = tab.asked.body
    if not isinstance(body, OpenAiBody) or body.size_bytes <= LONG_CHARACTERS:
        return None
    text = endpoint.tokenizer_json
    known = next((each for each in tab.prompts if each.body is body), None)
    prompt = body.prompt_text() if known is None else known.prompt
    for each in tab.prompts:
        if each.tokenizer_json == text and each.prompt == prompt:
            return each
    future = None if prompt is None else tab.runtime.tokens.begin(endpoint.id, prompt)
    begun = PromptCount(body, text, prompt, future)
    tab.prompts.append(begun)
    return begun


def counted(tab: Tab, endpoint: Endpoint, delivered: Delivered) -> Delivered:
    """Add the exact counts, as far as they are there or take no time."""
    body, tokens = tab.asked.body, tab.runtime.tokens
    if not isinstance(body, OpenAiBody):
        return delivered
    exact_out = delivered.exact_out
    if exact_out is None:
        exact_out = _with_bytes(tokens.count(endpoint.id, delivered.text), delivered)
    exact_in, begun = None, begin_prompt(tab, endpoint)
    prompt = body.prompt_text() if begun is None else begun.prompt
    if begun is not None and begun.future is not None:
        exact_in = begun.future.result() if begun.future.done() else None
    elif prompt is not None:
        exact_in = tokens.count(endpoint.id, prompt)
    beside_in = 0 if exact_in is None else body.tokens_beside_text()
    return msgspec.structs.replace(
        delivered, exact_in=exact_in, exact_out=exact_out, beside_in=beside_in
    )


async def end_counted(
    tab: Tab, outcome: Outcome, delivered: Delivered, over_s: float | None = None
) -> None:
    """End the attempt under way as of `over_s`, or now, when its prompt and what it delivered have
    been counted beside the calls.

    Whoever leaves meanwhile has had the answer made: the attempt ends when the call is settled.
    """
    now_s = tab.runtime.now_s() if over_s is None else over_s
    try:
        if tab.is_under_way and tab.endpoint.tokenizer_json is not None:
            delivered = await _counted_beside(tab, delivered)
    except asyncio.CancelledError:
        tab.uncounted = Uncounted(outcome, delivered, now_s)
        raise
    finally:
        if tab.uncounted is None:
            tab.end(outcome, delivered, now_s)


async def _counted_beside(tab: Tab, delivered: Delivered) -> Delivered:
    endpoint, begun = tab.endpoint, begin_prompt(tab, tab.endpoint)
    if len(delivered.text) > LONG_CHARACTERS and delivered.exact_out is None:
        tokens = await tab.runtime.tokens.count_beside(endpoint.id, delivered.text)
        exact_out = _with_bytes(tokens, delivered)
        delivered = msgspec.structs.replace(delivered, exact_out=exact_out)
    if begun is not None and begun.future is not None:
        await asyncio.shield(begun.future)
    return delivered


def end_when_settled(tab: Tab, outcome: Outcome, delivered: Delivered) -> None:
    """End the attempt under way whose caller has left; what is counted is so by `settle_later`."""
    if tab.endpoint.tokenizer_json is None:
        tab.end(outcome, delivered)
    elif tab.is_under_way and tab.uncounted is None:
        tab.uncounted = Uncounted(outcome, delivered, tab.runtime.now_s())


def _with_bytes(tokens: int | None, delivered: Delivered) -> int | None:
    """Reasoning and tool calls are not in the text: for them the bytes are the bound."""
    if tokens is None:
        return None
    return tokens + delivered.text_bytes - len(delivered.text.encode())
