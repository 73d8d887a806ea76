"""Sends single requests to a deployment for the probes, off the hot path, with httpx.

Addresses are checked as for calls, redirects are not followed, answers are bounded in bytes and
time.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

import httpx
import msgspec

from broker.upstream import checked_httpx
from broker.upstream.addresses import AddressPolicy
from broker.upstream.request import Origin

TIMEOUT_S: Final = 60.0
CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_BYTES_MAX: Final = 8_388_608
QUOTED_CHARACTERS: Final = 200
"""How much of an unexpected answer a report quotes."""


class Answer(msgspec.Struct, frozen=True):
    """A whole answer to a probe, and how long it took."""

    status: int
    headers: httpx.Headers
    body: bytes
    latency_ms: float

    def quoted(self) -> str:
        """Return status and the first characters of the body, for a report."""
        text = self.body[: 4 * QUOTED_CHARACTERS].decode("utf-8", "replace")
        return f"status {self.status}: {text[:QUOTED_CHARACTERS]}"


class ProbeFailed(Exception):
    """A check found something else than it must; the text says what."""


class Prober:
    """Sends requests to one deployment; use it as an async context manager."""

    def __init__(
        self,
        url: str,
        credential: str | None,
        policy: AddressPolicy,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """`url` is origin and path prefix. Raises `RequestMalformed` for an unusable one."""
        origin, prefix = Origin.parse(url)
        authorization = {} if credential is None else {"authorization": f"Bearer {credential}"}
        self._timeout_s = timeout_s
        self.origin = f"{origin.scheme}://{origin.authority.decode()}"
        self._base = self.origin + prefix
        self._client = httpx.AsyncClient(
            transport=checked_httpx.transport(policy),
            headers={**authorization, "accept-encoding": "identity"},
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
            follow_redirects=False,
            trust_env=False,
        )

    async def __aenter__(self) -> Prober:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def get(self, path: str, *, at_root: bool = False) -> Answer:
        """GET a path below the prefix, or of the origin itself. Raises `ProbeFailed`."""
        return await self._send("GET", (self.origin if at_root else self._base) + path, b"", {})

    async def post(self, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        """POST a body. Raises `ProbeFailed` when no whole answer came."""
        return await self._send("POST", self._base + path, body, headers)

    async def _send(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        started_s = time.monotonic()
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream(method, url, content=body, headers=headers) as response,
            ):
                taken = bytearray()
                async for piece in response.aiter_raw():
                    taken += piece
                    if len(taken) > ANSWER_BYTES_MAX:
                        raise ProbeFailed(f"{method} {url}: over {ANSWER_BYTES_MAX} bytes")
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            words = str(error) or "no answer in time"
            raise ProbeFailed(f"{method} {url}: {type(error).__name__}: {words}") from error
        latency_ms = (time.monotonic() - started_s) * 1000
        return Answer(response.status_code, response.headers, bytes(taken), latency_ms)
