"""The data plane: `/v1/*` for OpenAI clients, `/v2/*` for KServe clients."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from broker.errors import BrokerError, MethodNotServed, NotFound
from broker.flows.access.keyring import Seat
from broker.flows.runtime import Runtime
from broker.gateway import browsers, index, kserve, models, openai
from broker.gateway.admit import require_room
from broker.gateway.refusals import Answer, kserve_refusal, openai_refusal, unexpected
from broker.gateway.ways import hint, meant
from broker.server.request import Handler, Request, header_lines
from broker.store.access.keys import StoredKey

Refusal = Callable[[BrokerError], Answer]
Serve = Callable[[Request, Runtime, StoredKey], Awaitable[None]]
OPENAI: Final = "openai"
KSERVE: Final = "kserve"
_REFUSAL_OF: Final[dict[str, Refusal]] = {OPENAI: openai_refusal, KSERVE: kserve_refusal}
_SERVED: Final = (*openai.TASKS, "/v1/models")
_SHED: Final = (429, 503)
_LEFT = 499
"""Counted as the status of an answer that its caller did not wait for."""


class Gateway:
    """Finds the door for a path, counts calls in and out, and turns errors into answers."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._completes = partial(self._call, openai.handle, OPENAI)
        self._infers = partial(self._call, kserve.infer, KSERVE)

    def open(self, request: Request) -> tuple[Handler, bool]:
        """Return the handler of a request and whether it takes the body whole.

        Whoever is refused at the head, for its key say, need not send the body.
        """
        is_kserve = request.path.startswith("/v2")
        if b"origin" in request.fields:
            request.also = browsers.ANY_ORIGIN
            if browsers.is_preflight(request):
                return browsers.allow, True
        try:
            if is_kserve:
                return self._open_kserve(request), True
            return self._open_openai(request), True
        except BrokerError as error:
            kind = KSERVE if is_kserve else OPENAI
            self._runtime.answered[kind, error.status] += 1
            return partial(_refuse, error, kserve_refusal if is_kserve else openai_refusal), False

    def _open_openai(self, request: Request) -> Handler:
        path = request.path
        if path in openai.TASKS:
            if request.method != "POST":
                _require(request, "POST")
            runtime = self._runtime  # as `_key`: each call comes here
            authorization = request.fields.get(b"authorization")
            request.told = key = runtime.keyring.find(authorization, runtime.clock())
            request.owner = key.account_id
            return self._completes
        if path == "/v1/models" or path.startswith("/v1/models/"):
            _require(request, "GET")
            request.told = self._key(request)
            return partial(self._look_up, models.list_models, openai_refusal)
        request.path = meant(path)
        if request.path != path:
            return self._open_openai(request)
        raise NotFound(f"There is nothing at {path}.{hint(path)} Served are {', '.join(_SERVED)}.")

    def _open_kserve(self, request: Request) -> Handler:
        path = kserve.parse_path(request.path)
        if path.verb == "infer" and path.model is not None:
            _require(request, "POST")
            request.told = key = self._key(request)
            request.owner = key.account_id
            request.in_pieces = True
            return self._infers
        if path.verb == kserve.INDEX and path.model is None:
            _require(request, "POST")
            request.told = self._key(request)
            return partial(self._look_up, index.tell_index, kserve_refusal)
        _require(request, "GET")
        if path.model is None:
            return partial(self._look_up, kserve.tell_server, kserve_refusal)
        request.told = self._key(request)
        return partial(self._look_up, kserve.tell_model, kserve_refusal)

    async def _call(self, serve: Serve, kind: str, request: Request) -> None:
        """Serve a call, counted in and out."""
        runtime, key = self._runtime, request.told
        assert isinstance(key, StoredKey)
        status = _LEFT
        try:
            if request.trouble is not None:
                raise request.trouble
            require_room(runtime)
            seat = None
            if b"idempotency-key" not in request.fields:
                runtime.keyring.enter(key)
            else:
                request.told = seat = Seat(runtime.keyring, key)
            runtime.calls_in_flight += 1
            try:
                if key.terms.rates is not None:
                    await runtime.live.limits.enter(key.id, key.terms.rates)
                await serve(request, runtime, key)
                status = 200
            finally:
                runtime.calls_in_flight -= 1
                if seat is None:
                    runtime.keyring.leave(key)
                else:
                    seat.leave()
        except Exception as error:
            if isinstance(error, BrokerError) and error.status in _SHED:
                runtime.shed[error.code] += 1
            status = await _fail(error, _REFUSAL_OF[kind], request)
        finally:
            runtime.answered[kind, status] += 1

    async def _look_up(self, tell: Serve, refusal: Refusal, request: Request) -> None:
        """Answer a question that is no call."""
        try:
            if request.told is not None:
                assert isinstance(request.told, StoredKey)
                most = self._runtime.settings.limits.look_ups_per_minute
                await self._runtime.live.limits.count(request.told.id, "look-ups", most)
            await tell(request, self._runtime, request.told)  # type: ignore[arg-type]
        except Exception as error:
            await _fail(error, refusal, request)

    def _key(self, request: Request) -> StoredKey:
        authorization = request.header(b"authorization")
        return self._runtime.keyring.find(authorization, self._runtime.clock())


async def _fail(error: Exception, refusal: Refusal, request: Request) -> int:
    """Tell the caller; return the status that it was told."""
    if request.left:
        return _LEFT  # nobody is there to be told
    if request.begun:
        raise error  # too late for another answer: the server closes, so that the cut is seen
    known = error if isinstance(error, BrokerError) else unexpected(error)
    await _refuse(known, refusal, request)
    return known.status


async def _refuse(error: BrokerError, refusal: Refusal, request: Request) -> None:
    status, headers, body = refusal(error)
    request.answer(status, header_lines(headers), body)


def _require(request: Request, method: str) -> None:
    if request.method != method:
        told = f"{request.path} takes {method}, not {request.method}."
        raise MethodNotServed(told, allowed=method)
