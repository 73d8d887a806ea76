"""Providers that know how many words they have sent for each attempt of each call."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec

from provider_sdk.deployment import Deployment
from provider_sdk.exchange import Exchange
from provider_sdk.testing.script import Script
from provider_sdk.testing.scripted import Received, ScriptedProvider
from tests.e2e.stall import Stall

_CONTENT = re.compile(rb'"content":"([^"]+)"')
_WORDS_AS_TOKENS = msgspec.json.encode(
    {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"},
    }
).decode()
"""A tokenizer by which each word is a token, so that the broker counts what the provider does."""


class CountingProvider(ScriptedProvider):
    """Notes the words of each attempt before they are sent."""

    def __init__(self, script: Script, sent: Counter[tuple[UUID, int]]) -> None:
        super().__init__(script)
        self._sent = sent

    async def _serve(self, exchange: Exchange, received: Received, script: Script) -> None:
        call, index = (received.headers.get(each) for each in ("x-request-id", "x-broker-attempt"))
        if call is None or index is None:  # a probe
            await super()._serve(exchange, received, script)
            return
        attempt, send = (UUID(call), int(index)), exchange.send

        async def count_and_send(data: bytes) -> None:
            for words in _CONTENT.findall(data):
                self._sent[attempt] += len(words.split())
            await send(data)

        exchange.send = count_and_send
        await super()._serve(exchange, received, script)


@dataclass(eq=False)
class CountingStall(Stall):
    """A stall whose provider counts, for a broker that counts exactly as well."""

    sent: Counter[tuple[UUID, int]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.server = CountingProvider(self.script, self.sent)

    def deployment(self) -> Deployment:
        plain = super().deployment()
        [chat] = plain.endpoints
        changed: Any = msgspec.structs.replace(chat, tokenizer_json=_WORDS_AS_TOKENS)
        return msgspec.structs.replace(plain, endpoints=[changed])
