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
QUEUED_CHARACTERS_MAX = 1_000_000
"""Of all texts that are being counted or wait for it: a second's work, for so long an answer may
wait for its counts. What comes beyond is not counted, and the bound by bytes holds for it."""
CHARACTERS_MAX = 256 << 20
"""Of all tokenizers together."""
OF_A_PROVIDER_MAX = 64 << 20
"""Of those of one provider, for others to have room."""


class _Loaded:
    """A tokenizer for all endpoints of the same text; None where it cannot be used, or broke."""

    __slots__ = ("tokenizer",)

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self.tokenizer = tokenizer


class TokenCounter:
    """The tokenizers of the endpoints on the market."""

    def __init__(
        self,
        characters_max: int = CHARACTERS_MAX,
        of_a_provider_max: int = OF_A_PROVIDER_MAX,
        queued_max: int = QUEUED_CHARACTERS_MAX,
    ) -> None:
        self._most = characters_max, of_a_provider_max
        self._loaded: dict[UUID, _Loaded] = {}
        self._queued, self._queued_max = 0, queued_max
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
        for endpoint_id in self._loaded.keys() - texts.keys():
            del self._loaded[endpoint_id]
        by_text = {texts[each]: loaded for each, loaded in self._loaded.items()}
        for endpoint_id, text in texts.items():
            if endpoint_id in self._loaded:
                continue
            if text not in by_text:
                by_text[text] = _Loaded(await asyncio.to_thread(_load, endpoint_id, text))
            self._loaded[endpoint_id] = by_text[text]
            if self._wanted is not endpoints:
                return
        self._prepared = endpoints

    def _tell_left_out(self, ids: set[UUID]) -> None:
        for endpoint_id in ids - self._left_out:
            _log.warning("tokenizer_without_room", endpoint_id=str(endpoint_id))
        self._left_out = ids

    def count(self, endpoint_id: UUID, text: str) -> int | None:
        """Return the number of tokens of a short text, without a template's; None when unknown, and
        of a long one, for which there is `begin`."""
        loaded = self._loaded.get(endpoint_id)
        if loaded is None or loaded.tokenizer is None or len(text) > LONG_CHARACTERS:
            return None
        return self._count(loaded, text)

    def begin(self, endpoint_id: UUID, text: str) -> asyncio.Future[int | None] | None:
        """Begin to count a long text beside the calls, not to be cancelled; None: it is unknown,
        counted in no time, or one too many."""
        loaded, size = self._loaded.get(endpoint_id), len(text)
        if loaded is None or loaded.tokenizer is None:
            return None
        if not LONG_CHARACTERS < size <= TEXT_CHARACTERS_MAX:
            return None
        if self._queued + size > self._queued_max:
            return None
        self._queued += size
        loop = asyncio.get_running_loop()
        begun = loop.run_in_executor(self._threads, self._count, loaded, text)
        begun.add_done_callback(lambda _: self._leave_queue(size))
        return begun

    def _leave_queue(self, size: int) -> None:
        self._queued -= size

    async def count_beside(self, endpoint_id: UUID, text: str) -> int | None:
        """Return the number of tokens of any text without holding up the calls; None when unknown,
        or when too much is being counted."""
        begun = self.begin(endpoint_id, text)
        if begun is None:
            return self.count(endpoint_id, text)
        # Whoever leaves does not take it from the queue, which has to hold no more than is counted.
        return await asyncio.shield(begun)

    def _count(self, loaded: _Loaded, text: str) -> int | None:
        tokenizer = loaded.tokenizer
        if tokenizer is None:
            return None  # it broke while this text waited
        try:
            if len(text) <= LONG_CHARACTERS:
                return len(tokenizer.encode(text, add_special_tokens=False))
            # Of several texts at once it leaves the interpreter to others, of one it does not.
            return len(tokenizer.encode_batch_fast([text], add_special_tokens=False)[0])
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library's panics are no Exception
            loaded.tokenizer = None
            # Copied at once, for this may be a thread's and the market may change meanwhile.
            sharing = self._loaded.copy().items()
            told, kind = [str(each) for each, its in sharing if its is loaded], type(error).__name__
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
