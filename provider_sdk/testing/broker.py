"""A fake broker for provider authors: a real HTTP server that takes registrations and heartbeats.

`async with FakeBroker() as broker:` and give `broker.url` and `broker.key` to an agent. It fetches
the proof as the real one does, checks every signature, sequence and clock of heartbeats, and
records all. Receipts it records as they come, their signatures are for the test to check.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

import httpx
import msgspec

from provider_sdk.client import trusted
from provider_sdk.exchange import Exchange
from provider_sdk.listener import Listener
from provider_sdk.protocol import (
    WELL_KNOWN_PATH,
    DeploymentOffer,
    Heartbeat,
    HeartbeatBatch,
    HeartbeatReply,
    HeartbeatResult,
    ProbeReport,
    Receipt,
    ReceiptBatch,
    ReceiptKeyClaim,
    ReceiptKeyKept,
    ReceiptKeyOffer,
    ReceiptReply,
    ReceiptResult,
    Registered,
    SignedHeartbeat,
    SignedReceipt,
    Verified,
)
from provider_sdk.signing import Doubt, examine, key_id_of

_VERIFY = re.compile(r"/api/provider/deployments/([^/]+)/verify")
_RECEIPT_KEY = re.compile(r"/api/provider/deployments/([^/]+)/receipt-key")
Away = Literal["refuse", "unavailable"]


@dataclass(slots=True)
class Known:
    """A deployment that has registered."""

    offer: DeploymentOffer
    registered: Registered
    last_sequence: int = 0
    listed: bool = False


class FakeBroker:
    """A broker as far as a provider sees one."""

    def __init__(self, *, interval_ms: int = 100) -> None:
        self._listener = Listener(self._handle)
        self.url = f"http://127.0.0.1:{self._listener.port}"
        self.key = "bk_fake_" + secrets.token_hex(8)
        self.interval_ms = interval_ms
        """What it asks for; may change at any time."""
        self.failing_probes: Sequence[ProbeReport] = ()
        """Reports of a failed verification; while there are any, nothing is listed."""
        self.needs_approval = False
        self.known: dict[str, Known] = {}
        """By deployment id."""
        self.registrations: list[DeploymentOffer] = []
        self.verifications: list[Verified] = []
        self.batches: list[HeartbeatBatch] = []
        self.heartbeats: list[Heartbeat] = []
        """Those believed."""
        self.doubted: list[tuple[SignedHeartbeat, Doubt | Literal["unknown_deployment"]]] = []
        self.takes_receipts = True
        """False is a broker of before there were receipts."""
        self.key_offers: list[ReceiptKeyOffer] = []
        self.signed_receipts: list[SignedReceipt] = []
        """Those kept, each once; `receipt_batches` has also what came again."""
        self.receipt_batches: list[ReceiptBatch] = []
        self._away: Away | None = None
        self._http = httpx.AsyncClient(timeout=5, verify=trusted(), trust_env=False)

    @property
    def away(self) -> Away | None:
        """Whether it is away, by refusing connections or by answering 503."""
        return self._away

    @away.setter
    def away(self, away: Away | None) -> None:
        self._away = away
        if away == "refuse":
            self._listener.refuse()
        else:
            self._listener.open()

    def forget(self) -> None:
        """Know no deployment any more, and ask for registration at the next heartbeats."""
        self.known.clear()

    async def __aenter__(self) -> Self:
        self._listener.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._listener.close()
        await self._http.aclose()

    async def _handle(self, exchange: Exchange) -> None:
        body = await exchange.body()
        if self._away == "unavailable":
            await _problem(exchange, 503, "unavailable", "the broker has no database now")
        elif exchange.header("authorization") != f"Bearer {self.key}":
            await _problem(exchange, 401, "unauthorized", "This key is not known.")
        else:
            try:
                await self._serve(exchange, body)
            except msgspec.DecodeError as error:
                await _problem(exchange, 422, "invalid", str(error))

    async def _serve(self, exchange: Exchange, body: bytes) -> None:
        verify, brings_key = (each.fullmatch(exchange.path) for each in (_VERIFY, _RECEIPT_KEY))
        answer: msgspec.Struct | None = None
        if exchange.path == "/api/provider/deployments":
            answer = self._register(msgspec.json.decode(body, type=DeploymentOffer))
        elif exchange.path == "/api/provider/heartbeats":
            answer = self._hear(msgspec.json.decode(body, type=HeartbeatBatch))
        elif verify is not None and verify[1] in self.known:
            answer = await self._verify(self.known[verify[1]])
        elif brings_key is not None and self.takes_receipts:
            answer = self._take_key(brings_key[1], msgspec.json.decode(body, type=ReceiptKeyOffer))
        elif exchange.path == "/api/provider/receipts" and self.takes_receipts:
            answer = self._take_receipts(msgspec.json.decode(body, type=ReceiptBatch))
        if answer is None:
            await _problem(exchange, 404, "not_found", f"there is no {exchange.path}")
        else:
            await exchange.answer(200, msgspec.json.encode(answer))

    def _register(self, offer: DeploymentOffer) -> Registered:
        self.registrations.append(offer)
        known = self.known.get(f"dep-{offer.name}")
        registered = Registered(
            deployment_id=f"dep-{offer.name}",
            status="listed" if known is not None and known.listed else "unproven",
            nonce=known.registered.nonce if known else secrets.token_hex(16),
            signing_key=known.registered.signing_key if known else secrets.token_hex(32),
            heartbeat_interval_ms=self.interval_ms,
        )
        if known is None:
            self.known[registered.deployment_id] = Known(offer, registered)
        else:
            known.offer = offer
        return registered

    async def _verify(self, known: Known) -> Verified:
        reports = [await self._proof(known), *self.failing_probes]
        status: Literal["listed", "failed", "awaiting_approval"] = "failed"
        if all(report.ok for report in reports):
            status = "awaiting_approval" if self.needs_approval else "listed"
        known.listed = status == "listed"
        verified = Verified(
            deployment_id=known.registered.deployment_id, status=status, reports=reports
        )
        self.verifications.append(verified)
        return verified

    async def _proof(self, known: Known) -> ProbeReport:
        if known.offer.proof != "well-known":
            return ProbeReport(check=f"proof by {known.offer.proof}", ok=True)
        parts = urlsplit(known.offer.url)
        url = f"{parts.scheme}://{parts.netloc}{WELL_KNOWN_PATH}"
        check = "proof by well-known"
        try:
            answer = await self._http.get(url)
        except httpx.HTTPError as error:
            return ProbeReport(check=check, ok=False, detail=f"GET {url}: {error!r}")
        proven = answer.status_code == 200 and answer.text.strip() == known.registered.nonce
        detail = "" if proven else f"GET {url}: {answer.status_code} and not the nonce"
        return ProbeReport(check=check, ok=proven, detail=detail)

    @property
    def receipts(self) -> list[Receipt]:
        """What the receipts that came say."""
        return [
            msgspec.json.decode(signed.receipt_json, type=Receipt)
            for signed in self.signed_receipts
        ]

    def _take_key(self, deployment_id: str, offer: ReceiptKeyOffer) -> ReceiptKeyKept:
        self.key_offers.append(offer)
        claim = msgspec.json.decode(offer.claim_json, type=ReceiptKeyClaim)
        return ReceiptKeyKept(
            deployment_id=deployment_id,
            key_id=key_id_of(bytes.fromhex(claim.public_key)),
            registered_at_ms=time.time_ns() // 1_000_000,
            endorsed=offer.endorsement is not None,
        )

    def _take_receipts(self, batch: ReceiptBatch) -> ReceiptReply:
        self.receipt_batches.append(batch)
        return ReceiptReply(results=[self._keep(each) for each in batch.receipts])

    def _keep(self, receipt: SignedReceipt) -> ReceiptResult:
        # As the real one: whoever has got no answer sends again what was kept.
        if receipt in self.signed_receipts:
            return ReceiptResult(kept=True, reason="duplicate")
        self.signed_receipts.append(receipt)
        return ReceiptResult(kept=True)

    def _hear(self, batch: HeartbeatBatch) -> HeartbeatReply:
        self.batches.append(batch)
        results = [self._believe(signed) for signed in batch.heartbeats]
        return HeartbeatReply(interval_ms=self.interval_ms, results=results)

    def _believe(self, signed: SignedHeartbeat) -> HeartbeatResult:
        known = self.known.get(signed.deployment_id)
        if known is None:
            self.doubted.append((signed, "unknown_deployment"))
            return HeartbeatResult(
                deployment_id=signed.deployment_id,
                accepted=False,
                reason="unknown_deployment",
                register_again=True,
            )
        found = examine(
            signed,
            known.registered.signing_key,
            last_sequence=known.last_sequence,
            now_ms=time.time_ns() // 1_000_000,
        )
        if not isinstance(found, Heartbeat):
            self.doubted.append((signed, found))
            return HeartbeatResult(deployment_id=signed.deployment_id, accepted=False, reason=found)
        known.last_sequence = found.sequence
        self.heartbeats.append(found)
        return HeartbeatResult(deployment_id=signed.deployment_id, accepted=True)


async def _problem(exchange: Exchange, status: int, code: str, detail: str) -> None:
    problem = {"type": "about:blank", "title": code, "status": status, "detail": detail}
    body = msgspec.json.encode({**problem, "code": code})
    await exchange.answer(status, body, "application/problem+json")
