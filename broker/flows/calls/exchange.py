"""Makes one attempt: a request in the provider's words, its answer up to the commit point."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

import msgspec

from broker.core.answers.transcript import Transcript
from broker.core.call import Call, OpenAiBody, TensorBody
from broker.core.catalog import Endpoint
from broker.core.dispatch import Attempt
from broker.core.metering import Delivered
from broker.core.outcome import Fault, Outcome
from broker.flows.calls.inferred import blamed, check_opening, inferred, require_numbers
from broker.flows.calls.refused import REFUSAL_BYTES_MAX, refused
from broker.flows.calls.tab import Tab
from broker.upstream.beside_text import Beside, beside_of, told_beside
from broker.upstream.client import Body, Origin, Response, Room, Timeouts
from broker.upstream.faults import AttemptFailed, malformed
from broker.upstream.hoard import FREE_BYTES
from broker.upstream.openai import CompletionFacts, read_completion, read_embedding
from broker.upstream.streaming import Scribe, StreamReader
from broker.upstream.unpacking import (
    ENCODING,
    PACKED_BYTES,
    put_together,
    unpacked,
    unpacker_for,
)

OPENING_BYTES_MAX = 1_048_576
"""So much of a stream may come before its first content, for it is kept until then."""

_ERROR_WITHIN_BYTES = 64
"""An answer that is no tensors but an error says so at its very beginning."""
_TICK_S = 0.002
"""Timers of the loop may fire that much early."""
_PASSED_BACK = frozenset({b"content-type", b"content-encoding", b"inference-header-content-length"})
"""The headers of a provider's answer that a caller sees."""
_PLAIN_JSON = ((b"content-type", b"application/json"),)
"""As most have them: nothing to be looked into."""


class Verdict(msgspec.Struct, frozen=True):
    """What a caller is told of the answer of a cascade."""

    confidence: float | None
    """P(good), as far as that is known."""
    flagged: bool
    """It is below what was asked for, or went out before that was known."""
    answers: int
    """So many came."""


class WholeAnswer(msgspec.Struct, frozen=True, eq=False, gc=False):
    """An answer that is not a stream."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    delivered: Delivered
    verdict: Verdict | None = None
    """Of a cascade."""
    kept: object | None = None
    """Of a large one: to be held until the caller has it, for as long as it is counted."""


class LongAnswer(msgspec.Struct, frozen=True, eq=False):
    """An inference's answer that is too large to wait for: its head, and its first bytes."""

    headers: tuple[tuple[bytes, bytes], ...]
    opening: bytes
    response: Response
    attempt: Attempt
    size_bytes: int | None
    """As it is announced."""


@dataclass(slots=True)
class StreamedAnswer:
    """A stream whose first content has come."""

    response: Response
    reader: StreamReader
    attempt: Attempt
    opening: bytes
    """The events up to and with the first content, or as many as were held back."""
    scribe: Transcript | None = None
    """Who has heard all of it, where it is to be judged."""
    verdict: Verdict | None = None
    """Of a cascade: what is told of the answer before it."""
    at_end: Callable[[], Verdict] | None = None
    """Of a cascade: what is told after it, where not all of it was known before."""


def told(verdict: Verdict) -> dict[str, object]:
    """Return a verdict as `broker` tells it in an answer, its chance rounded down."""
    chance = verdict.confidence
    return {
        "confidence": None if chance is None else math.floor(chance * 10_000) / 10_000,
        "flagged": verdict.flagged,
        "answers": verdict.answers,
    }


async def read_or_open(tab: Tab, attempt: Attempt) -> WholeAnswer | LongAnswer:
    """Make an attempt at an inference; its answer is read whole unless it is long. Raises
    AttemptFailed."""
    room = Room(tab.runtime.settings.limits.passage_bytes)
    try:
        response = await tab.runtime.upstream.send(*_request(tab, attempt), room)
    except AttemptFailed as failure:
        raise _told_apart(failure, tab) from None
    if response.done:
        return _whole(response, tab, attempt)
    try:
        opening = await response.next_chunk() or b""
        if response.status != 200:
            raise AttemptFailed(refused(response, opening, tab.runtime.clock()))
        if b'"error"' in opening[:_ERROR_WITHIN_BYTES]:
            raise AttemptFailed(Outcome(Fault.SERVER_ERROR, status=200, detail="a long error"))
        assert isinstance(tab.call.body, TensorBody)
        check_opening(tab.call.body, response, opening)
    except AttemptFailed as failure:
        response.abort()
        raise _within_deadline(failure) from None
    except BaseException:
        response.abort()
        raise
    tab.first_content(attempt)
    size = response.header(b"content-length")
    headers = _passed_back(response)
    return LongAnswer(headers, opening, response, attempt, None if size is None else int(size))


