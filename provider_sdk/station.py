"""One deployment as its agent keeps it: enrolled with the broker, watched, fronted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from provider_sdk.backoff import Backoff
from provider_sdk.client import BrokerClient, BrokerRefused, ProviderError
from provider_sdk.deployment import Deployment
from provider_sdk.front import Front
from provider_sdk.load import LoadReader, ServerState
from provider_sdk.protocol import (
    DNS_LABEL,
    WELL_KNOWN_PATH,
    Heartbeat,
    LoadReport,
    Registered,
    SignedHeartbeat,
    Verified,
)
from provider_sdk.receipts import ReceiptBook, ReceiptSender
from provider_sdk.signing import sign

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
STALE_S = 5.0
"""A load read longer ago is not passed on."""


def _front_of(deployment: Deployment, listen: str, book: ReceiptBook | None) -> Front:
    try:
        return Front(
            deployment.server,
            listen=listen,
            prefix=urlsplit(deployment.url).path,
            credential=deployment.credential,
            server_credential=deployment.server_credential,
            on_served=None if book is None else book.note,
        )
    except OSError as error:
        text = f"the front of {deployment.name} cannot listen on {listen}: {error.strerror}"
        raise OSError(error.errno, text) from error


class Station:
    """One deployment and everything that runs for it."""

    def __init__(
        self,
        deployment: Deployment,
        client: BrokerClient,
        backoff: Backoff,
        on_registered: Callable[[Registered], None],
        receipts: ReceiptSender,
    ) -> None:
        """`OSError` when the front's port is taken, `KeyUnusable` without a key for receipts."""
        self.name = deployment.name
        self._on_registered = on_registered
        self._deployment = deployment
        self._client = client
        self._backoff = backoff
        self._reader = LoadReader(
            deployment.server,
            deployment.kind,
            backend=deployment.backend,
            credential=deployment.server_credential or deployment.credential,
            metrics_url=deployment.metrics,
        )
        self.front: Front | None = None
        self._book: ReceiptBook | None = None
        if deployment.front is not None:
            if deployment.receipts_key is not None:
                self._book = receipts.open_book(self.name, deployment.receipts_key)
            self.front = _front_of(deployment, deployment.front, self._book)
        self.registered: Registered | None = None
        self.listed = False
        self._found: Verified | None = None
        """What keeps it off the market, as it was last told."""
        self._enrolment: asyncio.Task[None] | None = None
        self._state: ServerState | None = None
        self._state_at_s = 0.0
        # over restarts, too, each heartbeat must have a higher number than all before
        self._sequence = time.time_ns()

    def open(self) -> None:
        """Listen on the front, if there is one."""
        if self.front is not None:
            self.front.open()

    async def close(self, grace_s: float) -> None:
        """Let calls through the front end, `grace_s` seconds at most, and stop."""
        if self._enrolment is not None:
            self._enrolment.cancel()
            await asyncio.gather(self._enrolment, return_exceptions=True)
        if self.front is not None:
            await self.front.close(grace_s)
        await self._reader.close()

    def enrol(self) -> None:
        """Begin to register and verify, unless that is under way."""
        if self._enrolment is None or self._enrolment.done():
            self._enrolment = asyncio.create_task(self._enrol())

    async def _enrol(self) -> None:
        offer = self._deployment.offer()
        self._backoff.reset()
        registered = await self._insist("registering", lambda: self._client.register(offer))
        self.registered = registered
        if self.front is not None:
            self.front.nonce = registered.nonce
        if self._book is not None:
            self._book.registered(registered.deployment_id)
        self._on_registered(registered)
        self._say_how_to_prove(registered)
        self._backoff.reset()
        self.listed = registered.status == "listed"
        while not self.listed:
            verified = await self._insist(
                "verifying", lambda: self._client.verify(registered.deployment_id)
            )
            self.listed = self._tell(verified)
            if not self.listed:
                pause_s = self._backoff.next_s()
                log.info("%s is checked again in %.1f s", self.name, pause_s)
                await asyncio.sleep(pause_s)
        log.info("%s is listed (deployment %s)", self.name, registered.deployment_id)

    async def _insist(self, doing: str, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer, however often it must be asked for."""
        while True:
            try:
                return await call()
            except ProviderError as error:
                pause_s, why = self._backoff.next_s(), str(error).removesuffix(".")
                # What the broker refuses it will refuse again, until somebody mends it.
                level = logging.ERROR if isinstance(error, BrokerRefused) else logging.WARNING
                log.log(level, "%s %s: %s; again in %.1f s", doing, self.name, why, pause_s)
            await asyncio.sleep(pause_s)

    def _say_how_to_prove(self, registered: Registered) -> None:
        log.info("%s is registered (%s)", self.name, registered.status)
        host = urlsplit(self._deployment.url).hostname
        if self._deployment.proof == "dns":
            log.info('proof: publish TXT %s.%s "%s"', DNS_LABEL, host, registered.nonce)
        elif self._deployment.proof == "well-known" and self.front is None:
            log.info("proof: serve %s under %s", registered.nonce, WELL_KNOWN_PATH)

    def _tell(self, verified: Verified) -> bool:
        """Log what the broker found, once where it finds the same; whether it is listed."""
        if verified == self._found:
            log.error("%s is not listed, for the same reasons as before", self.name)
            return False
        self._found = None if verified.status == "listed" else verified
        for report in verified.reports:
            if report.ok:
                log.info("%s: %s: ok", self.name, report.check)
            else:
                log.error("%s: %s failed: %s", self.name, report.check, report.detail)
        if verified.status == "awaiting_approval":
            log.warning(
                "%s waits for an operator to approve it: broker approve %s",
                self.name,
                verified.deployment_id,
            )
        elif verified.status == "failed":
            log.error("%s is not listed", self.name)
        return verified.status == "listed"

    async def look(self) -> None:
        """Read the server's state; a slow server delays nothing but this."""
        state = await self._reader.read()
        if self._state is None or state.alive != self._state.alive:
            if state.alive:
                log.info("the server of %s is up: %s", self.name, state.detail)
            else:
                log.warning("the server of %s is down: %s", self.name, state.detail)
        self._state = state
        self._state_at_s = time.monotonic()

    def heartbeat(self, *, draining: bool) -> SignedHeartbeat | None:
        """The next heartbeat, from what was last seen; `None` before there is anything to say."""
        if self.registered is None or (self._state is None and not draining):
            return None
        self._sequence += 1
        status: Literal["ready", "draining", "down"] = "ready"
        if draining:
            status = "draining"
        elif self._state is None or not self._state.alive:
            status = "down"
        fresh = self._state is not None and time.monotonic() - self._state_at_s < STALE_S
        heartbeat = Heartbeat(
            deployment_id=self.registered.deployment_id,
            sequence=self._sequence,
            sent_at_ms=time.time_ns() // 1_000_000,
            status=status,
            load=self._state.load if fresh and self._state is not None else LoadReport(),
        )
        return sign(heartbeat, self.registered.signing_key)
