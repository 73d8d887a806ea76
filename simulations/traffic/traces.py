"""Reads when calls came and how long they were, from files that others wrote.

    Azure LLM inference   CSV with TIMESTAMP, ContextTokens, GeneratedTokens
    Mooncake              JSON lines with timestamp (milliseconds), input_length, output_length
    the broker's own log  JSON lines or CSV with created_at or at_s, tokens_in, tokens_out
    rates of ServeGen     CSV with t_s, rate_rps, and if need be pool and rate_weighted_cv

Which of them a file is its first line tells. Calls without any token out were not served and have
no length that could be played again, so they are left out.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from broker.errors import BrokerError

CALLS_MAX = 2_000_000
AZURE = ("timestamp", "contexttokens", "generatedtokens")
MOONCAKE = ("timestamp", "input_length", "output_length")
OWN = ("created_at", "tokens_in", "tokens_out")
PLAIN = ("at_s", "tokens_in", "tokens_out")
RATES = ("t_s", "rate_rps")


class TraceMalformed(BrokerError):
    """A file that is no trace; the message names it and the line."""

    status = 422
    code = "trace_malformed"


@dataclass(frozen=True, slots=True)
class Played:
    """Calls by arrival, in seconds after the first second that is played."""

    arrival_s: tuple[float, ...]
    tokens_in: tuple[int, ...]
    tokens_out: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rates:
    """A rate of calls for each span; the last one lasts."""

    from_s: tuple[float, ...]
    rates_per_s: tuple[float, ...]
    cv: float
    """Of the gaps: the mean over the spans, by their calls; 1 where the file does not tell."""


Part = tuple[float, float]
"""From which second of a file on until when."""


def read_calls(path: Path, part: Part = (0.0, math.inf)) -> Played:
    """Return the calls of a part of a file; it begins with its first call, but for what is told in
    plain seconds, which begins at 0. Raises TraceMalformed, OSError."""
    rows, has_clock = [], True
    for line, row in _rows(path):
        rows.append(_call(row, path, line))
        has_clock = has_clock and PLAIN[0] not in row
        if len(rows) > CALLS_MAX:
            raise TraceMalformed(f"{path} has more than {CALLS_MAX} calls.")
    served = sorted(each for each in rows if each[2] > 0)
    begin_s = served[0][0] if served and has_clock else 0.0
    kept = [each for each in served if part[0] <= each[0] - begin_s < part[1]]
    if not kept:
        raise TraceMalformed(f"{path} has no call in this part.")
    arrival_s, tokens_in, tokens_out = zip(*kept, strict=True)
    return Played(
        # To the millisecond: what is finer is noise, and the file goes to every worker.
        tuple(round(each - begin_s - part[0], 3) for each in arrival_s),
        tuple(max(each, 1) for each in tokens_in),
        tokens_out,
    )


def read_rates(path: Path, pool: str = "", part: Part = (0.0, math.inf)) -> Rates:
    """Return the rates of a pool; a window without any call is a gap in the record, and is taken to
    be as the one before. Raises TraceMalformed, OSError."""
    spans, pools = [], set()
    for line, row in _rows(path):
        if any(name not in row for name in RATES):
            raise TraceMalformed(f"{path}:{line}: rates have the columns {', '.join(RATES)}.")
        pools.add(str(row.get("pool", "")))
        if str(row.get("pool", pool)) == pool:
            names = (*RATES, "rate_weighted_cv")
            spans.append([_number(row.get(name, 1.0), path, line) for name in names])
    spans = [each for each in sorted(spans) if part[0] <= each[0] < part[1]]
    known = [rate for _, rate, _ in spans if rate > 0.0]
    if not known:
        there = ", ".join(sorted(each for each in pools if each))
        raise TraceMalformed(f"{path} has no rates of '{pool}'; there are {there or 'none'}.")
    rates, rate = [], known[0]
    for _, told, _ in spans:
        rate = told if told > 0.0 else rate
        rates.append(rate)
    calls = math.fsum(known)
    cv = math.fsum(told * cv for _, told, cv in spans if told > 0.0) / calls
    begin_s = spans[0][0]
    return Rates(tuple(each[0] - begin_s for each in spans), tuple(rates), cv)


def _call(row: Mapping[str, Any], path: Path, line: int) -> tuple[float, int, int]:
    """When it came in seconds of any clock, tokens in, tokens out."""
    for names, clock in _CLOCKS.items():
        if all(name in row for name in names):
            at_s = clock(row[names[0]], path, line)
            into, out = (int(_number(row[name] or 0, path, line)) for name in names[1:])
            return at_s, into, out
    wanted = "; ".join(", ".join(names) for names in _CLOCKS)
    raise TraceMalformed(f"{path}:{line}: a call has one of these sets of fields: {wanted}.")


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows by the names of their columns in small letters, with their lines."""
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            first = lines.readline()
            lines.seek(0)
            yield from _objects(lines, path) if first.lstrip().startswith("{") else _table(lines)
    except UnicodeDecodeError:
        raise TraceMalformed(f"{path} is no text.") from None


def _table(lines: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    table = csv.DictReader(lines)
    table.fieldnames = [each.strip().lower() for each in table.fieldnames or ()]
    for row in table:
        yield table.line_num, row


def _objects(lines: Any, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise TraceMalformed(f"{path}:{number}: is no JSON object.")
        yield number, row


def _moment_s(told: Any, path: Path, line: int) -> float:
    try:
        return datetime.fromisoformat(str(told).strip()).timestamp()
    except ValueError:
        raise TraceMalformed(f"{path}:{line}: '{told}' is no moment.") from None


def _milliseconds(told: Any, path: Path, line: int) -> float:
    return _number(told, path, line) / 1_000.0


def _number(told: Any, path: Path, line: int) -> float:
    try:
        number = float(told)
    except (TypeError, ValueError):
        number = math.nan
    if not 0.0 <= number < math.inf:
        raise TraceMalformed(f"{path}:{line}: '{told}' is no number from 0 on.")
    return number


_CLOCKS: Mapping[tuple[str, ...], Callable[[Any, Path, int], float]] = {
    AZURE: _moment_s,
    MOONCAKE: _milliseconds,
    OWN: _moment_s,
    PLAIN: _number,
}
"""What a call is told by, and how its moment is."""
