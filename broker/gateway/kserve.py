"""The KServe v2 door: bodies pass through untouched, tensors in binary included.

A model in a path is a family, `auto`, or an endpoint written `provider/endpoint` (tritonclient does
not escape the slash) or `provider--endpoint`.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Final
from urllib.parse import unquote

import msgspec

from broker.core.call import TensorBody
from broker.core.candidates.allowance import narrowed
from broker.core.candidates.eligibility import Rejection
from broker.core.catalog import Task
from broker.core.decision import Decision
from broker.core.wire.signature import described
from broker.errors import NotAllowed, NotFound, Unavailable
from broker.flows.calls.decide import choose, refusal
from broker.flows.calls.exchange import WholeAnswer
from broker.flows.calls.look_up import look_up_model
from broker.flows.calls.passage import Passage
from broker.flows.calls.replay import Replay, serve_once
from broker.flows.calls.serve import serve
from broker.flows.calls.tab import Tab
from broker.flows.runtime import Runtime
from broker.gateway.admit import Asked, admit, demands
from broker.gateway.keyed import read_keyed
from broker.gateway.openai import broker_head, send_replay, send_whole
from broker.gateway.wishes import read_wishes
from broker.server.request import Request, header_lines
from broker.store.access.keys import StoredKey
from broker.upstream.faults import AttemptFailed
from broker.upstream.kserve import check_infer, is_denied
from broker.upstream.unpacking import ENCODING, PACKED_BYTES
from pricing.money import format_usd

_MODEL = re.compile(
    r"/v2/models/(?P<model>[^/]+(?:/(?!(?:versions|infer|ready|config|stats)(?:/|$))[^/]+)?)"
    r"(?:/versions/(?P<version>[^/]+))?(?:/(?P<verb>infer|ready|config))?/?"
)
_STATISTICS = re.compile(r"/v2/models(?:/.+)?/stats/?")
"""Where Triton tells them of all models, of one, and of a version of it."""
INDEX: Final = "index"
_SERVER = {
    "/v2": "metadata",
    "/v2/health/live": "live",
    "/v2/health/ready": "ready",
    "/v2/repository/index": INDEX,
}
_PASSED_ON = frozenset(
    {b"content-type", b"content-encoding", b"accept-encoding", b"inference-header-content-length"}
)
JSON_LINE = b"content-type: application/json\r\n"
_REMEMBERED_CHARACTERS_MAX = 256
_NO_BODY = TensorBody((), b"")


@dataclass(frozen=True, slots=True)
class Path:
    """A v2 path taken apart; `model` is None for the server's own paths."""

    verb: str
    model: str | None = None
    version: str | None = None


def parse_path(path: str) -> Path:
    """Take a path apart. Raises NotAllowed for what reaches into a provider's host, NotFound."""
    return _parsed(path) if len(path) <= _REMEMBERED_CHARACTERS_MAX else _parse(path)


def _parse(path: str) -> Path:
    if "\0" in path:
        raise NotFound("There is nothing at a path with a NUL in it.")
    server = _SERVER.get(path.rstrip("/"))
    if server is not None:
        return Path(server)
    if is_denied(path):
        raise NotAllowed("Model control, shared memory, trace and log calls are not served.")
    match = _MODEL.fullmatch(path)
    if _STATISTICS.fullmatch(path):
        raise NotFound("Statistics are not served; GET /api/calls tells of each of your calls.")
    if match is None:
        hint = " A Triton client's address has no path." if path.startswith("/v2/v2") else ""
        raise NotFound(f"There is nothing at {path}.{hint}")
    model = unquote(match["model"]).replace("--", "/")
    return Path(match["verb"] or "", model, match["version"])


_parsed = lru_cache(maxsize=1_024)(_parse)


async def tell_server(request: Request, runtime: Runtime, _: object) -> None:
    """Answer for the broker itself; no key is needed for its health."""
    path = parse_path(request.path)
    if path.verb == "metadata":
        answer = {
            "name": "model-broker",
            "version": version("model-broker"),
            "extensions": ["binary_tensor_data", "model_configuration"],
        }
        request.answer(200, JSON_LINE, msgspec.json.encode(answer))
        return
    if path.verb == "ready" and runtime.stopping:
        raise Unavailable("The broker is stopping.")
    request.answer(200, b"", b"")


