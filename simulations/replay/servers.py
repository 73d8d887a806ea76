"""Guesses what a server can do from the calls that it served: a shared processor that fits them.

    seconds of a token = c0 + c1 * calls at once,    seconds to the first one = prefill * tokens in

by least squares without negative parts (Lawson & Hanson, "Solving Least Squares Problems", 1974),
each call at the mean number of calls that were under way with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pricing.book import FloatArray
from simulations.supply import SharingServer

CALLS_MIN = 20
"""Fewer calls tell nothing."""
CALLS_FITTED = 20_000
_USUAL = SharingServer()
_LEAST_S = 1e-6
_DIGITS = 4


def server_of(calls: Sequence[Mapping[str, Any]], capacity: int) -> dict[str, Any]:
    """Return the server of an endpoint as a scenario has it; `calls` are those that it served."""
    told = [each for each in calls if each["ttft_s"] is not None and each["tokens_out"] > 1]
    server: dict[str, Any] = {"kind": "sharing_server", "batch_max": capacity}
    if len(told) < CALLS_MIN:
        # No stream was seen, but the usual duration was: a call of usual length then takes as long.
        return server | _by_duration(calls)
    at_s, ttft_s, duration_s, tokens_in, tokens_out = (
        np.array([each[name] for each in told], dtype=np.float64)
        for name in ("at_s", "ttft_s", "duration_s", "tokens_in", "tokens_out")
    )
    token_s = np.maximum(duration_s - ttft_s, 0.0) / (tokens_out - 1.0)
    together = np.minimum(_together(calls, at_s + (ttft_s + duration_s) / 2.0), capacity)
    c0, c1 = _fitted(np.stack((np.ones(at_s.size), together), axis=1), token_s)
    (prefill,) = _fitted(tokens_in[:, np.newaxis], np.minimum(ttft_s, np.median(ttft_s) * 3.0))
    return server | {
        "c0_s": _round(max(c0, _LEAST_S)),
        "c1_s": _round(c1),
        "prefill_s": _round(prefill),
    }


def _by_duration(calls: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    served = [each for each in calls if each["duration_s"] > 0.0]
    if not served:
        return {"c0_s": _USUAL.c0_s, "c1_s": _USUAL.c1_s, "prefill_s": _USUAL.prefill_s}
    seconds = [each["duration_s"] / max(each["tokens_out"], 1) for each in served]
    return {"c0_s": _round(max(float(np.median(seconds)), _LEAST_S)), "c1_s": 0.0, "prefill_s": 0.0}


def _together(calls: Sequence[Mapping[str, Any]], at_s: FloatArray) -> FloatArray:
    """How many calls were under way at these moments."""
    begun = np.sort([each["at_s"] for each in calls])
    ended = np.sort([each["at_s"] + each["duration_s"] for each in calls])
    under_way = np.searchsorted(begun, at_s, side="right") - np.searchsorted(ended, at_s)
    together: FloatArray = np.maximum(under_way, 1).astype(np.float64)
    return together


def _fitted(columns: FloatArray, wanted: FloatArray) -> FloatArray:
    from scipy.optimize import nnls

    step = max(wanted.size // CALLS_FITTED, 1)
    found: FloatArray = nnls(columns[::step], wanted[::step])[0]
    return found


def _round(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
