"""The price book feed: the leader of the tick publishes, all hear, the newest version wins.

Versions are drawn from the database, and a restored backup draws lower ones anew. So each book is
told with the epoch of its leader, the moment at which that came to lead: of two books the one of
the later epoch is newer, and within an epoch the one of the higher version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from broker.live.connection import Valkey, backoff_s, heed_cancellation, is_away
from pricing.book import BookMalformed, PriceBook

_log = structlog.get_logger(__name__)

_SILENCE_S: Final = 5.0
_DIGITS: Final = 20
"""Of the epoch and of the version, each, which a book is told behind."""

# A late leader cannot take the feed back: only what is not older than the present book is told.
_PUBLISH: Final = """
local old = redis.call('GETRANGE', KEYS[1], 0, 39)
if old ~= '' and old > string.sub(ARGV[1], 1, 40) then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('PUBLISH', KEYS[1], ARGV[1])
return 1
"""


class BookFeed:
    """Publishes books, and holds the newest one heard."""

    def __init__(self, valkey: Valkey, sign_of_life: str = "") -> None:
        """`sign_of_life` is a channel that is listened to as well, though nothing is told there."""
        self._valkey = valkey
        self._key = valkey.key("book")
        self._channels = [self._key, sign_of_life] if sign_of_life else [self._key]
        self._newest: PriceBook | None = None
        self.epoch = 0
        """Of the newest book heard."""
        self.listening = False
        """True while every book that is published arrives here."""

    @property
    def newest(self) -> PriceBook | None:
        """The newest book heard so far."""
        return self._newest

    async def publish(self, book: PriceBook, epoch: int = 0) -> bool:
        """Tell all processes; False when Valkey is away or has a newer one."""
        data = f"{epoch:0{_DIGITS}d}{book.version:0{_DIGITS}d}".encode() + book.to_bytes()
        told = await self._valkey.ask(
            lambda client: cast(Awaitable[int], client.eval(_PUBLISH, 1, self._key, data)), 0
        )
        return bool(told)

    async def listen(self, heard: Callable[[], None]) -> None:
        """Listen for ever, calling `heard` whenever `newest` has changed; ends by cancellation."""
        failures = 0
        while True:
            client = self._valkey.client()
            try:
                async with client.pubsub() as channel:
                    await channel.subscribe(*self._channels)
                    await self._follow(client, channel, heard)
            except Exception as error:
                if not is_away(error):
                    raise
                self._valkey.failed(error)
            finally:
                failures = 0 if self.listening else failures + 1
                self.listening = False
                await client.aclose()
            await asyncio.sleep(backoff_s(failures))

    async def _follow(self, client: Redis, channel: PubSub, heard: Callable[[], None]) -> None:
        # First subscribed, then looked up: no book is missed in between.
        stored = await cast(Awaitable[Any], client.get(self._key))
        if stored is not None and self._take(stored):
            heard()
        self.listening = True
        while True:
            heed_cancellation()
            message = await channel.get_message(timeout=_SILENCE_S)
            if message is None:
                await client.ping()  # raises when Valkey is gone without a word
            elif message["type"] == "message" and self._take(message["data"]):
                heard()

    def _take(self, data: bytes) -> bool:
        try:
            epoch, book = int(data[:_DIGITS]), PriceBook.from_bytes(data[2 * _DIGITS :])
        except (BookMalformed, ValueError) as error:
            _log.warning("a published price book is not understood", reason=str(error))
            return False
        newest = self._newest
        if newest is not None and (epoch, book.version) <= (self.epoch, newest.version):
            return False
        self._newest, self.epoch = book, epoch
        return True