async def tell_model(request: Request, runtime: Runtime, key: StoredKey) -> None:
    """Answer with readiness, metadata or configuration of a model, for nothing; with the metadata
    that its answers are held against, where that was seen. Its name is the one that was asked for:
    perf_analyzer asks for what it reads there."""
    path = parse_path(request.path)
    wishes = read_wishes(None, request.headers)
    asked = Asked(Task.INFER, path.model or "auto", wishes, _NO_BODY, version=path.version)
    wanted = demands(asked, key.account_id)
    if key.terms.allowance is not None:
        wanted = narrowed(wanted, key.terms.allowance, runtime.market)
    if wanted.paced:
        wanted = await runtime.pacer.pace(wanted, key.id, runtime.clock())
    decision = choose(wanted, runtime)
    number = _best_of(decision)
    if number is None:
        raise refusal(wanted, decision, runtime)
    if path.verb == "ready":
        request.answer(200, b"", b"")
        return
    endpoint = runtime.market.endpoint(number)
    if not path.verb and endpoint.signature is not None:
        told = described(endpoint.signature, asked.model)
    else:
        told = await look_up_model(endpoint, path.verb, runtime) | {"name": asked.model}
    served_by = b"x-broker-endpoint: %b\r\n" % endpoint.name.encode()
    request.answer(200, served_by + JSON_LINE, msgspec.json.encode(told))


def _best_of(decision: Decision) -> int | None:
    """Return the endpoint that would be called first; one that is full tells of itself too."""
    if decision.plan:
        return decision.plan[0].number
    full = decision.rejected[decision.reasons == Rejection.FULL]
    return int(full[0]) if full.size else None


async def infer(request: Request, runtime: Runtime, key: StoredKey) -> None:
    """Serve one inference. Raises BrokerError before anything was sent."""
    payer = runtime.keyring.payer(key)
    path = parse_path(request.path)
    wishes = read_wishes(None, request.headers)
    headers = tuple(each for each in request.headers if each[0] in _PASSED_ON)
    body = TensorBody(headers, request.body, request.rest, request.size_bytes)
    if ENCODING in request.fields and body.size_bytes > PACKED_BYTES:
        # Joined before: its pieces are views of memory that serves others if its caller leaves.
        whole = msgspec.structs.replace(body, payload=body.begin(None), rest=())
        classified = await asyncio.to_thread(check_infer, whole)
    else:
        classified = check_infer(body)
    if classified:
        body = msgspec.structs.replace(body, classified=classified)
    asked = Asked(Task.INFER, path.model or "auto", wishes, body, version=path.version)
    call = admit(asked, payer, runtime, request.fields)
    request.take_within(call.deadline_s - call.started_s + runtime.settings.limits.stall_s)
    named = request.header(b"idempotency-key")
    if named is None:
        tab, answer = await serve(call, runtime)
    else:
        served = await serve_once(call, read_keyed(named, request, wishes, key), runtime)
        if isinstance(served, Replay):
            send_replay(request, served)
            return
        tab, answer = served
    if isinstance(answer, WholeAnswer):
        send_whole(request, tab, answer)
        if answer.kept is not None:
            await request.drain()  # it is counted for as long as it waits for its caller
    else:
        assert isinstance(answer, Passage)
        await _send_passage(request, tab, answer)


async def _send_passage(request: Request, tab: Tab, passage: Passage) -> None:
    """Pass a long answer on as it comes; the connection breaks off where the answer does."""
    answer = passage.answer
    head = b"%bx-broker-cost-usd: %b\r\n" % (
        broker_head(tab),
        format_usd(passage.cost_nanos).encode(),
    )
    head += header_lines(answer.headers)
    if answer.size_bytes is not None:
        head += b"content-length: %d\r\n" % answer.size_bytes
    pieces = passage.pieces()
    try:
        # Begun before anything is sent, for closing a generator that never began does nothing.
        opening = await anext(pieces)
        request.begin(200, head, opening, sized=answer.size_bytes is not None)
        async for piece in pieces:
            await request.drain()
            request.write(piece)
    except (AttemptFailed, Unavailable):
        request.cut()  # what broke off must not be taken for whole
        return
    finally:
        # Closing the pieces cancels the call upstream when the caller has left.
        await pieces.aclose()
    request.end()
