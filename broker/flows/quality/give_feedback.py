"""Takes a consumer's word on an answer as evidence of the endpoint that gave it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.ledger import CallRecord
from broker.core.quality.evidence import Grade, Piece, Source
from broker.core.story import decode
from broker.errors import Conflict, NotFound, RequestMalformed, TooManyCalls
from broker.flows.access.authenticate import Caller
from broker.flows.quality.keep_words import keep_words, may_keep
from broker.store.calls.log import find_call
from broker.store.market import endpoint_names
from broker.store.quality import evidence
from broker.store.quality.words import Words
from broker.store.sealing import Sealer

FREE_PER_DAY: Final = 200
WORDS_PER_DAY: Final = 10_000
_RETRY_AFTER_S: Final = 3_600.0
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Word:
    """What a consumer says; at least a score or a correction.

    `label` and `correction` may hold content, and so are kept only where the key opted in to that.
    """

    score: float | None = None
    """0 (useless) to 1 (right)."""
    grade: Grade | None = None
    """None: graded, whatever the score, for a scale's ends are of the scale."""
    label: str | None = None
    correction: str | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """How a word was taken: of which endpoint, as which piece of evidence."""

    endpoint: str
    piece: Piece
    words_kept: bool


@dataclass(frozen=True, slots=True)
class Desk:
    """What taking feedback takes."""

    engine: AsyncEngine
    sealer: Sealer


async def give_feedback(
    desk: Desk, caller: Caller, call_id: UUID, word: Word, now: datetime
) -> Taken:
    """Record what the caller says of its call's answer; of several words the last one counts.

    Raises NotFound for a call that is not, or is another's, Conflict with code `not_answered` for
    one without an answer, RequestMalformed for a score that is none, TooManyCalls with code
    `feedback_exceeded` after WORDS_PER_DAY.
    """
    engine, (score, grade) = desk.engine, _judged(word)
    found = await find_call(engine, call_id)
    if found is None or found.account_id != caller.account_id:
        raise NotFound("There is no such call.")
    if not isinstance(found, CallRecord) or found.status != 200 or found.endpoint_number is None:
        raise Conflict("This call has no answer to be judged.", code="not_answered")
    number = found.endpoint_number
    async with engine.begin() as connection:
        # One after the other: of many words at once each would be the first of its day.
        await evidence.take_turn(connection, caller.account_id)
        said = await evidence.said_by(connection, caller.account_id, call_id, now - _DAY)
        if said.words >= WORDS_PER_DAY:
            raise TooManyCalls(
                f"Feedback is taken {WORDS_PER_DAY:,} times a day.",
                code="feedback_exceeded",
                retry_after_s=_RETRY_AFTER_S,
            )
        named = (await endpoint_names.by_numbers(connection, [number]))[number]
        judged = _judged_as(found, number)
        piece = Piece(
            at=now,
            endpoint_id=named.id,
            source=Source.FEEDBACK,
            grade=grade,
            score=score,
            domain=found.domain,
            weight=weight_of(said.others) if said.weight is None else said.weight,
            account_id=caller.account_id,
            call_id=call_id,
            confidence=judged.get("confidence"),
            agreement=judged.get("agreement"),
            compared=judged.get("compared"),
            groups=decode(found.story).groups,
        )
        await evidence.record(connection, [piece])
        keeps = (word.label or word.correction) is not None and may_keep(caller, found)
        if keeps:
            written = Words(word.label, word.correction)
            await keep_words(connection, found, written, desk.sealer, now)
    return Taken(named.name, piece, keeps)


def _judged_as(call: CallRecord, endpoint_number: int) -> dict[str, Any]:
    """Return what was thought of the answer that the caller had: how sure its endpoint was, and how
    far another answer agreed with it; empty where that was not looked at."""
    own = [
        each["judged"]
        for each in decode(call.story).attempts
        if each["endpoint_number"] == endpoint_number and each["judged"] is not None
    ]
    # What was judged by its form alone, or by its beginning, is no measure of how sure it was.
    if not own or own[-1]["flaw"] is not None or own[-1]["tokens"] is not None:
        return {}
    told: dict[str, Any] = own[-1]
    return told


def weight_of(others: int) -> float:
    """Return what a word on a call weighs after words on so many others of the account in a day.

    The first FREE_PER_DAY weigh 1, the n-th FREE_PER_DAY / n, so that WORDS_PER_DAY, and there are
    no more, weigh together as much as a thousand.
    """
    return min(1.0, FREE_PER_DAY / (others + 1))


def _judged(word: Word) -> tuple[float, Grade]:
    """Return the score and its grade; what needs correcting was wrong, unless a score is told."""
    score = word.score
    if score is None:
        if not word.correction:
            raise RequestMalformed(
                "Tell a score from 0 to 1, or a correction.", facts={"field": "score"}
            )
        score = 0.0
    if not 0.0 <= score <= 1.0:
        raise RequestMalformed(
            f"A score is from 0 to 1, not {score:g}.",
            code="score_out_of_range",
            facts={"field": "score"},
        )
    if word.grade is Grade.BINARY and score not in (0.0, 1.0):
        raise RequestMalformed(
            f"A binary score is 0 or 1, not {score:g}.",
            code="score_out_of_range",
            facts={"field": "score"},
        )
    return score, word.grade or Grade.GRADED
