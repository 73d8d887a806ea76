"""Posts events to webhooks: signed, within bounds, to whatever the given transport connects to.

    x-broker-signature: t=<seconds since 1970>,v1=<hex HMAC-SHA256 of "<t>.<body>">[,v1=...]

There is a `v1` for each secret that is valid, which are two while one replaces the other. Redirects
are not followed. Of an answer the status counts; a little of the body is read and nothing is kept.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import hmac
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Final

import httpx

from broker.core.outcome import Fault, Outcome

SIGNATURE: Final = "x-broker-signature"
CONNECT_S: Final = 5.0
TOTAL_S: Final = 10.0
BODY_BYTES_MAX: Final = 16_384
_DETAIL_CHARACTERS_MAX: Final = 200
_TOLD_MAX: Final = 10
"""Causes of an error that are looked at."""


@dataclass(frozen=True, slots=True)
class Message:
    """An event as it is posted; `attempt` counts from 1."""

    event_id: str
    kind: str
    body: bytes
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one post: `fault` is None when the target took it."""

    status: int | None
    fault: str | None
    detail: str = ""
    took_ms: float = 0.0


def signature(secrets: Sequence[str], at: datetime, body: bytes) -> str:
    """Return the value of `x-broker-signature`."""
    at_s = int(at.timestamp())
    signed = b"%d." % at_s + body
    digests = (hmac.new(each.encode(), signed, hashlib.sha256).hexdigest() for each in secrets)
    return ",".join((f"t={at_s}", *(f"v1={each}" for each in digests)))


async def post(
    transport: httpx.AsyncBaseTransport,
    url: str,
    message: Message,
    secrets: Sequence[str],
    now: datetime,
    total_s: float = TOTAL_S,
) -> Receipt:
    """Post a message once, within `total_s`; whatever goes wrong is in the receipt.

    The transport is asked directly: no cookies, no proxies, no redirects.
    """
    begun_s = time.monotonic()
    status: int | None = None
    fault, detail = None, ""
    try:
        async with asyncio.timeout(total_s):
            request = _request(url, message, signature(secrets, now, message.body))
            response = await transport.handle_async_request(request)
            status = response.status_code
            await _drop_body(response)
    except TimeoutError:
        fault, detail = Fault.TOTAL_TIMEOUT.value, f"no answer within {total_s:.0f} s"
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        fault, detail = _fault_of(error)
    if status is not None:  # it stands, however the body ended
        fault, detail = _verdict(status)
    took_ms = (time.monotonic() - begun_s) * 1_000
    return Receipt(status, fault, detail[:_DETAIL_CHARACTERS_MAX], took_ms)


def _request(url: str, message: Message, signed: str) -> httpx.Request:
    headers = {
        "content-type": "application/json",
        "accept": "*/*",
        "user-agent": _user_agent(),
        SIGNATURE: signed,
        "x-broker-event-id": message.event_id,
        "x-broker-event-kind": message.kind,
        "x-broker-attempt": str(message.attempt),
    }
    timeouts = httpx.Timeout(TOTAL_S, connect=CONNECT_S).as_dict()
    return httpx.Request(
        "POST", url, headers=headers, content=message.body, extensions={"timeout": timeouts}
    )


@functools.cache
def _user_agent() -> str:
    return f"model-broker/{version('model-broker')}"


async def _drop_body(response: httpx.Response) -> None:
    """Read a short body to its end, so that the connection can serve again; leave a long one."""
    assert isinstance(response.stream, httpx.AsyncByteStream)
    read_bytes = 0
    try:
        async for chunk in response.stream:
            read_bytes += len(chunk)
            if read_bytes > BODY_BYTES_MAX:
                break
    finally:
        await response.aclose()


def _verdict(status: int) -> tuple[str | None, str]:
    if 200 <= status < 300:
        return None, ""
    if 300 <= status < 400:
        return "redirected", f"it answered {status}; redirects are not followed"
    return "bad_status", f"it answered {status}"


def _fault_of(error: Exception) -> tuple[str, str]:
    outcome = _outcome_in(error)
    if outcome is not None and outcome.fault is not None:
        return outcome.fault.value, outcome.detail
    if isinstance(error, httpx.ConnectTimeout):
        return Fault.CONNECT_TIMEOUT.value, "no connection in time"
    if isinstance(error, httpx.TimeoutException):
        return Fault.TOTAL_TIMEOUT.value, "no answer in time"
    if isinstance(error, httpx.ConnectError):
        return Fault.CONNECT_FAILED.value, str(error) or "no connection"
    if isinstance(error, httpx.RemoteProtocolError):
        return Fault.MALFORMED.value, str(error)
    return Fault.RESET.value, str(error) or type(error).__name__


def _outcome_in(error: BaseException | None) -> Outcome | None:
    """Return what a refused address left among the causes of an error."""
    for _ in range(_TOLD_MAX):
        if error is None:
            break
        outcome = getattr(error, "outcome", None)
        if isinstance(outcome, Outcome):
            return outcome
        error = error.__cause__ or error.__context__
    return None
