"""Tells the broker what was served, in signed receipts, behind the back of the calls themselves.

The front notes a call when it has ended; one task per agent signs and sends what has gathered. The
notes are bounded: while the broker is away the oldest are lost, never a call. A batch that may have
arrived is sent again as it was, and the broker knows a duplicate. At the end of the agent what is
left is sent once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from provider_sdk.backoff import Backoff
from provider_sdk.client import BrokerClient, BrokerRefused, ProviderError
from provider_sdk.protocol import Receipt, ReceiptBatch, ReceiptReply, SignedReceipt
from provider_sdk.served import Served
from provider_sdk.signing import KeyUnusable, receipt_message

if TYPE_CHECKING:
    from provider_sdk.receipt_key import KeyFile

log = logging.getLogger(__name__)

NOTES_MAX: Final = 10_000
"""Of one deployment, while the broker is away; the oldest are lost first."""
BATCH_MAX: Final = 200
GATHER_S: Final = 1.0
"""After the first note of a batch, so long is waited for others."""
_UNREADABLE: Final = frozenset({400, 413, 422})
"""The broker will never take this batch."""
_UNKNOWN: Final = frozenset({404, 405})
"""This broker knows no receipts."""


def key_file(path: str) -> KeyFile:
    """The file of a key. `KeyUnusable` where the extra is not installed."""
    try:
        from provider_sdk.receipt_key import KeyFile
    except ImportError as error:
        raise KeyUnusable(
            "receipts need the extra: pip install 'model-broker-provider[receipts]'"
        ) from error
    return KeyFile(Path(path))


class ReceiptBook:
    """What one deployment served and the broker has not been told yet."""

    def __init__(self, name: str, keys: KeyFile, wake: asyncio.Event) -> None:
        self.name = name
        self.keys = keys
        self.key = keys.key()
        self.deployment_id: str | None = None
        self.taken = False
        """Whether the broker has the public half of the key."""
        self.lost = 0
        self._notes: deque[Served] = deque()
        self._wake = wake
        self._silent = False
        # over restarts, too, no two receipts may have the same number
        self._sequence = time.time_ns()

    def note(self, served: Served) -> None:
        """Remember a call; never waits and never fails."""
        if self._silent:
            return
        if len(self._notes) >= NOTES_MAX:
            self._notes.popleft()
            self.lost += 1
        self._notes.append(served)
        self._wake.set()

    def registered(self, deployment_id: str) -> None:
        """The broker knows the deployment: its key can be brought there."""
        self.deployment_id = deployment_id
        self.taken = self._silent = False
        self._wake.set()

    def give_up(self, why: str) -> None:
        """Keep no notes until the deployment is registered again."""
        log.warning("%s sends no receipts: %s", self.name, why)
        self._silent = True
        self._notes.clear()

    @property
    def left(self) -> int:
        """How many calls are noted and not signed yet."""
        return len(self._notes)

    @property
    def awaits_key(self) -> bool:
        """Whether its key is to be brought to the broker."""
        return self.deployment_id is not None and not self.taken and not self._silent

    def next(self) -> SignedReceipt | None:
        """Sign the oldest note and forget it; `None` when there is nothing that can be sent."""
        if not self.taken or not self._notes:
            return None
        assert self.deployment_id is not None
        self._sequence += 1
        note = self._notes.popleft()
        facts = {name: getattr(note, name) for name in Served.__slots__}
        receipt = Receipt(deployment_id=self.deployment_id, sequence=self._sequence, **facts)
        text = msgspec.json.encode(receipt).decode()
        return SignedReceipt(
            deployment_id=self.deployment_id,
            key_id=self.key.id,
            receipt_json=text,
            signature=self.key.sign(receipt_message(text)),
        )


class ReceiptSender:
    """Sends the receipts of all deployments of an agent, in batches."""

    def __init__(self, client: BrokerClient, backoff: Backoff) -> None:
        self.books: list[ReceiptBook] = []
        self.sent = 0
        self._client = client
        self._backoff = backoff
        self.gather_s = GATHER_S
        self._wake = asyncio.Event()
        self._in_hand: list[SignedReceipt] = []
        """Signed, and perhaps sent, and not answered yet."""
        self._complaint = ""

    def open_book(self, name: str, key_path: str) -> ReceiptBook:
        """A book for a deployment whose key is in that file. `KeyUnusable`."""
        book = ReceiptBook(name, key_file(key_path), self._wake)
        self.books.append(book)
        return book

    async def run(self) -> None:
        """Send what comes, until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(self.gather_s)
            self._wake.clear()
            try:
                await self._insist()
            except Exception:
                log.exception("receipts could not be sent")

    async def _insist(self) -> None:
        while True:
            if await self._send_all():
                self._backoff.reset()
                return
            await asyncio.sleep(self._backoff.next_s())

    async def flush(self, within_s: float) -> None:
        """Try once to send what is left."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._send_all()
        left = len(self._in_hand) + sum(book.left for book in self.books)
        if left:
            log.warning("%d receipts did not reach the broker", left)

    async def _send_all(self) -> bool:
        """Send all that can be sent; whether the broker took it."""
        try:
            for book in self.books:
                if book.awaits_key:
                    await self._bring_key(book)
            while await self._take():
                await self._send()
        except ProviderError as error:
            self._complain(str(error))
            return False
        self._complain("")
        return True

    async def _bring_key(self, book: ReceiptBook) -> None:
        assert book.deployment_id is not None
        try:
            former = book.keys.former()
        except KeyUnusable as error:
            log.warning("the new key of %s goes without the former's word: %s", book.name, error)
            former = None
        offer = book.key.offer(book.deployment_id, former)
        try:
            kept = await self._client.receipt_key(book.deployment_id, offer)
        except BrokerRefused as refusal:
            if refusal.status in _UNKNOWN:
                book.give_up(f"this broker takes none ({refusal})")
                return
            if refusal.status == 409 or refusal.status in _UNREADABLE:
                book.give_up(f"the broker does not take the key {book.key.id}: {refusal}")
                return
            raise
        book.taken = True
        book.keys.forget_former()
        log.info("%s signs receipts with the key %s", book.name, kept.key_id)

    async def _take(self) -> bool:
        """Fill the hand, a receipt from each book in turn; whether there is anything in it."""
        waiting = [book for book in self.books if book.taken]
        while waiting and len(self._in_hand) < BATCH_MAX:
            book = waiting.pop(0)
            signed = book.next()
            if signed is not None:
                self._in_hand.append(signed)
                waiting.append(book)
                # a signature takes a moment, after which calls shall go on
                await asyncio.sleep(0)
        return bool(self._in_hand)

    async def _send(self) -> None:
        batch = ReceiptBatch(receipts=self._in_hand)
        try:
            reply = await self._client.receipts(batch)
        except BrokerRefused as refusal:
            if refusal.status not in _UNREADABLE | _UNKNOWN:
                raise
            log.error("the broker cannot read %d receipts: %s", len(self._in_hand), refusal)
        else:
            self._hear(reply)
            self.sent += len(self._in_hand)
        self._in_hand = []

    def _hear(self, reply: ReceiptReply) -> None:
        refused = Counter(result.reason for result in reply.results if not result.kept)
        for reason, number in refused.items():
            log.warning("the broker did not keep %d receipts: %s", number, reason)
        results = zip(self._in_hand, reply.results, strict=False)
        unknown = {s.deployment_id for s, result in results if result.reason == "unknown_key"}
        for book in self.books:
            if book.deployment_id in unknown:
                book.taken = False  # its key is to be brought again
                self._wake.set()
            if book.lost:
                log.warning("%s lost %d receipts while the broker was away", book.name, book.lost)
                book.lost = 0

    def _complain(self, complaint: str) -> None:
        """Log a trouble when it begins, changes and ends."""
        if complaint and complaint != self._complaint:
            log.warning("receipts do not arrive: %s", complaint)
        elif self._complaint and not complaint:
            log.info("receipts arrive again")
        self._complaint = complaint
