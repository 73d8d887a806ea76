"""What attempts showed of the endpoints that served them."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from broker.core.columns import Floats, Numbers


class Measured(msgspec.Struct, frozen=True, gc=False):
    """What one delivered attempt showed; None where it showed nothing."""

    ttft_ms: float
    duration_ms: float
    tokens_out: int
    bytes_in_per_token: float | None = None
    bytes_out_per_token: float | None = None


class MeasuredMany(NamedTuple):
    """What many delivered attempts showed; arrays of one length."""

    ttft_ms: Floats
    duration_ms: Floats
    tokens_out: Numbers
