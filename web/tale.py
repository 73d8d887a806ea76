"""One call from demand to charge, as its page tells it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.requirements import Weights
from broker.core.story import FORGOTTEN, Story, decode
from broker.errors import NotFound
from broker.flows.access.authenticate import Caller
from broker.store.access.accounts import Role
from pricing.book import Rate
from pricing.money import format_rate, format_usd
from web import reads, words
from web.reads import Named
from web.told import CallLine, Teller, name_of, own_attempts

SHOWN_MAX = 20
"""Candidates, and names per reason: the rest is counted."""
_SHOWN_ABOVE = frozenset({"task", "model", "domain", "stream", "weights"})
_LIMITS = {
    "tokens_in_bound": "input at most",
    "tokens_in_expected": "input expected",
    "tokens_out_max": "output at most",
}
_RATES = frozenset({"max_rate_in_micros", "max_rate_out_micros"})


@dataclass(frozen=True, slots=True)
class RankedCandidate:
    """An endpoint that fitted; parts as (name, share)."""

    name: str
    score: float
    parts: tuple[tuple[str, float], ...]
    cost_usd: str
    tried: bool


@dataclass(frozen=True, slots=True)
class RejectedGroup:
    """Endpoints that fell to one reason."""

    reason: str
    names: tuple[str, ...]
    more: int


@dataclass(frozen=True, slots=True)
class ShownAttempt:
    """An attempt; `told` as stored, `from_share` and `share` its place in the call's duration."""

    name: str
    told: Mapping[str, Any]
    from_share: float
    share: float
    first_share: float | None


@dataclass(frozen=True, slots=True)
class ShownCharge:
    """A line of the settlement; take and earnings only for whom they concern."""

    name: str
    attempt: int
    tokens_in: int
    tokens_out: int
    rate: str
    charge_nanos: int | None
    take_nanos: int | None
    earnings_nanos: int | None


@dataclass(frozen=True, slots=True)
class Tale:
    """All that a viewer is told of a call."""

    line: CallLine
    demands: tuple[tuple[str, str], ...]
    weights: tuple[tuple[str, float], ...]
    candidates: tuple[RankedCandidate, ...]
    more_candidates: int
    rejected: tuple[RejectedGroup, ...]
    attempts: tuple[ShownAttempt, ...]
    charges: tuple[ShownCharge, ...]
    forgotten: bool
    """It was so long ago that only what it cost is known."""


async def tell(connection: AsyncConnection, teller: Teller, caller: Caller, call_id: UUID) -> Tale:
    """Return the tale of a call. Raises NotFound for one that does not concern the caller."""
    call = await reads.call(connection, call_id)
    if call is None or (caller.role is Role.CONSUMER and call.account_id != caller.account_id):
        raise NotFound("There is no such call.")
    story = decode((await reads.stories(connection, [call_id]))[call_id])
    answered = call.endpoint_number
    charges = await reads.charges(connection, [call_id])
    numbers = _numbers(story) | {each.endpoint_number for each in charges}
    if answered is not None:
        numbers.add(answered)
    names = await teller.names(connection, numbers)
    attempts: Sequence[Mapping[str, Any]] = story.attempts
    if caller.role is Role.PROVIDER:
        attempts = own_attempts(attempts, names, caller)
        # Who answered a call, or was paid for a part of it, may see it when its story is forgotten.
        payees = {each.provider_id for each in charges}
        if answered is not None:
            payees.add(names[answered].provider_id)
        if not attempts and caller.account_id not in payees:
            raise NotFound("There is no such call.")
    [line] = await teller.lines(connection, caller, [call])
    whole = caller.role is not Role.PROVIDER
    return Tale(
        line=line,
        demands=tuple(_demands(story.requirements)) if whole else (),
        weights=_weights(story.requirements) if whole and story.requirements else (),
        candidates=tuple(_candidates(story, names)) if whole else (),
        more_candidates=_more(story) if whole else 0,
        rejected=tuple(_rejected(story, names)) if whole else (),
        attempts=tuple(_attempts(attempts, names, call.duration_ms if whole else None)),
        charges=tuple(_charges(charges, names, caller)),
        forgotten=story.end == FORGOTTEN,
    )