async def read_whole(tab: Tab, attempt: Attempt) -> WholeAnswer:
    """Make an attempt whose answer is read whole. Raises AttemptFailed."""
    limit = tab.runtime.settings.limits.answer_bytes_max
    try:
        response = await tab.runtime.upstream.send(*_request(tab, attempt), limit)
    except AttemptFailed as failure:
        raise _told_apart(failure, tab) from None
    if response.buffered > PACKED_BYTES:
        await put_together(response, limit, tab.runtime.upstream.keep)
    return _whole(response, tab, attempt)


def _whole(response: Response, tab: Tab, attempt: Attempt) -> WholeAnswer:
    """Return an answer that is there. Raises AttemptFailed."""
    limit = tab.runtime.settings.limits.answer_bytes_max
    body, kept = response.take(limit), response.kept
    if response.status != 200:
        outcome, asked = refused(response, body, tab.runtime.clock()), tab.call.body
        if isinstance(asked, TensorBody):
            fit = (tab.market.endpoint(each.number) for each in tab.decision.plan)
            endpoint = tab.market.endpoint(attempt.candidate.number)
            outcome = blamed(outcome, asked, endpoint, fit)
        raise AttemptFailed(outcome)
    headers = _passed_back(response)
    if headers != _PLAIN_JSON and isinstance(tab.call.body, OpenAiBody):
        named = dict(reversed(headers))  # the first of each name
        _require_json(named.get(b"content-type"))
        encoding = named.get(ENCODING)
        if encoding is not None:
            body = unpacked(encoding.rstrip(), body, limit)
            if len(body) > FREE_BYTES:
                kept = tab.runtime.upstream.keep(len(body))
            headers = tuple([each for each in headers if each[0] != ENCODING])
    delivered = _facts(tab.call, response, body)
    return WholeAnswer(200, headers, body, delivered, None, kept)


def _passed_back(response: Response) -> tuple[tuple[bytes, bytes], ...]:
    return tuple([each for each in response.headers if each[0] in _PASSED_BACK])


async def open_stream(tab: Tab, attempt: Attempt, scribe: Scribe | None = None) -> StreamedAnswer:
    """Make an attempt that streams, up to its first content. Raises AttemptFailed."""
    try:
        response = await tab.runtime.upstream.send(*_request(tab, attempt))
    except AttemptFailed as failure:
        raise _told_apart(failure, tab) from None
    try:
        reader = await _reader_of(response, tab, attempt, scribe)
        opening = bytearray()
        while not reader.has_content and not reader.ended:
            data = await (reader.catch_up() if reader.behind else response.next_chunk())
            if data is None:
                reader.finish()
                break
            opening += reader.feed(data)
            if reader.failure is not None:
                raise reader.failure
            if not reader.has_content:
                _require_soon(tab, attempt, len(opening))
    except AttemptFailed as failure:
        response.abort()
        raise _within_deadline(failure) from None
    except BaseException:
        response.abort()
        raise
    tab.first_content(attempt)
    transcript = scribe if isinstance(scribe, Transcript) else None
    return StreamedAnswer(response, reader, attempt, bytes(opening), transcript)


async def _reader_of(
    response: Response, tab: Tab, attempt: Attempt, scribe: Scribe | None
) -> StreamReader:
    """Return what reads the stream that has begun. Raises AttemptFailed where none has."""
    if response.status != 200:
        said = await response.read(REFUSAL_BYTES_MAX)
        raise AttemptFailed(refused(response, said, tab.runtime.clock()))
    kind = response.header(b"content-type") or b""
    if not kind.lower().startswith(b"text/event-stream"):
        raise malformed("a stream was asked for, the answer is none", 200)
    body = tab.call.body
    assert isinstance(body, OpenAiBody)
    limit = tab.runtime.settings.limits.answer_bytes_max
    endpoint = tab.market.endpoint(attempt.candidate.number)
    return StreamReader(
        usage_asked=body.usage_asked,
        keep_text=tab.call.continues or endpoint.tokenizer_json is not None,
        unpacker=unpacker_for(response.header(ENCODING), limit),
        scribe=scribe,
        beside=_beside(tab.call),
    )


def _require_soon(tab: Tab, attempt: Attempt, opening_bytes: int) -> None:
    """Refuse a stream that goes on and on without content. Raises AttemptFailed."""
    if opening_bytes > OPENING_BYTES_MAX:
        raise malformed("much, and no content", 200)
    limits = tab.runtime.settings.limits
    if tab.runtime.now_s() - attempt.started_s > limits.first_byte_s + limits.idle_s:
        raise AttemptFailed(Outcome(Fault.IDLE_TIMEOUT, status=200, detail="no content in time"))


