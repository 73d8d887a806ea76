"""Whether an attempt kept what its endpoint had promised.

The time to the first token is promised of streams, for how long a stream takes is its caller's
affair too; of other answers, the time to the whole of them. Only what was delivered can be late.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pricing.money import BPS_WHOLE


@dataclass(frozen=True, slots=True)
class Missed:
    """A promise that was not kept; milliseconds."""

    what: str
    promised_ms: int
    took_ms: float


def missed(
    attempt: Mapping[str, Any], *, stream: bool, ttft_ms: int | None, latency_ms: int | None
) -> Missed | None:
    """Return the promise that an attempt of a story missed, None when it missed none.

    `ttft_ms` and `latency_ms` are what was promised.
    """
    if attempt["outcome"] != "delivered":
        return None
    what, promised_ms, took_ms = (
        ("first token", ttft_ms, attempt["ttft_ms"])
        if stream
        else ("answer", latency_ms, attempt["duration_ms"])
    )
    if promised_ms is None or took_ms is None or took_ms <= promised_ms:
        return None
    return Missed(what, promised_ms, took_ms)


def credit_nanos(charge_nanos: int, share_bps: int) -> int:
    """Return the share of a charge that goes back, rounded down to whole nano-dollars."""
    return charge_nanos * share_bps // BPS_WHOLE
