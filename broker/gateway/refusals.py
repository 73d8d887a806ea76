"""Turns errors into HTTP: OpenAI's shape on `/v1`, Triton's on `/v2`. No stack trace leaves."""

from __future__ import annotations

import math

import msgspec
import structlog

from broker.errors import AlreadyServed, BrokerError, MethodNotServed

_log = structlog.get_logger()

_TYPES = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}

Answer = tuple[int, list[tuple[bytes, bytes]], bytes]
"""Status, headers, body."""


def openai_refusal(error: BrokerError) -> Answer:
    """Return the error as the openai package reads it."""
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    shape: dict[str, object] = {
        "message": error.detail,
        "type": _TYPES.get(error.status, kind),
        "param": error.param,
        "code": error.code,
    }
    if error.facts:
        shape["broker"] = error.facts
    return error.status, _headers(error), msgspec.json.encode({"error": shape})


def kserve_refusal(error: BrokerError) -> Answer:
    """Return the error as tritonclient reads it: it shows the one string and nothing else."""
    shape: dict[str, object] = {"error": f"{error.detail} [{error.code}]"}
    if error.facts:
        shape["broker"] = error.facts
    return error.status, _headers(error), msgspec.json.encode(shape)


def unexpected(error: Exception) -> BrokerError:
    """Log what should not have happened, and return what the caller may know of it."""
    _log.error("call_failed_unexpectedly", exc_info=error)
    return BrokerError("Something went wrong inside the broker; the call was not charged.")


def _headers(error: BrokerError) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-type", b"application/json")]
    if error.call_id is not None:
        call_id = error.call_id.encode()
        headers += (b"x-broker-call-id", call_id), (b"x-request-id", call_id)
    if isinstance(error, MethodNotServed):
        headers.append((b"allow", error.allowed.encode()))
    if isinstance(error, AlreadyServed):
        headers.append((b"x-broker-replayed", b"true"))
    cost_usd = error.facts.get("cost_usd")
    if cost_usd is not None:
        headers.append((b"x-broker-cost-usd", str(cost_usd).encode()))
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % math.ceil(error.retry_after_s)))
    if not error.retryable and (error.status >= 500 or error.status in (408, 409, 429)):
        headers.append((b"x-should-retry", b"false"))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return headers