def _numbers(story: Story) -> set[int]:
    shown = {each.endpoint_number for each in story.candidates}
    rejected = {each.endpoint_number for each in story.rejected}
    return shown | rejected | {each["endpoint_number"] for each in story.attempts}


def _demands(requirements: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in requirements.items():
        if name in _SHOWN_ABOVE or value is None or value in ([], ()):
            continue  # what was not asked for, such as a limit of the output
        if name in _RATES:
            yield name.removesuffix("_micros"), f"${format_rate(value)}/Mtok"
        elif name == "max_cost_nanos":
            yield "max_cost", f"${format_usd(value)}"
        elif isinstance(value, bool):
            yield name, "yes" if value else "no"
        elif isinstance(value, list | tuple):
            yield name, ", ".join(map(str, value))
        elif isinstance(value, float):
            yield name, f"{value:,.4g}"
        else:
            yield _LIMITS.get(name, name), words.count(value) if name in _LIMITS else str(value)


def _weights(requirements: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    # What was asked by default is not stored; what it weighed by is worth telling all the same.
    weights = requirements.get("weights") or msgspec.to_builtins(Weights())
    total = sum(weights.values()) or 1.0
    return tuple((words.PARTS.get(name, name), value / total) for name, value in weights.items())


def _candidates(story: Story, names: Mapping[int, Named]) -> Iterable[RankedCandidate]:
    tried = {each["endpoint_number"] for each in story.attempts}
    for each in story.candidates[:SHOWN_MAX]:
        yield RankedCandidate(
            name=name_of(names, each.endpoint_number),
            score=each.score,
            parts=tuple((words.PARTS[name], part) for name, part in each.parts.items()),
            cost_usd=each.expected_cost_usd,
            tried=each.endpoint_number in tried,
        )


def _more(story: Story) -> int:
    return max(len(story.candidates) - SHOWN_MAX, 0) + story.left_out


def _rejected(story: Story, names: Mapping[int, Named]) -> Iterable[RejectedGroup]:
    groups: dict[str, list[str]] = defaultdict(list)
    for each in story.rejected:
        groups[each.reason].append(name_of(names, each.endpoint_number))
    for reason, members in groups.items():
        yield RejectedGroup(
            words.phrase(reason), tuple(members[:SHOWN_MAX]), max(len(members) - SHOWN_MAX, 0)
        )


def _attempts(
    attempts: Sequence[Mapping[str, Any]], names: Mapping[int, Named], duration_ms: float | None
) -> Iterable[ShownAttempt]:
    """Place attempts in the duration of the call, or where that is none of the viewer's business,
    in the time from the first of them to the last."""
    starts = [each["started_ms"] for each in attempts]
    ends = [each["started_ms"] + each["duration_ms"] for each in attempts]
    from_ms = 0.0 if duration_ms is not None else min(starts, default=0.0)
    whole_ms = max([duration_ms or 0.0, *ends, from_ms + 0.001]) - from_ms
    for each in attempts:
        start_ms, first_ms = each["started_ms"] - from_ms, each["ttft_ms"]
        yield ShownAttempt(
            name=name_of(names, each["endpoint_number"]),
            told=each,
            from_share=start_ms / whole_ms,
            share=each["duration_ms"] / whole_ms,
            first_share=None if first_ms is None else (start_ms + first_ms) / whole_ms,
        )


def _charges(
    lines: Iterable[Row[Any]], names: Mapping[int, Named], caller: Caller
) -> Iterable[ShownCharge]:
    for each in lines:
        earner = caller.role is Role.PROVIDER
        if earner and each.provider_id != caller.account_id:
            continue
        inner = caller.role is not Role.CONSUMER
        rate = Rate(each.rate_in_micros, each.rate_out_micros, each.rate_call_nanos)
        yield ShownCharge(
            name=name_of(names, each.endpoint_number),
            attempt=each.attempt,
            tokens_in=each.tokens_in,
            tokens_out=each.tokens_out,
            rate=words.exact(rate),
            charge_nanos=each.charge_nanos,
            take_nanos=each.take_nanos if inner else None,
            earnings_nanos=each.earnings_nanos if inner else None,
        )
