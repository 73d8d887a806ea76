"""The data plane as a plain ASGI app: `/v1/*` for OpenAI clients, `/v2/*` for KServe clients."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from broker.errors import BrokerError, MethodNotServed, NotFound
from broker.flows.runtime import Runtime
from broker.gateway import kserve, models, openai
from broker.gateway.admit import require_room
from broker.gateway.asgi import CallerLeft, Message, Receive, Scope, Send, header, respond
from broker.gateway.refusals import kserve_refusal, openai_refusal, unexpected
from broker.store.keys import StoredKey

Handler = Callable[[Scope, Receive, Send, Runtime, StoredKey], Awaitable[None]]


class Gateway:
    """Finds the door for a path, counts calls in and out, and turns errors into answers."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request of either kind."""
        is_kserve = scope["path"].startswith("/v2")
        door = self._kserve if is_kserve else self._openai
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await door(scope, receive, noting)
        except CallerLeft:
            return
        except Exception as error:
            if begun:
                # Too late for another answer. A caller who is gone is no news; else the server
                # closes the connection, so that the cut is seen.
                if isinstance(error, OSError):
                    return
                raise
            known = error if isinstance(error, BrokerError) else unexpected(error)
            await respond(send, *(kserve_refusal if is_kserve else openai_refusal)(known))

    async def _openai(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        key = self._key(scope)
        if path in openai.TASKS:
            _require(scope, "POST")
            await self._counted(openai.handle, scope, receive, send, key)
        elif path == "/v1/models" or path.startswith("/v1/models/"):
            _require(scope, "GET")
            await models.list_models(scope, send, self._runtime, key)
        else:
            raise NotFound(f"There is nothing at {path}. Served are {', '.join(openai.TASKS)}.")

    async def _kserve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = kserve.parse_path(scope["path"])
        if path.model is None:
            _require(scope, "GET")
            await kserve.tell_server(path, send, self._runtime)
        elif path.verb == "infer":
            _require(scope, "POST")
            await self._counted(kserve.infer, scope, receive, send, self._key(scope))
        else:
            _require(scope, "GET")
            await kserve.tell_model(path, scope, send, self._runtime, self._key(scope))

    async def _counted(
        self, handle: Handler, scope: Scope, receive: Receive, send: Send, key: StoredKey
    ) -> None:
        runtime = self._runtime
        require_room(runtime)
        runtime.keyring.enter(key)
        runtime.calls_in_flight += 1
        try:
            await handle(scope, receive, send, runtime, key)
        finally:
            runtime.calls_in_flight -= 1
            runtime.keyring.leave(key)

    def _key(self, scope: Scope) -> StoredKey:
        authorization = header(scope["headers"], b"authorization")
        return self._runtime.keyring.find(authorization, self._runtime.clock())


def _require(scope: Scope, method: str) -> None:
    if scope["method"] != method:
        raise MethodNotServed(f"{scope['path']} takes {method}, not {scope['method']}.")
