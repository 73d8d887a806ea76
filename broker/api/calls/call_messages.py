"""How calls are told: the whole story to who paid, their own attempts to providers."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from broker.api.market.price_messages import Price, price
from broker.api.wire import Reply
from broker.core.cascade import Other
from broker.flows.calls.read_call import ToldCall, ToldStory
from broker.store.books.charge_lines import ChargedAttempt
from broker.store.calls.log import CutCall
from pricing.money import format_usd


class ChargeLine(Reply):
    """What one attempt delivered and cost; `take_usd` and `earnings_usd` make up the charge."""

    attempt: int
    endpoint: str | None
    tokens_in: int
    tokens_out: int
    price: Price
    price_version: int
    charge_usd: str
    take_usd: str
    earnings_usd: str


class CallShown(Reply):
    """A call of the caller's; `endpoint` is where the last attempt went."""

    id: UUID
    created_at: datetime
    account: str
    key_id: str
    task: str
    model: str
    domain: str | None
    stream: bool
    status: int
    code: str
    endpoint: str | None
    price_version: int
    hold_usd: str
    charge_usd: str
    tokens_in: int
    tokens_out: int
    ttft_ms: float | None
    duration_ms: float
    task_label: str | None
    session_id: str | None
    labels: dict[str, Any] | None


class CandidateShown(Reply):
    """An endpoint that could have served the call; `parts` make up the score, `propensity` is the
    chance by which it was to be first, of a call that was allowed to explore."""

    endpoint: str | None
    score: float
    parts: dict[str, float]
    expected_cost_usd: str
    propensity: float | None = None


class RejectedShown(Reply):
    """An endpoint that could not, and why."""

    endpoint: str | None
    reason: str


class JudgedShown(Reply):
    """What was thought of an answer of a cascade; of its text nothing is kept.

    `confidence` is the mean probability of its tokens, `chance` what that is worth of the model in
    the domain, `flaw` what is wrong with its form, `agreement` how far another answer was like it,
    `compared` whose that was; `tokens`: so many of its first alone were judged.
    """

    kept: bool
    reason: str
    confidence: float | None
    chance: float | None
    flaw: str | None
    agreement: float | None
    tokens: int | None
    compared: Other | None = None


class AttemptShown(Reply):
    """One try at a provider; times are counted from the beginning of the call."""

    endpoint: str | None
    started_ms: float
    duration_ms: float
    ttft_ms: float | None
    outcome: str
    status: int | None
    detail: str
    tokens_in: int
    tokens_out: int
    charge_usd: str
    notes: list[str]
    judged: JudgedShown | None = None


class CallStory(CallShown):
    """The whole story of a call."""

    end: str
    requirements: dict[str, Any]
    candidates: list[CandidateShown]
    candidates_left_out: int
    rejected: list[RejectedShown]
    attempts: list[AttemptShown]
    lines: list[ChargeLine]


class UnfinishedCall(Reply):
    """A call without a record: `under_way`, or cut short when the broker that served it died."""

    id: UUID
    created_at: datetime
    key_id: str
    end: str
    hold_usd: str
    charge_usd: str
    settled_at: datetime | None


class ProvidedCall(Reply):
    """A call as its provider sees it: what went to its own endpoints, and what that earned."""

    id: UUID
    created_at: datetime
    task: str
    stream: bool
    lines: list[ChargeLine]
    earnings_usd: str


class ProvidedStory(ProvidedCall):
    """A provider's part of a call, failed attempts included."""

    attempts: list[AttemptShown]


class CallList(Reply):
    """Calls, newest first; `cursor` asks for the page before."""

    calls: list[CallShown]
    cursor: UUID | None


class ProvidedCallList(Reply):
    """Calls served by the provider's endpoints, newest first, page by page as above."""

    calls: list[ProvidedCall]
    cursor: UUID | None


def call_shown(told: ToldCall) -> CallShown:
    """Tell a call to who paid for it."""
    return CallShown(**_members(told))


def call_story(found: ToldStory) -> CallStory:
    """Tell the whole story."""
    told, story = found.told, found.story
    return CallStory(
        **_members(told),
        end=story.end,
        requirements=story.requirements,
        candidates=[
            CandidateShown(
                endpoint=told.name(each.endpoint_number),
                score=each.score,
                parts=each.parts,
                expected_cost_usd=each.expected_cost_usd,
                propensity=each.propensity,
            )
            for each in story.candidates
        ],
        candidates_left_out=story.left_out,
        rejected=[
            RejectedShown(endpoint=told.name(each.endpoint_number), reason=each.reason)
            for each in story.rejected
        ],
        attempts=_attempts(found),
        lines=_lines(told),
    )


def unfinished_call(cut: CutCall) -> UnfinishedCall:
    """Tell what a call's hold tells."""
    return UnfinishedCall(
        id=cut.id,
        created_at=cut.created_at,
        key_id=cut.key_id,
        end="under_way" if cut.ended is None else cut.ended.value,
        hold_usd=format_usd(cut.hold_nanos),
        charge_usd=format_usd(cut.charge_nanos),
        settled_at=cut.settled_at,
    )


def provided_call(told: ToldCall) -> ProvidedCall:
    """Tell a call to a provider."""
    return ProvidedCall(**_provided(told))


def provided_story(found: ToldStory) -> ProvidedStory:
    """Tell a provider its attempts."""
    return ProvidedStory(**_provided(found.told), attempts=_attempts(found))


def _members(told: ToldCall) -> dict[str, Any]:
    record = told.record
    names = (name for name in CallShown.__struct_fields__ if hasattr(record, name))
    return {name: getattr(record, name) for name in names} | {
        "account": told.account,
        "endpoint": told.name(record.endpoint_number),
        "hold_usd": format_usd(record.hold_nanos),
        "charge_usd": format_usd(record.charge_nanos),
        # Kept in fewer digits than a float shows.
        "duration_ms": round(record.duration_ms, 3),
        "ttft_ms": None if record.ttft_ms is None else round(record.ttft_ms, 3),
        "labels": None if record.labels_json is None else msgspec.json.decode(record.labels_json),
    }


def _provided(told: ToldCall) -> dict[str, Any]:
    call = told.record
    return {
        "id": call.id,
        "created_at": call.created_at,
        "task": call.task,
        "stream": call.stream,
        "lines": _lines(told),
        "earnings_usd": format_usd(sum(each.earnings_nanos for each in told.lines)),
    }


def _attempts(found: ToldStory) -> list[AttemptShown]:
    return [
        AttemptShown(
            endpoint=found.told.name(each["endpoint_number"]),
            judged=None if each["judged"] is None else JudgedShown(**each["judged"]),
            **{name: value for name, value in each.items() if name not in _TOLD_APART},
        )
        for each in found.story.attempts
    ]


_TOLD_APART = frozenset({"endpoint_number", "judged"})


def _lines(told: ToldCall) -> list[ChargeLine]:
    return [_line(each, told) for each in told.lines]


def _line(line: ChargedAttempt, told: ToldCall) -> ChargeLine:
    return ChargeLine(
        attempt=line.attempt,
        endpoint=told.name(line.endpoint_number),
        tokens_in=line.tokens_in,
        tokens_out=line.tokens_out,
        price=price(line.rate),
        price_version=line.price_version,
        charge_usd=format_usd(line.charge_nanos),
        take_usd=format_usd(line.take_nanos),
        earnings_usd=format_usd(line.earnings_nanos),
    )
