"""What a provider's error answer means: whose fault it is, what it says, and when to come again."""

from __future__ import annotations

import contextlib
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from broker.core.outcome import Fault, Outcome, fault_of_status
from broker.upstream.blame import status_meant
from broker.upstream.client import Response
from broker.upstream.faults import AttemptFailed
from broker.upstream.unpacking import unpacked

REFUSAL_BYTES_MAX: Final = 65_536
"""Of an error answer, this much is read."""
SAID_CHARACTERS_MAX: Final = 500
_WAIT_DIGITS_MAX: Final = 9


def refused(response: Response, body: bytes, now: datetime) -> Outcome:
    """Return the outcome of an answer that is no 200, which came `now`."""
    with contextlib.suppress(AttemptFailed):  # else it is said in bytes that nobody can read
        body = unpacked(response.header(b"content-encoding"), body, REFUSAL_BYTES_MAX)
    said = _sentence(body)
    status = status_meant(response.status, said)
    return Outcome(
        fault=fault_of_status(status) or Fault.MALFORMED,
        status=status,
        said=said,
        retry_after_s=_wait_s(response.header(b"retry-after") or b"", now),
    )


def _wait_s(retry_after: bytes, now: datetime) -> float | None:
    """Return the seconds of a `Retry-After`, which may be a date; None where it makes no sense."""
    if retry_after.isdigit():
        return float(retry_after[:_WAIT_DIGITS_MAX])
    try:
        at = parsedate_to_datetime(retry_after.decode("ascii"))
        return max(at.timestamp() - now.timestamp(), 0.0)
    except (ValueError, OverflowError):  # UnicodeError is one of the first
        return None


def _sentence(body: bytes) -> str:
    """Return the sentence in a provider's error answer, of whichever shape."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return body[:SAID_CHARACTERS_MAX].decode("utf-8", "replace")
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    return str(error)[:SAID_CHARACTERS_MAX]
