"""The OpenAI door: reads a request's top-level members, and sends an answer or a stream back."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, TypeVar

import msgspec

from broker.core.call import OpenAiBody
from broker.core.catalog import Task
from broker.errors import RequestMalformed
from broker.flows.exchange import WholeAnswer
from broker.flows.runtime import Runtime
from broker.flows.serve import serve
from broker.flows.stream import Stream
from broker.flows.tab import Tab
from broker.gateway.admit import Asked, admit
from broker.gateway.asgi import Receive, Scope, Send, Watch, read_body, require_utf8, respond
from broker.gateway.wishes import read_wishes
from broker.store.keys import StoredKey
from pricing.book import Rate
from pricing.money import format_rate, format_usd

TASKS = {
    "/v1/chat/completions": Task.CHAT,
    "/v1/completions": Task.COMPLETION,
    "/v1/embeddings": Task.EMBEDDING,
}
_NEEDED = {Task.CHAT: "messages", Task.COMPLETION: "prompt", Task.EMBEDDING: "input"}
_OVERRULING = {"n_predict": "max_tokens", "n_cmpl": "n"}
"""Names by which llama.cpp's server takes more than the limits that the hold was made for."""

T = TypeVar("T")

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


_Count = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
_Choices = Annotated[int, msgspec.Meta(ge=1, le=128)]
_text = msgspec.json.Decoder(Annotated[str, msgspec.Meta(min_length=1, max_length=200)])
_flag = msgspec.json.Decoder(bool | None)
_count = msgspec.json.Decoder(_Count | None)
_choices = msgspec.json.Decoder(_Choices | None)
_options = msgspec.json.Decoder(_StreamOptions | None)
_list = msgspec.json.Decoder(list[msgspec.Raw])
_prompt = msgspec.json.Decoder(str | list[msgspec.Raw])


async def handle(
    scope: Scope, receive: Receive, send: Send, runtime: Runtime, key: StoredKey
) -> None:
    """Serve one call at this door. Raises BrokerError before anything was sent."""
    payer, limits = runtime.keyring.payer(key), runtime.settings.limits
    body = await read_body(scope, receive, limits)
    call = admit(parse(scope, body), payer, runtime)
    watch = Watch(receive, call.deadline_s - call.started_s + limits.stall_s)
    try:
        tab, answer = await serve(call, runtime)
        if isinstance(answer, WholeAnswer):
            await send_whole(send, tab, answer)
        else:
            await _send_stream(send, tab, answer)
    except BaseException:
        if watch.left:
            return
        raise
    finally:
        watch.stop()


def parse(scope: Scope, body: bytes) -> Asked:
    """Read what the broker must know of a request. Raises RequestMalformed, UnknownField."""
    task = TASKS[scope["path"]]
    require_utf8(body)
    try:
        members = _members(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestMalformed(f"The body is not a JSON object: {error}.") from None
    if _NEEDED[task] not in members:
        raise RequestMalformed(f"'{_NEEDED[task]}' is missing.")
    for name in _OVERRULING.keys() & members.keys():
        raise RequestMalformed(f"'{name}' is not taken here; say '{_OVERRULING[name]}'.")
    wishes = read_wishes(members.get("broker"), scope["headers"])
    stream = task.generates and bool(_member(members, "stream", _flag))
    options = _member(members, "stream_options", _options) if stream else None
    choices = _asked_choices(task, members)
    limit = _member(members, "max_completion_tokens", _count)
    if limit is None and task.generates:
        limit = _member(members, "max_tokens", _count)
    return Asked(
        task=task,
        model=_model(members),
        wishes=wishes,
        body=OpenAiBody(
            path=scope["path"].encode(),
            members=members,
            size_bytes=len(body) - _own_bytes(members.get("broker")),
            stream=stream,
            usage_asked=options is not None and options.include_usage,
            choices=choices,
        ),
        tokens_out_max=limit if task.generates else None,
        choices=choices,
    )


def _own_bytes(wishes: msgspec.Raw | None) -> int:
    """Return the size of what is for the broker alone: no provider counts it as prompt."""
    return 0 if wishes is None else memoryview(wishes).nbytes


def _model(members: dict[str, msgspec.Raw]) -> str:
    if "model" not in members:
        raise RequestMalformed("'model' is missing; 'auto' lets the broker choose.")
    model: str | None = _member(members, "model", _text)
    assert model is not None
    return model


def _asked_choices(task: Task, members: dict[str, msgspec.Raw]) -> int:
    """Return how many answers may come back, each as long as the output limit."""
    if task is Task.CHAT:
        if not _member(members, "messages", _list):
            raise RequestMalformed("'messages' is empty.")
        return _member(members, "n", _choices) or 1
    if task is Task.EMBEDDING:
        return 1
    choices = max(_member(members, "n", _choices) or 1, _member(members, "best_of", _choices) or 1)
    prompt = _member(members, "prompt", _prompt)
    several = isinstance(prompt, list) and prompt and memoryview(prompt[0])[0] in b'"['
    return choices * len(prompt) if several and prompt else choices


def _member(
    members: dict[str, msgspec.Raw], name: str, decoder: msgspec.json.Decoder[T]
) -> T | None:
    raw = members.get(name)
    if raw is None:
        return None
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError as error:
        reason = str(error).partition(" - at ")[0]
        raise RequestMalformed(f"'{name}': {reason}.") from None


async def send_whole(send: Send, tab: Tab, answer: WholeAnswer) -> None:
    """Send a settled answer, with what it cost in its headers."""
    headers = broker_headers(tab)
    headers.append((b"x-broker-cost-usd", format_usd(tab.charge_nanos).encode()))
    headers.extend(answer.headers)
    await respond(send, answer.status, headers, answer.body)


async def _send_stream(send: Send, tab: Tab, stream: Stream) -> None:
    headers = broker_headers(tab)
    headers.append((b"content-type", b"text/event-stream; charset=utf-8"))
    headers.append((b"cache-control", b"no-cache"))
    pieces = stream.pieces()
    try:
        # Begun before anything is sent, for closing a generator that never began does nothing.
        opening = await anext(pieces)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": opening, "more_body": True})
        async for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    finally:
        # Closing the pieces cancels the call upstream when the caller has left.
        await pieces.aclose()
    await send({"type": "http.response.body", "body": b""})


def broker_headers(tab: Tab) -> list[tuple[bytes, bytes]]:
    """Return the headers that say who served a call and at which price."""
    return [
        (b"x-broker-call-id", str(tab.call.id).encode()),
        (b"x-broker-endpoint", tab.endpoint.name.encode()),
        (b"x-broker-price", _price(tab.rate)),
        (b"x-broker-price-version", b"%d" % tab.decision.price_version),
    ]


@lru_cache(maxsize=1_024)
def _price(rate: Rate) -> bytes:
    """Return a rate as callers write `x-broker-max-price`; `call` only where a call costs."""
    if rate.rate_call_nanos:
        return f"call={format_usd(rate.rate_call_nanos)}".encode()
    price_in, price_out = format_rate(rate.rate_in_micros), format_rate(rate.rate_out_micros)
    return f"in={price_in},out={price_out}".encode()
