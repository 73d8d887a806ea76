"""Reads tables of prompts for which the answers of several models are known and scored."""

from __future__ import annotations

import codecs
import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from broker.core.call import tokens_in_expected
from broker.core.columns import Bools, Floats
from broker.errors import RequestMalformed

TRAIN_OF_TEN = 7
"""Where rows name no split: those whose prompt's SHA-256 is below it modulo 10 are for training."""
NAMED_MAX = 5
"""Models, where it is told what is wrong with them."""
COST_USD_MAX = 1e6
"""Of a call: nothing costs more, and sums of what is below it stay numbers."""
ROUNDING = 1e-6
"""So far outside its range a number may be by rounding alone; it is taken as the range's end."""


class Arm(msgspec.Struct):
    """What one model got for a prompt, and its cost; rows of cascades call it `correct`."""

    cost_usd: float
    reward: bool | float | None = None
    correct: bool | float | None = None
    confidence_logp: float | None = None
    latency_ms: float | None = None


class Row(msgspec.Struct):
    """One prompt. Either `scores`, or `arms`, or `models`."""

    prompt: str
    task: str | None = None
    split: str | None = None
    scores: dict[str, bool | float | None] | None = None
    arms: dict[str, Arm] | None = None
    models: dict[str, Arm] | None = None


class Price(msgspec.Struct):
    """USD per million tokens."""

    input_usd_per_mtok: Annotated[float, msgspec.Meta(ge=0.0, le=COST_USD_MAX)]
    output_usd_per_mtok: Annotated[float, msgspec.Meta(ge=0.0, le=COST_USD_MAX)]


@dataclass(frozen=True, slots=True, eq=False)
class RoutingTable:
    """Rows as columns; what a row does not say of a model is NaN."""

    models: tuple[str, ...]
    prompts: tuple[str, ...]
    tasks: tuple[str, ...]
    splits: tuple[str, ...]
    scores: Floats
    """(rows, models)"""
    costs_usd: Floats
    metered: bool
    """True where costs are what calls have cost; False where they follow from prices."""
    confidences: Floats
    """How sure each model was, within 0..1; NaN where it is not told."""
    latency_ms: Floats

    @property
    def whole(self) -> Bools:
        """Say which rows have a score and a cost of every model."""
        known = np.isfinite(self.scores) & np.isfinite(self.costs_usd)
        return np.asarray(known.all(axis=1))

    def rows(self, wanted: Bools) -> RoutingTable:
        """Return the table of some rows."""
        places = np.flatnonzero(wanted).tolist()
        return RoutingTable(
            self.models,
            tuple(self.prompts[at] for at in places),
            tuple(self.tasks[at] for at in places),
            tuple(self.splits[at] for at in places),
            self.scores[places],
            self.costs_usd[places],
            self.metered,
            self.confidences[places],
            self.latency_ms[places],
        )


