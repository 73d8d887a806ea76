"""The OpenAI door: reads a request's top-level members, and sends an answer or a stream back."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Final, TypeVar

import msgspec

from broker.core.call import IMAGE_BYTES, OpenAiBody
from broker.core.catalog import Task
from broker.core.wire.complaints import plain
from broker.core.wire.images import IMAGE, images_in
from broker.core.wire.members import (
    PROMPTS_MAX,
    READ,
    look_alike,
    read_members,
    sizes_of_prompts,
)
from broker.errors import ParameterMalformed, RequestMalformed
from broker.flows.calls.exchange import Verdict, WholeAnswer
from broker.flows.calls.replay import Replay, serve_once
from broker.flows.calls.serve import serve
from broker.flows.calls.stream import Stream
from broker.flows.calls.tab import Tab
from broker.flows.runtime import Runtime
from broker.gateway.admit import Asked, admit
from broker.gateway.fallbacks import with_fallbacks
from broker.gateway.keyed import read_keyed
from broker.gateway.wishes import Names, Wishes, in_tier, read_wishes
from broker.server.request import Headers, Request, header_lines
from broker.store.access.keys import StoredKey
from pricing.book import Rate
from pricing.money import format_rate, format_usd
from pricing.tiers import STANDARD

TASKS = {
    "/v1/chat/completions": Task.CHAT,
    "/v1/completions": Task.COMPLETION,
    "/v1/embeddings": Task.EMBEDDING,
}
_PATHS = {path: path.encode() for path in TASKS}
_CHAT: Final = Task.CHAT
"""Found sooner than a member of its enum, as each call does it."""
_NEEDED = {Task.CHAT: "messages", Task.COMPLETION: "prompt", Task.EMBEDDING: "input"}
_BRIEF_BYTES = 64
"""A list of fewer bytes may be empty."""
_LIST_BEGINS = ord("[")
_NOT_TAKEN = {
    # Names by which llama.cpp's server takes more than the limits that the hold was made for.
    "n_predict": "'max_tokens'",
    "n_cmpl": "'n'",
    # Demands in the words of other gateways: passed on they would bind nobody, and nobody be told.
    "provider": "'broker', whose fields are providers, data_policy, max_price and weights",
    "fallbacks": "'models', a list of names",
}
"""Members that are refused, and what to say instead."""
_HEEDED: Final = READ | _NOT_TAKEN.keys()

_HEAD = (
    b"x-broker-call-id: %b\r\nx-request-id: %b\r\nx-broker-endpoint: %b\r\n"
    b"x-broker-price: %b\r\nx-broker-price-version: %d\r\n"
)
"""The call's id a second time under the name that OpenAI's clients show as `_request_id`."""
_EVENT_STREAM = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"

T = TypeVar("T")


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _Listed(msgspec.Struct, array_like=True):
    """A list, with whatever in it."""


_TOKENS_MAX = 10_000_000
_Count = Annotated[int, msgspec.Meta(ge=1, le=_TOKENS_MAX)]
_Choices = Annotated[int, msgspec.Meta(ge=1, le=128)]
_text = msgspec.json.Decoder(Annotated[str, msgspec.Meta(min_length=1, max_length=200)])
_flag = msgspec.json.Decoder(bool | None)
_named = msgspec.json.Decoder(str | None)
_names = msgspec.json.Decoder(Names | None)
_count = msgspec.json.Decoder(_Count | None)
_number = msgspec.json.Decoder(float)
_choices = msgspec.json.Decoder(_Choices | None)
_options = msgspec.json.Decoder(_StreamOptions | None)
_list = msgspec.json.Decoder(list[msgspec.Raw])
_prompt = msgspec.json.Decoder(str | _Listed)


async def handle(request: Request, runtime: Runtime, key: StoredKey) -> None:
    """Serve one call at this door. Raises BrokerError before anything was sent."""
    payer = runtime.keyring.payer(key)
    asked = parse(request.path, request.headers, request.body)
    call = admit(asked, payer, runtime, request.fields)
    request.take_within(call.deadline_s - call.started_s + runtime.settings.limits.stall_s)
    named = request.fields.get(b"idempotency-key")
    if named is None:
        tab, answer = await serve(call, runtime)
    else:
        keyed = read_keyed(named, request, asked.wishes, key)
        served = await serve_once(call, keyed, runtime)
        if isinstance(served, Replay):
            send_replay(request, served)
            return
        tab, answer = served
    if isinstance(answer, WholeAnswer):
        send_whole(request, tab, answer)
        if answer.kept is not None:
            await request.drain()  # it is counted for as long as it waits for its caller
    else:
        assert isinstance(answer, Stream)
        await _send_stream(request, tab, answer)


def parse(path: str, headers: Headers, body: bytes) -> Asked:
    """Read what the broker must know of a request. Raises RequestMalformed, UnknownField."""
    task = TASKS[path]
    if not body.isascii():
        _require_utf8(body, headers)
    try:
        members = read_members(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestMalformed(f"The body is not a JSON object: {error}.") from None
    if _NEEDED[task] not in members:
        raise ParameterMalformed(_NEEDED[task], f"'{_NEEDED[task]}' is missing.")
    if not _NOT_TAKEN.keys().isdisjoint(members):
        _require_none(members)
    if (alike := look_alike(members, _HEEDED)) is not None:
        name, meant = alike
        raise ParameterMalformed(name, f"'{name}' is '{meant}' to some servers; write it so.")
    model, wishes = _wished(members, headers)
    stream = usage_asked = False
    limit = None
    if task.generates:
        if "stream" in members and _member(members, "stream", _flag):
            stream = True
            options = _member(members, "stream_options", _options)
            usage_asked = options is not None and options.include_usage
        if "max_completion_tokens" in members:
            limit = _limit(members, "max_completion_tokens")
        if limit is None and "max_tokens" in members:
            limit = _limit(members, "max_tokens")
    choices, longest_bytes = _asked_choices(task, members)
    size_bytes, images = _sized(task, members, body)
    return Asked(
        task,
        model,
        wishes,
        OpenAiBody(_PATHS[path], members, size_bytes, stream, usage_asked, choices, images),
        limit,
        choices,
        longest_bytes=longest_bytes,
    )


def _sized(task: Task, members: dict[str, msgspec.Raw], body: bytes) -> tuple[int, int]:
    """Return how many bytes may be prompt, and how many images there are. What is for the broker
    alone no provider counts as prompt."""
    own = members.get("broker")
    size_bytes = len(body) if own is None else len(body) - memoryview(own).nbytes
    if task is not _CHAT or IMAGE not in body:
        return size_bytes, 0
    images, inline_bytes = images_in(bytes(members["messages"]))
    return size_bytes - inline_bytes + images * IMAGE_BYTES, images


def _require_none(members: dict[str, msgspec.Raw]) -> None:
    """Take off what is not taken where it is null, as clients send what nobody has set. Raises
    RequestMalformed for any other."""
    for name, instead in _NOT_TAKEN.items():
        if bytes(members.pop(name, b"null")) != b"null":
            raise ParameterMalformed(name, f"'{name}' is not taken here; say {instead}.")


def _wished(members: dict[str, msgspec.Raw], headers: Headers) -> tuple[str, Wishes]:
    """Return the model that is asked first, and the wishes; `models` is taken off the members."""
    wishes = read_wishes(members.get("broker"), headers)
    if "service_tier" in members:
        wishes = in_tier(wishes, _member(members, "service_tier", _named))
    model = _model(members)
    if "models" not in members:
        return model, wishes
    more = _member(members, "models", _names) or []
    del members["models"]
    return with_fallbacks(model, more, wishes)


def _require_utf8(body: bytes, headers: Headers) -> None:
    """Raise RequestMalformed for a body that is not UTF-8: the decoder skips over slices."""
    try:
        body.decode()
    except UnicodeDecodeError:
        packed = any(name == b"content-encoding" for name, _ in headers)
        hint = " It says it is compressed, which is taken under /v2 alone." if packed else ""
        raise RequestMalformed(f"The body is not valid UTF-8.{hint}") from None


def _model(members: dict[str, msgspec.Raw]) -> str:
    if "model" not in members:
        raise ParameterMalformed("model", "'model' is missing; 'auto' lets the broker choose.")
    model: str | None = _member(members, "model", _text)
    assert model is not None
    if "\0" in model:
        raise ParameterMalformed("model", "'model' holds a NUL.")
    return model


def _asked_choices(task: Task, members: dict[str, msgspec.Raw]) -> tuple[int, int | None]:
    """Return how many answers may come back, each as long as the output limit, and of a list of
    texts, each of which is read by itself, the bytes of the longest."""
    if task is _CHAT:
        messages = memoryview(members["messages"])
        brief = messages.nbytes < _BRIEF_BYTES or messages[0] != _LIST_BEGINS
        if brief and not _member(members, "messages", _list):
            raise ParameterMalformed("messages", "'messages' is empty.")
        return ((_member(members, "n", _choices) or 1) if "n" in members else 1), None
    if task is Task.EMBEDDING:
        return 1, _longest(sizes_of_prompts(members["input"]))
    choices = max(_member(members, "n", _choices) or 1, _member(members, "best_of", _choices) or 1)
    _member(members, "prompt", _prompt)
    sizes = sizes_of_prompts(members["prompt"])
    if sizes is None:
        raise ParameterMalformed("prompt", f"'prompt': at most {PROMPTS_MAX} may be so long.")
    return choices * len(sizes), _longest(sizes)


def _longest(sizes_bytes: list[int] | None) -> int | None:
    return max(sizes_bytes) if sizes_bytes is not None and len(sizes_bytes) > 1 else None


def _limit(members: dict[str, msgspec.Raw], name: str) -> int | None:
    """Return an output limit; vLLM, SGLang and llama.cpp take 16.0 for 16, and are sent 16."""
    try:
        return _member(members, name, _count)
    except ParameterMalformed:
        try:
            number = _number.decode(members[name])
        except msgspec.DecodeError:
            number = 0.0
        if not number.is_integer() or not 1.0 <= number <= _TOKENS_MAX:
            raise
        return int(number)


def _member(
    members: dict[str, msgspec.Raw], name: str, decoder: msgspec.json.Decoder[T]
) -> T | None:
    raw = members.get(name)
    if raw is None:
        return None
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        reason, _, place = str(error).partition(" - at ")
        at = place.strip("`").removeprefix("$")
        raise ParameterMalformed(name, f"'{name}{at}' {_said(reason)}.") from None


def _said(reason: str) -> str:
    told = plain(reason)
    return told if told.startswith("must ") else f"cannot be read: {told}"


def send_whole(request: Request, tab: Tab, answer: WholeAnswer) -> None:
    """Send a settled answer, with what it cost in its headers."""
    cost = format_usd(tab.charge_nanos).encode()
    head = b"%bx-broker-cost-usd: %b\r\n" % (broker_head(tab), cost)
    if answer.verdict is not None:
        head += _verdict_lines(answer.verdict)
    request.answer(answer.status, head + header_lines(answer.headers), answer.body)


def send_replay(request: Request, replay: Replay) -> None:
    """Send a first answer again, with what it cost then."""
    first, call_id = replay.answer, str(replay.call_id).encode()
    head = _HEAD % (
        call_id,
        call_id,
        first.endpoint.encode(),
        _price(first.rate),
        first.price_version,
    )
    cost = format_usd(replay.charge_nanos).encode()
    head += b"x-broker-cost-usd: %b\r\nx-broker-replayed: true\r\n" % cost
    request.answer(200, head + header_lines(first.headers), first.body)


async def _send_stream(request: Request, tab: Tab, stream: Stream) -> None:
    pieces = stream.pieces()
    try:
        # Begun before anything is sent, for closing a generator that never began does nothing.
        opening = await anext(pieces)
        head = broker_head(tab) + _EVENT_STREAM
        if stream.verdict is not None:
            head += _verdict_lines(stream.verdict)
        # Each write is a system call, a fifteenth of the time of a stream: the head goes with the
        # opening, the tail with the end, where that has come too.
        request.begin(200, head, opening)
        last = b""
        async for piece in pieces:
            if request.connection.writable is not None:
                await request.drain()
            if stream.is_over:
                last = piece
            else:
                request.write(piece)
    finally:
        # Closing the pieces cancels the call upstream when the caller has left.
        await pieces.aclose()
    request.end(last)


def _verdict_lines(verdict: Verdict) -> bytes:
    """Return the header lines that say how good the answer of a cascade is thought to be."""
    lines = b"x-broker-flagged: true\r\n" if verdict.flagged else b""
    if verdict.confidence is not None:
        lines += b"x-broker-confidence: %.2f\r\n" % verdict.confidence
    return lines


def broker_head(tab: Tab) -> bytes:
    """Return the header lines that say who served a call and at which price."""
    call_id = tab.call.id_text.encode()
    head = _HEAD % (
        call_id,
        call_id,
        tab.endpoint.name.encode(),
        _price(tab.rate),
        tab.decision.price_version,
    )
    tier = tab.call.wanted.tier
    return head if tier is STANDARD else head + b"x-broker-tier: %b\r\n" % tier.encode()


@lru_cache(maxsize=1_024)
def _price(rate: Rate) -> bytes:
    """Return a rate as callers write `x-broker-max-price`; `call` only where a call costs."""
    if rate.rate_call_nanos:
        return f"call={format_usd(rate.rate_call_nanos)}".encode()
    price_in, price_out = format_rate(rate.rate_in_micros), format_rate(rate.rate_out_micros)
    return f"in={price_in},out={price_out}".encode()