def _request(tab: Tab, attempt: Attempt) -> tuple[Origin, bytes, Body, Timeouts]:
    """Return where to send an attempt, its head, its body and how long it may take.

    Raises RequestMalformed for what cannot be sent.
    """
    runtime, call = tab.runtime, tab.asked
    limits = runtime.settings.limits
    left_s = max(call.deadline_s - runtime.now_s(), 0.001)  # an attempt may ask twice
    endpoint = tab.market.endpoint(attempt.candidate.number)
    body: Body
    if isinstance(call.body, TensorBody):
        require_numbers(call.body.classified, endpoint)
        path = model_path(endpoint) + b"/infer"
        target = runtime.targets.of(endpoint, path, call.body.headers)
        body = call.body.pieces()
        length = call.body.size_bytes
    else:
        target = runtime.targets.of(endpoint, call.body.path)
        limit = attempt.candidate.tokens_out_max if call.wanted.task.generates else None
        body = call.body.render(endpoint.upstream_model, limit)
        length = len(body)
    prefix = target.prefix
    if call.trace is not None:
        prefix += b"traceparent: %b\r\n" % call.trace.traceparent(attempt.index)
    head = identified(prefix, call.id_text, attempt.index, length)
    timeouts = Timeouts(limits.connect_s, limits.first_byte_s, limits.idle_s, left_s)
    return target.origin, head, body, timeouts


def _told_apart(failure: AttemptFailed, tab: Tab) -> AttemptFailed:
    """Tell the call's own deadline from a provider's fault."""
    late = tab.runtime.now_s() >= tab.call.deadline_s - _TICK_S
    if late and not failure.outcome.sent:
        # Out of time before it could connect: a hasty caller must not eject a provider.
        return AttemptFailed(Outcome(Fault.DEADLINE, sent=False))
    return _within_deadline(failure)


def _within_deadline(failure: AttemptFailed) -> AttemptFailed:
    """Tell the call's own deadline, all the time it left having gone, from a provider's fault."""
    if failure.outcome.fault is Fault.TOTAL_TIMEOUT:
        return AttemptFailed(Outcome(Fault.DEADLINE))
    return failure


def _require_json(kind: bytes | None) -> None:
    """Refuse a body that says it is something else: clients go by what it says."""
    if kind is None or kind == b"application/json":
        return
    if not kind.partition(b";")[0].rstrip().lower().endswith(b"json"):
        raise malformed("JSON was asked for, the answer says it is something else", 200)


def identified(prefix: bytes, call_id: str, attempt: int, length: int) -> bytes:
    """Complete a `head_prefix` by what a provider may tell afterwards what it served, and by the
    length of the body in bytes."""
    return b"%bx-request-id: %b\r\nx-broker-attempt: %d\r\ncontent-length: %d\r\n\r\n" % (
        prefix,
        call_id.encode(),
        attempt,
        length,
    )


def model_path(endpoint: Endpoint) -> bytes:
    """Return the path of an endpoint's model on its KServe server."""
    version = f"/versions/{quote(endpoint.version, safe='')}" if endpoint.version else ""
    return f"/v2/models/{quote(endpoint.upstream_model, safe='')}{version}".encode()


def _facts(call: Call, response: Response, body: bytes) -> Delivered:
    """Return what an answer shows of its usage. Raises AttemptFailed: malformed, an error."""
    if isinstance(call.body, TensorBody):
        return inferred(call.body, response, body)
    if not call.wanted.task.generates:
        return _facts_of_embedding(body)
    facts = read_completion(body)
    if facts.error is not None:
        raise AttemptFailed(Outcome(Fault.SERVER_ERROR, status=200, said=facts.error))
    return Delivered(
        facts.prompt_tokens,
        facts.completion_tokens,
        facts.text_bytes,
        facts.reasoning_tokens or 0,
        facts.text,
        choices=call.body.choices,
        beside_text=_beside_text(call, facts, body),
    )


def _beside_text(call: Call, facts: CompletionFacts, body: bytes) -> int:
    asked = None if facts.text_bytes else _beside(call)
    return 0 if asked is None else told_beside(body, asked)


def _beside(call: Call) -> Beside | None:
    """Return what the caller has asked to be told beside a text."""
    assert isinstance(call.body, OpenAiBody)
    hides = call.cascade is not None and call.cascade.hides_logprobs
    return beside_of(call.body.members, hides_logprobs=hides)


def _facts_of_embedding(body: bytes) -> Delivered:
    embedding = read_embedding(body)
    if embedding.error is not None:
        raise AttemptFailed(Outcome(Fault.SERVER_ERROR, status=200, said=embedding.error))
    return Delivered(embedding.prompt_tokens, 0, 0, generates=False)
