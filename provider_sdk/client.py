"""Speaks to the broker's provider API: register, verify, heartbeat, receipts.

ProviderError
├── BrokerUnreachable    no answer, or one that no broker gives; try again later
└── BrokerRefused        the broker's own words, with status and code
"""

from __future__ import annotations

import ssl
from functools import cache
from http import HTTPStatus
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from provider_sdk.protocol import (
    DeploymentOffer,
    HeartbeatBatch,
    HeartbeatReply,
    ReceiptBatch,
    ReceiptKeyKept,
    ReceiptKeyOffer,
    ReceiptReply,
    Registered,
    Verified,
)

Answer = TypeVar("Answer", Registered, Verified, HeartbeatReply, ReceiptKeyKept, ReceiptReply)

TIMEOUT_S = 10.0
VERIFY_TIMEOUT_S = 120.0
"""The broker probes the deployment before it answers."""


class ProviderError(Exception):
    """Something between a provider and its broker did not go as it should."""


class BrokerUnreachable(ProviderError):
    """The broker gave no answer, or one that no broker gives; it is worth trying again."""


class BrokerRefused(ProviderError):
    """The broker said no; the text is its own explanation."""

    def __init__(self, detail: str, *, status: int, code: str = "") -> None:
        super().__init__(detail)
        self.status = status
        self.code = code


class Problem(msgspec.Struct, frozen=True):
    """The body of a refusal (`application/problem+json`)."""

    title: str = ""
    detail: str = ""
    code: str = ""


@cache
def trusted() -> ssl.SSLContext:
    """What this machine trusts, for all clients of the process: it takes 50 ms to load."""
    return httpx.create_ssl_context()


class BrokerClient:
    """A connection to one broker under one key (`bk_...`); use as an async context manager."""

    def __init__(self, base_url: str, key: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=base_url.rstrip("/"),
            headers={"authorization": f"Bearer {key}"},
            timeout=TIMEOUT_S,
            verify=trusted(),
        )

    async def register(self, offer: DeploymentOffer) -> Registered:
        """Register a deployment, or bring its registration up to date."""
        return await self._post("/api/provider/deployments", offer, Registered)

    async def verify(self, deployment_id: str) -> Verified:
        """Ask the broker to check the proof and to probe; the outcome is in the answer."""
        path = f"/api/provider/deployments/{quote(deployment_id, safe='')}/verify"
        return await self._post(path, None, Verified, VERIFY_TIMEOUT_S)

    async def heartbeat(
        self, batch: HeartbeatBatch, timeout_s: float = TIMEOUT_S
    ) -> HeartbeatReply:
        """Send one batch of heartbeats."""
        return await self._post("/api/provider/heartbeats", batch, HeartbeatReply, timeout_s)

    async def receipt_key(self, deployment_id: str, offer: ReceiptKeyOffer) -> ReceiptKeyKept:
        """Bring the public half of the key that a deployment's receipts are signed with."""
        path = f"/api/provider/deployments/{quote(deployment_id, safe='')}/receipt-key"
        return await self._post(path, offer, ReceiptKeyKept)

    async def receipts(self, batch: ReceiptBatch) -> ReceiptReply:
        """Send one batch of signed receipts; sending it again does no harm."""
        return await self._post("/api/provider/receipts", batch, ReceiptReply)

    async def _post(
        self,
        path: str,
        message: msgspec.Struct | None,
        answer: type[Answer],
        timeout_s: float = TIMEOUT_S,
    ) -> Answer:
        body = b"" if message is None else msgspec.json.encode(message)
        headers = {"content-type": "application/json"}
        try:
            response = await self._http.post(path, content=body, headers=headers, timeout=timeout_s)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise BrokerUnreachable(f"no answer from {self._http.base_url}: {reason}") from error
        if not response.is_success:
            raise _refusal(response)
        try:
            return msgspec.json.decode(response.content, type=answer)
        except msgspec.DecodeError as error:
            raise BrokerUnreachable(
                f"{response.url} answered something that is no {answer.__name__}: {error}"
            ) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def _refusal(response: httpx.Response) -> ProviderError:
    """A refusal in the broker's words; an answer of something before it means it is away."""
    try:
        problem = msgspec.json.decode(response.content, type=Problem)
    except msgspec.DecodeError:
        problem = Problem()
    text = problem.detail or problem.title
    if not text:
        hint = ": is that a broker?" if response.status_code == HTTPStatus.NOT_FOUND else ""
        return BrokerUnreachable(f"{response.url} answered {response.status_code}{hint}")
    return BrokerRefused(text, status=response.status_code, code=problem.code)
