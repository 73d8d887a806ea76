"""Counts tokens exactly with the tokenizers that endpoints have registered.

A tokenizer is loaded in a thread before it is used, for that takes a tenth of a second and more;
until then, and for very long texts, the count is None and the bound by bytes holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from broker.core.catalog import Endpoint
from broker.encoding.trusted import obstacle

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_log = structlog.get_logger()

TEXT_CHARACTERS_MAX = 50_000
"""Above, counting would hold up every other call."""


class TokenCounter:
    """The tokenizers of the endpoints on the market."""

    def __init__(self) -> None:
        self._tokenizers: dict[UUID, Tokenizer | None] = {}

    async def prepare(self, endpoints: Iterable[Endpoint]) -> None:
        """Load what is new, forget what has gone. An unusable tokenizer is logged and left out."""
        wanted = {each.id: each.tokenizer_json for each in endpoints if each.tokenizer_json}
        for endpoint_id in self._tokenizers.keys() - wanted.keys():
            del self._tokenizers[endpoint_id]
        for endpoint_id, text in wanted.items():
            if endpoint_id not in self._tokenizers:
                self._tokenizers[endpoint_id] = await asyncio.to_thread(_load, endpoint_id, text)

    def count(self, endpoint_id: UUID, text: str) -> int | None:
        """Return the number of tokens of a text, without a template's; None when unknown."""
        tokenizer = self._tokenizers.get(endpoint_id)
        if tokenizer is None or len(text) > TEXT_CHARACTERS_MAX:
            return None
        try:
            return len(tokenizer.encode(text, add_special_tokens=False).ids)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library's panics are no Exception
            self._tokenizers[endpoint_id] = None
            _log.warning("tokenizer_broke", endpoint_id=str(endpoint_id), kind=type(error).__name__)
            return None


def _load(endpoint_id: UUID, text: str) -> Tokenizer | None:
    reason = obstacle(text)
    if reason is not None:
        _log.warning("tokenizer_not_allowed", endpoint_id=str(endpoint_id), reason=reason)
        return None
    from tokenizers import Tokenizer  # 4 MB of memory, which many a market does without

    try:
        tokenizer = Tokenizer.from_str(text)
        # A file may ask for a fixed length: padding is no text, and may be gigabytes of it.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer
    except Exception as error:  # the library raises bare Exception for a file it cannot read
        _log.warning("tokenizer_unusable", endpoint_id=str(endpoint_id), reason=str(error)[:200])
        return None
