"""Feedback: what consumers say of their calls' answers, from which routing learns."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.params import FromPath, JSONBody

from broker.api.callers import CHANGING, CONSUMERS
from broker.api.parts import GivenCaller, GivenParts, GivenTime
from broker.api.wire import Body, Reply
from broker.core.key_terms import Scope
from broker.core.quality.evidence import Grade
from broker.flows.quality.give_feedback import Desk, Word, give_feedback
from broker.flows.quality.keep_words import read_words


class FeedbackGiven(Body):
    """How good an answer was: `score` from 0 to 1, or a `correction` of what was wrong.

    `grade` is `graded` (the default) for scores on a scale, its ends 0 and 1 too, or `binary` for
    callers whose scores are only ever 0 (wrong) and 1 (right). The two are counted apart: keep to
    one, corrections included. The texts of `label` and `correction` are kept only for keys with
    `content_kept` of `full`: sealed, for thirty days, unless the call said `no_retention`.
    """

    score: float | None = None
    grade: Grade | None = None
    label: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    correction: Annotated[str, msgspec.Meta(max_length=100_000)] | None = None


class FeedbackTaken(Reply):
    """How it counts: `weight` is below 1 for an account that says very much in a day."""

    call_id: UUID
    endpoint: str
    domain: str | None
    score: float
    grade: Grade
    weight: float
    words_kept: bool


class FeedbackKept(Reply):
    """What is kept of the words of your feedback on a call; the last of them."""

    label: str | None
    correction: str | None


@post(
    "/calls/{call_id:uuid}/feedback",
    summary="Say how good an answer was; of several words the last one counts",
    guards=[CONSUMERS],
    tags=("Routing",),
    opt={CHANGING: Scope.CALLS},
)
async def feedback_on_call(
    call_id: FromPath[UUID],
    data: JSONBody[FeedbackGiven],
    parts: GivenParts,
    caller: GivenCaller,
    now: GivenTime,
) -> FeedbackTaken:
    """`POST /api/calls/{id}/feedback`"""
    word = Word(data.score, data.grade, data.label, data.correction)
    taken = await give_feedback(Desk(parts.engine, parts.sealer), caller, call_id, word, now)
    piece = taken.piece
    return FeedbackTaken(
        call_id=call_id,
        endpoint=taken.endpoint,
        domain=piece.domain,
        score=piece.score,
        grade=piece.grade,
        weight=round(piece.weight, 4),
        words_kept=taken.words_kept,
    )


@get(
    "/calls/{call_id:uuid}/feedback",
    summary="What is kept of the words of your feedback",
    guards=[CONSUMERS],
    tags=("Routing",),
)
async def words_on_call(
    call_id: FromPath[UUID], parts: GivenParts, caller: GivenCaller, now: GivenTime
) -> FeedbackKept:
    """`GET /api/calls/{id}/feedback`"""
    kept = await read_words(parts.engine, caller, call_id, parts.sealer, now)
    return FeedbackKept(label=kept.label, correction=kept.correction)
