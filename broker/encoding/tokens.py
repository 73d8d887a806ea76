"""Counts tokens exactly with the tokenizers that endpoints have registered.

A tokenizer is loaded in a thread before it is used, for that takes a second and ten times as much
memory as its text; endpoints of the same text share one. Until then, for very long texts and where
there is no room, the count is None and the bound by bytes holds.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from broker.core.catalog import Endpoint
from broker.encoding.trusted import obstacle

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_log = structlog.get_logger()

TEXT_CHARACTERS_MAX = 50_000
"""Above, counting would take a tenth of a second of a processor and more."""
LONG_CHARACTERS = 2_000
"""Counted in a thread where there is time, for it would hold all calls up by milliseconds."""
THREADS = 2
CHARACTERS_MAX = 256 << 20
"""Of all tokenizers together."""
OF_A_PROVIDER_MAX = 64 << 20
"""Of those of one provider, for others to have room."""


class TokenCounter:
    """The tokenizers of the endpoints on the market."""

    def __init__(
        self,
        characters_max: int = CHARACTERS_MAX,
        of_a_provider_max: int = OF_A_PROVIDER_MAX,
    ) -> None:
        self._most = characters_max, of_a_provider_max
        self._tokenizers: dict[UUID, Tokenizer | None] = {}
        self._left_out: set[UUID] = set()
        self._wanted: Sequence[Endpoint] = ()
        self._prepared: Sequence[Endpoint] = ()
        self._is_preparing = False
        self._threads = ThreadPoolExecutor(THREADS, "tokens")

    async def prepare(self, endpoints: Sequence[Endpoint]) -> None:
        """Load what is new, forget what has gone. An unusable tokenizer is logged and left out, and
        so is one without room, of those with the highest numbers first.

        Whoever is at it already goes on with these: the market changes more often than a tokenizer
        is loaded.
        """
        self._wanted = endpoints
        if self._is_preparing:
            return
        self._is_preparing = True
        try:
            while self._prepared is not self._wanted:
                await self._prepare(self._wanted)
        finally:
            self._is_preparing = False

    async def _prepare(self, endpoints: Sequence[Endpoint]) -> None:
        texts = _with_room(endpoints, *self._most)
        self._tell_left_out({each.id for each in endpoints if each.tokenizer_json} - texts.keys())
        for endpoint_id in self._tokenizers.keys() - texts.keys():
            del self._tokenizers[endpoint_id]
        loaded = {texts[each]: tokenizer for each, tokenizer in self._tokenizers.items()}
        for endpoint_id, text in texts.items():
            if endpoint_id in self._tokenizers:
                continue
            if text not in loaded:
                loaded[text] = await asyncio.to_thread(_load, endpoint_id, text)
            self._tokenizers[endpoint_id] = loaded[text]
            if self._wanted is not endpoints:
                return
        self._prepared = endpoints

    def _tell_left_out(self, ids: set[UUID]) -> None:
        for endpoint_id in ids - self._left_out:
            _log.warning("tokenizer_without_room", endpoint_id=str(endpoint_id))
        self._left_out = ids

    def count(self, endpoint_id: UUID, text: str) -> int | None:
        """Return the number of tokens of a text, without a template's; None when unknown."""
        tokenizer = self._usable(endpoint_id, text)
        return None if tokenizer is None else self._count(tokenizer, text)

    def begin(self, endpoint_id: UUID, text: str) -> asyncio.Future[int | None] | None:
        """Begin to count a long text beside the calls; None: it is unknown, or counted in no time.

        A count that has not begun may be cancelled.
        """
        tokenizer = self._usable(endpoint_id, text)
        if tokenizer is None or len(text) <= LONG_CHARACTERS:
            return None
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._threads, self._count, tokenizer, text)

    async def count_beside(self, endpoint_id: UUID, text: str) -> int | None:
        """Return what `count` does, without holding up the calls."""
        begun = self.begin(endpoint_id, text)
        return self.count(endpoint_id, text) if begun is None else await begun

    def _usable(self, endpoint_id: UUID, text: str) -> Tokenizer | None:
        return None if len(text) > TEXT_CHARACTERS_MAX else self._tokenizers.get(endpoint_id)

    def _count(self, tokenizer: Tokenizer, text: str) -> int | None:
        try:
            if len(text) <= LONG_CHARACTERS:
                return len(tokenizer.encode(text, add_special_tokens=False))
            # Of several texts at once it leaves the interpreter to others, of one it does not.
            return len(tokenizer.encode_batch_fast([text], add_special_tokens=False)[0])
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library's panics are no Exception
            broken = [each for each, shared in self._tokenizers.items() if shared is tokenizer]
            self._tokenizers.update(dict.fromkeys(broken))
            told, kind = [str(each) for each in broken], type(error).__name__
            _log.warning("tokenizer_broke", endpoint_ids=told, kind=kind)
            return None


def _with_room(endpoints: Sequence[Endpoint], most: int, of_a_provider_max: int) -> dict[UUID, str]:
    """Return texts of tokenizers by endpoint, as far as there is room; equal ones count once."""
    found: dict[UUID, str] = {}
    counted: set[str] = set()
    of_provider: Counter[UUID] = Counter()
    for each in endpoints:
        text, provider = each.tokenizer_json, each.deployment.provider_id
        if not text:
            continue
        if text not in counted:
            own, total = of_provider[provider] + len(text), of_provider.total() + len(text)
            if own > of_a_provider_max or total > most:
                continue
            counted.add(text)
            of_provider[provider] = own
        found[each.id] = text
    return found


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
