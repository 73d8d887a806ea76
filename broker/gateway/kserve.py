"""The KServe v2 door: bodies pass through untouched, tensors in binary included.

A model in a path is a family, `auto`, or an endpoint written `provider/endpoint` (tritonclient does
not escape the slash) or `provider--endpoint`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import version
from urllib.parse import unquote

import msgspec

from broker.core.call import TensorBody
from broker.core.catalog import Task
from broker.core.decision import Decision
from broker.core.eligibility import Rejection
from broker.errors import NotAllowed, NotFound, Unavailable
from broker.flows.decide import choose, refusal
from broker.flows.exchange import WholeAnswer
from broker.flows.look_up import look_up_model
from broker.flows.runtime import Runtime
from broker.flows.serve import serve
from broker.gateway.admit import Asked, admit, demands
from broker.gateway.asgi import Receive, Scope, Send, Watch, read_body, respond
from broker.gateway.openai import send_whole
from broker.gateway.wishes import read_wishes
from broker.store.keys import StoredKey
from broker.upstream.kserve import check_infer, is_denied

_MODEL = re.compile(
    r"/v2/models/(?P<model>[^/]+(?:/(?!(?:versions|infer|ready|config|stats)(?:/|$))[^/]+)?)"
    r"(?:/versions/(?P<version>[^/]+))?(?:/(?P<verb>infer|ready|config))?/?"
)
_SERVER = {"/v2": "metadata", "/v2/health/live": "live", "/v2/health/ready": "ready"}
_PASSED_ON = frozenset(
    {b"content-type", b"content-encoding", b"accept-encoding", b"inference-header-content-length"}
)
_JSON = (b"content-type", b"application/json")
_NO_BODY = TensorBody((), b"")


@dataclass(frozen=True, slots=True)
class Path:
    """A v2 path taken apart; `model` is None for the server's own paths."""

    verb: str
    model: str | None = None
    version: str | None = None


def parse_path(path: str) -> Path:
    """Take a path apart. Raises NotAllowed for what reaches into a provider's host, NotFound."""
    server = _SERVER.get(path.rstrip("/"))
    if server is not None:
        return Path(server)
    if is_denied(path):
        raise NotAllowed("Repository, shared memory, trace and log calls are not served.")
    match = _MODEL.fullmatch(path)
    if match is None:
        raise NotFound(f"There is nothing at {path}.")
    model = unquote(match["model"]).replace("--", "/")
    return Path(match["verb"] or "", model, match["version"])


async def tell_server(path: Path, send: Send, runtime: Runtime) -> None:
    """Answer for the broker itself; no key is needed for its health."""
    if path.verb == "metadata":
        answer = {
            "name": "model-broker",
            "version": version("model-broker"),
            "extensions": ["binary_tensor_data", "model_configuration"],
        }
        await respond(send, 200, [_JSON], msgspec.json.encode(answer))
        return
    if path.verb == "ready" and runtime.stopping:
        raise Unavailable("The broker is stopping.")
    await respond(send, 200, [], b"")


async def tell_model(
    path: Path, scope: Scope, send: Send, runtime: Runtime, key: StoredKey
) -> None:
    """Answer with readiness, metadata or configuration of a model, for nothing."""
    wishes = read_wishes(None, scope["headers"])
    asked = Asked(Task.INFER, path.model or "auto", wishes, _NO_BODY, version=path.version)
    wanted = demands(asked, key.account_id)
    decision = choose(wanted, runtime)
    number = _best_of(decision)
    if number is None:
        raise refusal(wanted, decision, runtime)
    if path.verb == "ready":
        await respond(send, 200, [], b"")
        return
    endpoint = runtime.market.endpoint(number)
    headers, body = await look_up_model(endpoint, path.verb, runtime)
    await respond(send, 200, headers, body)


def _best_of(decision: Decision) -> int | None:
    """Return the endpoint that would be called first; one that is full tells of itself too."""
    if decision.plan:
        return decision.plan[0].number
    full = decision.rejected[decision.reasons == Rejection.FULL]
    return int(full[0]) if full.size else None


async def infer(
    scope: Scope, receive: Receive, send: Send, runtime: Runtime, key: StoredKey
) -> None:
    """Serve one inference. Raises BrokerError before anything was sent."""
    payer, limits = runtime.keyring.payer(key), runtime.settings.limits
    path = parse_path(scope["path"])
    wishes = read_wishes(None, scope["headers"])
    payload = await read_body(scope, receive, limits)
    headers = tuple(each for each in scope["headers"] if each[0] in _PASSED_ON)
    check_infer(headers, payload)
    body = TensorBody(headers, payload)
    asked = Asked(Task.INFER, path.model or "auto", wishes, body, version=path.version)
    call = admit(asked, payer, runtime)
    watch = Watch(receive, call.deadline_s - call.started_s + limits.stall_s)
    try:
        tab, answer = await serve(call, runtime)
        assert isinstance(answer, WholeAnswer)
        await send_whole(send, tab, answer)
    except BaseException:
        if watch.left:
            return
        raise
    finally:
        watch.stop()
