"""Puts a prompt of a suite to an endpoint and marks the answer, by its reference or by a judge."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from secrets import token_hex
from typing import Final
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

from broker.core.answers.grading import grade, grade_vectors, judges_prompt, read_judgement
from broker.core.answers.suites import Form, Item, Metric, Suite
from broker.core.answers.tensor_grading import grade_tensors
from broker.core.catalog import Endpoint
from broker.core.outcome import Fault, Outcome
from broker.core.quality.evidence import Grade, Piece, Source, pack
from broker.encoding.encoder import Encoder
from broker.encoding.words import load_encoder
from broker.errors import RequestMalformed
from broker.flows.calls.ask_endpoint import Answered, Asker, Question, can_be_asked
from broker.upstream.faults import AttemptFailed

TRIES: Final = 2
OWN_SUITE_WEIGHT: Final = 0.25
"""Of what a provider's own suite says of its own endpoint."""
_TRY_AGAIN_S: Final = 1.0
_JUDGE_TOKENS_OUT: Final = 64


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt for an endpoint, and who judges where one does; each call has an id."""

    item: Item
    endpoint: Endpoint
    call_id: UUID
    judge: Endpoint | None
    judge_call_id: UUID

    @classmethod
    def of(cls, item: Item, endpoint: Endpoint, listed: Mapping[str, Endpoint]) -> Task:
        """Return the task; a judge that is not on the market is none, and gives no score."""
        judge = listed.get(item.judge) if item.judge is not None else None
        return cls(item, endpoint, uuid7(), judge, uuid7())

    @property
    def calls(self) -> list[tuple[Endpoint, UUID]]:
        """The calls that this takes."""
        own = [(self.endpoint, self.call_id)]
        return own if self.judge is None else [*own, (self.judge, self.judge_call_id)]


@dataclass(frozen=True, slots=True)
class Marked:
    """What came of a prompt: a score, or why there is none."""

    score: float | None = None
    problem: str = ""
    missed: bool = False
    """The endpoint gave no answer, and that is its own fault."""
    confidence: float | None = None
    """How sure the endpoint was, where it was asked and says so."""


class Marker:
    """Asks and marks; loads the encoder at its first piece of evidence."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._encoder: Encoder | None = None
        self._turn = asyncio.Lock()

    async def mark(
        self, task: Task, temperature: float | None = 0.0, *, logprobs: bool = True
    ) -> Marked:
        """Put a prompt and mark the answer; `logprobs` asks how sure the endpoint is of it."""
        item = task.item
        if item.form is not Form.WORDS:
            return await self._mark_numbers(task)
        question = Question(item.prompt, item.max_tokens, temperature, logprobs)
        answered = await self._ask(task.endpoint, question, task.call_id)
        if isinstance(answered, Marked):
            return answered
        marked = await self._marked(task, answered.text)
        return replace(marked, confidence=answered.confidence)

    async def _mark_numbers(self, task: Task) -> Marked:
        """Mark an answer in vectors or tensors."""
        failed = Marked()
        for number in range(TRIES):
            try:
                return Marked(await self._score(task))
            except AttemptFailed as failure:
                failed = _missed(failure.outcome)
            if number + 1 < TRIES:
                await asyncio.sleep(_TRY_AGAIN_S)
        return failed

    async def _score(self, task: Task) -> float:
        item, endpoint = task.item, task.endpoint
        if item.form is Form.TENSORS:
            answer = await self._asker.infer(endpoint, item, task.call_id)
            return await asyncio.to_thread(grade_tensors, item, answer)
        texts = [item.prompt, *item.references]
        return grade_vectors(*await self._asker.embed(endpoint, texts, task.call_id))

    async def _marked(self, task: Task, answer: str) -> Marked:
        item = task.item
        if item.metric is not Metric.JUDGE:
            return Marked(await asyncio.to_thread(grade, item, answer))
        if task.judge is None or not can_be_asked(task.judge):
            return Marked(problem="the judge is not on the market")
        question = Question(judges_prompt(item, answer, token_hex(8)), _JUDGE_TOKENS_OUT)
        judged = await self._ask(task.judge, question, task.judge_call_id)
        if isinstance(judged, Marked):
            return Marked(problem=f"the judge gave no answer: {judged.problem}")
        score = read_judgement(judged.text)
        return Marked(score, "" if score is not None else "the judge gave no score")

    async def piece(
        self, item: Item, marked: Marked, about: tuple[Endpoint, Suite, datetime]
    ) -> Piece:
        """Return the evidence that a score is, with what the encoder makes of the prompt."""
        assert marked.score is not None, "without a score there is no evidence"
        endpoint, suite, at = about
        # Of tensors nothing is encoded.
        encoder = None if item.form is Form.TENSORS else await self._load()
        own = suite.owner_id is not None and suite.owner_id == endpoint.deployment.provider_id
        return Piece(
            at=at,
            endpoint_id=endpoint.id,
            source=Source.JUDGE if item.metric is Metric.JUDGE else Source.EVAL,
            grade=Grade.GRADED if item.metric.graded else Grade.BINARY,
            score=marked.score,
            domain=suite.domain,
            weight=OWN_SUITE_WEIGHT if own else 1.0,
            encoder=None if encoder is None else encoder.name,
            vector=None if encoder is None else pack(encoder.encode(item.prompt)),
            confidence=marked.confidence,
        )

    async def _load(self) -> Encoder:
        async with self._turn:
            if self._encoder is not None:
                return self._encoder
            encoder: Encoder = await asyncio.to_thread(load_encoder)
            self._encoder = encoder
            return encoder

    async def _ask(
        self, endpoint: Endpoint, question: Question, call_id: UUID
    ) -> Answered | Marked:
        """Return the answer, or why there is none."""
        failed = Marked()
        for number in range(TRIES):
            try:
                return await self._asker.ask_surely(endpoint, question, call_id)
            except AttemptFailed as failure:
                failed = _missed(failure.outcome)
                if failure.outcome.fault is Fault.CALLER_FAULT:
                    # Some servers refuse to tell probabilities.
                    question = msgspec.structs.replace(question, logprobs=False)
            except RequestMalformed as error:
                failed = Marked(problem=error.code)
            if number + 1 < TRIES:
                await asyncio.sleep(_TRY_AGAIN_S)
        return failed


def _missed(outcome: Outcome) -> Marked:
    """Say why there is no answer, never in the provider's own words, which may quote the prompt."""
    status = f" {outcome.status}" if outcome.status else ""
    return Marked(
        problem=f"{outcome.fault}{status}", missed=outcome.fault is not Fault.ADDRESS_REFUSED
    )
