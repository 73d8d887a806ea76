"""Asks one endpoint one question for the broker itself, in the shape of any other call.

It goes the way that calls go, with the headers that they have, but nobody is charged and nobody is
paid: examinations, canaries and comparisons are at the provider's cost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

import msgspec
import numpy as np

from broker.core.answers.suites import Form, Item
from broker.core.answers.transcript import logprobs_of
from broker.core.call import OpenAiBody
from broker.core.cascade import confidence_of
from broker.core.catalog import Endpoint, Kind, Task
from broker.core.columns import Floats
from broker.core.outcome import Fault, Outcome, fault_of_status
from broker.flows.calls.exchange import identified, model_path
from broker.flows.market.targets import Targets
from broker.upstream.client import Timeouts, UpstreamClient
from broker.upstream.faults import AttemptFailed, malformed
from broker.upstream.kserve import read_infer
from broker.upstream.openai import read_completion

ANSWER_BYTES_MAX = 2_000_000
NOT_EXAMINED = (
    "an endpoint without words, vectors or tensors is not examined; it counts as declared"
)
TIMEOUTS = Timeouts(connect_s=5.0, first_byte_s=60.0, idle_s=60.0, total_s=120.0)


class Question(msgspec.Struct, frozen=True):
    """What is asked; a `temperature` of None leaves it to the endpoint."""

    prompt: str
    tokens_out_max: int
    temperature: float | None = 0.0
    logprobs: bool = False
    """Ask for the probabilities of the answer's tokens as well."""


class Answered(msgspec.Struct, frozen=True):
    """The text of an answer, and how sure its model was where it says so."""

    text: str
    confidence: float | None = None


@dataclass(slots=True)
class Asker:
    """Who asks: a client of its own, and what it remembers of addresses."""

    upstream: UpstreamClient
    targets: Targets = field(default_factory=Targets)

    async def ask(self, endpoint: Endpoint, question: Question, call_id: UUID) -> str:
        """Return the text of an answer. Raises AttemptFailed, RequestMalformed."""
        return (await self.ask_surely(endpoint, question, call_id)).text

    async def ask_surely(self, endpoint: Endpoint, question: Question, call_id: UUID) -> Answered:
        """Return an answer, and how sure its model was where that was asked for and is told.

        Raises AttemptFailed, RequestMalformed.
        """
        body = _body(endpoint, question)
        limit = question.tokens_out_max
        if endpoint.max_output_tokens is not None:
            limit = min(limit, endpoint.max_output_tokens)
        sent = body.render(endpoint.upstream_model, limit)
        answer = await self._send(endpoint, (body.path, sent), call_id)
        facts = read_completion(answer)
        if facts.error is not None:
            raise AttemptFailed(Outcome(Fault.SERVER_ERROR, status=200))
        sure = confidence_of(logprobs_of(answer)) if question.logprobs else None
        return Answered(facts.text, sure)

    async def embed(self, endpoint: Endpoint, texts: list[str], call_id: UUID) -> list[Floats]:
        """Return the vectors of texts. Raises AttemptFailed."""
        raw = {"input": msgspec.Raw(msgspec.json.encode(texts))}
        body = OpenAiBody(b"/v1/embeddings", raw, len(bytes(raw["input"])), False, False, 1)
        sent = body.render(endpoint.upstream_model, None)
        answer = await self._send(endpoint, (body.path, sent), call_id)
        try:
            told = _vectors(answer).data
        except (msgspec.MsgspecError, RecursionError) as error:
            raise malformed(f"no vectors: {error}", 200) from None
        if len(told) != len(texts):
            raise malformed("another number of vectors than of texts", 200)
        return [np.array(each.embedding) for each in told]

    async def infer(self, endpoint: Endpoint, item: Item, call_id: UUID) -> bytes:
        """Return the JSON of an answer to an item's tensors. Raises AttemptFailed."""
        request: dict[str, object] = {"inputs": item.inputs}
        if item.output is not None:
            request["outputs"] = [{"name": item.output}]
        path = model_path(endpoint) + b"/infer"
        answer = await self._send(endpoint, (path, msgspec.json.encode(request)), call_id)
        if read_infer(None, answer).error is not None:
            raise AttemptFailed(Outcome(Fault.SERVER_ERROR, status=200))
        return answer

    async def _send(self, endpoint: Endpoint, request: tuple[bytes, bytes], call_id: UUID) -> bytes:
        """Send a body to a path, and return the body of the answer. Raises AttemptFailed."""
        path, sent = request
        target = self.targets.of(endpoint, path)
        head = identified(target.prefix, str(call_id), 0, len(sent))
        response = await self.upstream.send(target.origin, head, sent, TIMEOUTS, ANSWER_BYTES_MAX)
        answer = response.take(ANSWER_BYTES_MAX)
        if response.status != 200:
            fault = fault_of_status(response.status) or Fault.MALFORMED
            raise AttemptFailed(Outcome(fault, status=response.status))
        return answer


class _Vector(msgspec.Struct):
    embedding: list[float]


class _Vectors(msgspec.Struct):
    data: list[_Vector]


_vectors = msgspec.json.Decoder(_Vectors).decode


def form_of(endpoint: Endpoint) -> Form | None:
    """Return the form in which an endpoint answers; None for one that suites are not put to."""
    if endpoint.deployment.kind is Kind.KSERVE:
        return Form.TENSORS if Task.INFER in endpoint.tasks else None
    if can_be_asked(endpoint):
        return Form.WORDS
    return Form.VECTORS if Task.EMBEDDING in endpoint.tasks else None


def can_be_asked(endpoint: Endpoint) -> bool:
    """True for endpoints that answer in words."""
    answers = any(each.generates for each in endpoint.tasks)
    return endpoint.deployment.kind is Kind.OPENAI and answers


def _body(endpoint: Endpoint, question: Question) -> OpenAiBody:
    members: dict[str, object] = {}
    if Task.CHAT in endpoint.tasks:
        path = b"/v1/chat/completions"
        members["messages"] = [{"role": "user", "content": question.prompt}]
    else:
        path = b"/v1/completions"
        members["prompt"] = question.prompt
    if question.temperature is not None:
        members["temperature"] = question.temperature
    if question.logprobs:
        members["logprobs"] = True if Task.CHAT in endpoint.tasks else 1
    raw = {name: msgspec.Raw(msgspec.json.encode(each)) for name, each in members.items()}
    size_bytes = sum(memoryview(each).nbytes for each in raw.values())
    return OpenAiBody(path, raw, size_bytes, stream=False, usage_asked=False, choices=1)
