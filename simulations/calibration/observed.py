"""Reads what became of the requests of a real run, one JSON object a line.

    {"input_toks": 2358, "output_toks": 531, "arrival_time": 1787267980.08,
     "queued_ts": 27536.66, "scheduled_ts": 27536.66, "first_token_ts": 27537.35,
     "last_token_ts": 27554.23}

`arrival_time` may be on another clock than the rest: they are aligned where a request was queued
soonest after its arrival. `queued_ts` and `scheduled_ts` may be missing, other members are passed
over. A request without a first or a last token, or without a token at all, was not served, and is
left out. A moment of 0 did not come: vLLM writes that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from broker.errors import BrokerError
from pricing.book import FloatArray, IntArray

SAME_CLOCK_S = 60.0
"""Clocks that differ by no more than this are taken for one."""
_TOKENS = ("input_toks", "output_toks")
_MOMENTS = ("arrival_time", "queued_ts", "scheduled_ts", "first_token_ts", "last_token_ts")


class ObservationMalformed(BrokerError):
    """A line that does not tell what it should; the message names it."""

    status = 422
    code = "observation_malformed"


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """The requests that were served, by arrival; seconds after the first arrival."""

    arrival_s: FloatArray
    first_s: FloatArray
    last_s: FloatArray
    tokens_in: IntArray
    tokens_out: IntArray
    skipped: int
    """Requests that were not served."""

    @property
    def size(self) -> int:
        """How many."""
        return self.arrival_s.size

    @property
    def ttft_s(self) -> FloatArray:
        """From arrival to first token."""
        return self.first_s - self.arrival_s

    @property
    def e2e_s(self) -> FloatArray:
        """From arrival to last token."""
        return self.last_s - self.arrival_s


def read_observed(lines: Iterable[str | bytes]) -> Observed:
    """Read a run. Raises ObservationMalformed."""
    rows, skipped = [], 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _row(line, number)
        if row is None:
            skipped += 1
        else:
            rows.append(row)
    if not rows:
        raise ObservationMalformed("There is no request in it that was served.")
    return _aligned(rows, skipped)


def _row(line: str | bytes, number: int) -> dict[str, float] | None:
    try:
        told = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise ObservationMalformed(f"line {number}: {error}") from None
    if not isinstance(told, dict):
        raise ObservationMalformed(f"line {number}: a request is an object")
    row = {name: _number(told, name, number) for name in (*_TOKENS, *_MOMENTS)}
    for name in _MOMENTS[1:]:
        row[name] = row[name] or None
    if row["arrival_time"] is None:
        row["arrival_time"] = row["queued_ts"]
    if row["first_token_ts"] is None or row["last_token_ts"] is None or row["output_toks"] == 0:
        return None
    for name in _TOKENS:
        value = row[name]
        if value is None or value < 1 or value != int(value):
            raise ObservationMalformed(f"line {number}: '{name}' is a whole number above 0")
    if row["arrival_time"] is None:
        raise ObservationMalformed(f"line {number}: 'arrival_time' is missing")
    if row["last_token_ts"] < row["first_token_ts"]:
        raise ObservationMalformed(f"line {number}: the last token came before the first")
    return {name: np.nan if value is None else value for name, value in row.items()}


def _number(told: Mapping[str, Any], name: str, line: int) -> Any:
    value = told.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ObservationMalformed(f"line {line}: '{name}' is a number")
    return value


def _aligned(rows: list[dict[str, float]], skipped: int) -> Observed:
    column = {name: np.array([row[name] for row in rows]) for name in (*_TOKENS, *_MOMENTS)}
    arrival_s = column["arrival_time"]
    soonest_s = np.fmin(column["queued_ts"], column["scheduled_ts"])
    soonest_s = np.fmin(soonest_s, column["first_token_ts"])
    apart_s = float((soonest_s - arrival_s).min())
    if not 0.0 <= apart_s <= SAME_CLOCK_S:
        arrival_s = arrival_s + apart_s
    order = np.argsort(arrival_s, kind="stable")
    begun_s = arrival_s.min()
    return Observed(
        arrival_s=(arrival_s - begun_s)[order],
        first_s=(column["first_token_ts"] - begun_s)[order],
        last_s=(column["last_token_ts"] - begun_s)[order],
        tokens_in=column["input_toks"][order].astype(np.int64),
        tokens_out=column["output_toks"][order].astype(np.int64),
        skipped=skipped,
    )
