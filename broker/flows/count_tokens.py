"""Counts what an attempt was sent and has delivered, by its endpoint's own tokenizer.

Fifty thousand characters take a tenth of a second: so a long prompt is counted beside the calls
while the provider is at work, and a long answer beside them when it has come.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from broker.core.call import Call, OpenAiBody
from broker.core.catalog import Endpoint
from broker.core.metering import Delivered
from broker.core.outcome import Outcome
from broker.encoding.tokens import LONG_CHARACTERS, TokenCounter

if TYPE_CHECKING:
    from broker.flows.tab import Tab


class PromptCount(msgspec.Struct, frozen=True, eq=False):
    """A count of a prompt that is under way."""

    endpoint: Endpoint
    prompt: str
    future: asyncio.Future[int | None]

    def tokens_of(self, endpoint: Endpoint, prompt: str, tokens: TokenCounter) -> int | None:
        """Return the tokens of a prompt of an endpoint; what is not counted yet, is now."""
        if prompt == self.prompt and endpoint.tokenizer_json == self.endpoint.tokenizer_json:
            if self.future.done() and not self.future.cancelled():
                return self.future.result()
            self.future.cancel()
        return tokens.count(endpoint.id, prompt)


def begin_prompt(endpoint: Endpoint, call: Call, tokens: TokenCounter) -> PromptCount | None:
    """Begin to count what an endpoint is sent; None where that takes no time, or nobody can."""
    body = call.body
    if not isinstance(body, OpenAiBody) or body.size_bytes <= LONG_CHARACTERS:
        return None
    prompt = body.prompt_text()
    future = None if prompt is None else tokens.begin(endpoint.id, prompt)
    return None if prompt is None or future is None else PromptCount(endpoint, prompt, future)


def counted(
    endpoint: Endpoint,
    call: Call,
    delivered: Delivered,
    tokens: TokenCounter,
    begun: PromptCount | None,
) -> Delivered:
    """Add the exact counts, of which that of the answer may be there."""
    body = call.body
    if not isinstance(body, OpenAiBody):
        return delivered
    exact_out = delivered.exact_out
    if exact_out is None:
        exact_out = _with_bytes(tokens.count(endpoint.id, delivered.text), delivered)
    exact_in, prompt = None, body.prompt_text()
    if prompt is not None and begun is not None:
        exact_in = begun.tokens_of(endpoint, prompt, tokens)
    elif prompt is not None:
        exact_in = tokens.count(endpoint.id, prompt)
    beside_in = 0 if exact_in is None else body.tokens_beside_text()
    return msgspec.structs.replace(
        delivered, exact_in=exact_in, exact_out=exact_out, beside_in=beside_in
    )


async def end_counted(tab: Tab, outcome: Outcome, delivered: Delivered) -> None:
    """End the attempt under way as of now, with what it delivered counted beside the calls."""
    endpoint, now_s = tab.endpoint, tab.runtime.now_s()
    try:
        if len(delivered.text) > LONG_CHARACTERS and endpoint.tokenizer_json is not None:
            tokens = await tab.runtime.tokens.count_beside(endpoint.id, delivered.text)
            exact_out = _with_bytes(tokens, delivered)
            delivered = msgspec.structs.replace(delivered, exact_out=exact_out)
    finally:  # whoever leaves meanwhile has had the answer made
        tab.end(outcome, delivered, now_s)


def _with_bytes(tokens: int | None, delivered: Delivered) -> int | None:
    """Reasoning and tool calls are not in the text: for them the bytes are the bound."""
    if tokens is None:
        return None
    return tokens + delivered.text_bytes - len(delivered.text.encode())