def read_table(path: Path, prices: Path | None, tokens_out: int) -> RoutingTable:
    """Read a table; scores without costs need prices.

    Raises RequestMalformed, naming the line, and the field of a number outside its range.
    """
    rows = []
    for number, line in enumerate(_told(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            rows.append(_row(line))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RequestMalformed(f"{path.name}, line {number}: {error}") from None
        fault = _fault(rows[-1], rows[0])
        if fault is not None:
            raise RequestMalformed(f"{path.name}, line {number}: {fault}.")
    if not rows:
        raise RequestMalformed(f"{path.name} has no rows.")
    metered = rows[0].scores is None
    names = sorted({name for row in rows for name in _named(row)})
    scores = np.full((len(rows), len(names)), np.nan)
    costs = np.full(scores.shape, np.nan)
    rates = {} if metered else _prices(prices, names)
    for at, row in enumerate(rows):
        for place, name in enumerate(names):
            scores[at, place], costs[at, place] = _result(row, name, rates, tokens_out)
    return RoutingTable(
        tuple(names),
        tuple(row.prompt for row in rows),
        tuple(row.task or "" for row in rows),
        tuple(row.split or _split(row.prompt) for row in rows),
        scores,
        costs,
        metered,
        *_told_beside(rows, names),
    )


def require_alike(train: RoutingTable, test: RoutingTable) -> None:
    """Check that there is something to learn of each model, and of no other. Raises
    RequestMalformed, naming some of those that it is about."""
    lacking = [each for each in test.models if each not in train.models]
    beyond = [each for each in train.models if each not in test.models]
    if lacking or beyond:
        told = (("lack", lacking), ("have beside those", beyond))
        differences = " and ".join(f"{verb} {_few(names)}" for verb, names in told if names)
        raise RequestMalformed(
            f"The rows to learn from have other models than those to be routed: they {differences}."
        )
    unseen = ~np.isfinite(train.scores).any(axis=0)
    if unseen.any():
        named = _few([train.models[at] for at in np.flatnonzero(unseen)])
        raise RequestMalformed(f"The rows to learn from have no score of {named}.")


def _told(path: Path) -> bytes:
    """Return what is in a file, without the mark that some editors put before UTF-8."""
    return path.read_bytes().removeprefix(codecs.BOM_UTF8)


def _row(line: bytes) -> Row:
    try:
        return msgspec.json.decode(line, type=Row)
    except msgspec.DecodeError:
        # JSON has no NaN and no infinity. Python writes them, so its reader can name their field.
        try:
            row = msgspec.convert(json.loads(line), Row)
        except (ValueError, OverflowError, RecursionError):
            row = None
        if row is None or _outside(row) is None:
            raise
        return row


def _fault(row: Row, first: Row) -> str | None:
    """Say what is wrong with a row of which the form is right; None where nothing is."""
    outside = _outside(row)
    if outside is not None:
        return outside
    if not (row.scores or row.arms or row.models):
        return "it has no scores"
    if (row.scores is None) != (first.scores is None):
        return "a table has either scores, priced by --prices, or arms that tell their costs"
    return None


def _outside(row: Row) -> str | None:
    """Name the first number that is outside its range, None where there is none."""
    for field, told, low, high in _numbers(row):
        if told is None or (math.isfinite(told) and low - ROUNDING <= told <= high + ROUNDING):
            continue
        return f"{field} is {float(told):g}, and not within {low:g}..{high:g}"
    return None


def _numbers(row: Row) -> Iterator[tuple[str, bool | float | None, float, float]]:
    """Yield each number of a row: its field, itself, and the range that it must be within."""
    for name, score in (row.scores or {}).items():
        yield f"scores['{name}']", score, 0.0, 1.0
    for kind, arms in (("arms", row.arms), ("models", row.models)):
        for name, arm in (arms or {}).items():
            field = f"{kind}['{name}']"
            yield f"{field}.reward", arm.reward, 0.0, 1.0
            yield f"{field}.correct", arm.correct, 0.0, 1.0
            yield f"{field}.cost_usd", arm.cost_usd, 0.0, COST_USD_MAX
            yield f"{field}.confidence_logp", arm.confidence_logp, -math.inf, 0.0
            yield f"{field}.latency_ms", arm.latency_ms, 0.0, math.inf


def _told_beside(rows: list[Row], names: list[str]) -> tuple[Floats, Floats]:
    """Return confidences and latencies as rows of cascades have them, NaN where they do not."""
    sure = np.full((len(rows), len(names)), np.nan)
    latency_ms = np.full(sure.shape, np.nan)
    for at, row in enumerate(rows):
        for place, name in enumerate(names):
            arm = (row.arms or row.models or {}).get(name)
            if arm is None:
                continue
            if arm.confidence_logp is not None:
                sure[at, place] = np.exp(min(arm.confidence_logp, 0.0))
            if arm.latency_ms is not None:
                latency_ms[at, place] = arm.latency_ms
    return sure, latency_ms


def _named(row: Row) -> Iterable[str]:
    return row.scores or row.arms or row.models or ()


def _result(row: Row, name: str, rates: dict[str, Price], tokens_out: int) -> tuple[float, float]:
    if row.scores is not None:
        rate = rates[name]
        tokens_in = tokens_in_expected(len(row.prompt.encode("utf-8", "replace")))
        picos = rate.input_usd_per_mtok * tokens_in + rate.output_usd_per_mtok * tokens_out
        return _score(row.scores.get(name)), picos / 1e6
    arm = (row.arms or row.models or {}).get(name)
    if arm is None:
        return np.nan, np.nan
    score = _score(arm.reward if arm.reward is not None else arm.correct)
    return score, max(arm.cost_usd, 0.0)


def _score(told: bool | float | None) -> float:
    return np.nan if told is None else min(max(float(told), 0.0), 1.0)


def _prices(path: Path | None, names: list[str]) -> dict[str, Price]:
    if path is None:
        raise RequestMalformed("These rows have scores and no costs: name a file by --prices.")
    try:
        told = msgspec.json.decode(_told(path), type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestMalformed(f"{path.name}: {error}") from None
    missing = [name for name in names if name not in told]
    if missing:
        raise RequestMalformed(f"{path.name} has no price of {', '.join(missing)}.")
    return {name: _price(path, name, told[name]) for name in names}


def _price(path: Path, name: str, told: msgspec.Raw) -> Price:
    try:
        return msgspec.json.decode(told, type=Price, strict=False)  # numbers may be text
    except msgspec.DecodeError as error:
        raise RequestMalformed(f"{path.name}, price of {name}: {error}") from None


def _split(prompt: str) -> str:
    digest = hashlib.sha256(prompt.encode("utf-8", "replace")).digest()
    return "train" if int.from_bytes(digest, "big") % 10 < TRAIN_OF_TEN else "test"


def _few(names: list[str]) -> str:
    """Return some names, and how many more there are."""
    more = len(names) - NAMED_MAX
    return ", ".join(names[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
