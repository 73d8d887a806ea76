"""Has a deployment prove its origin and do its work once, before it is listed.

Every check is one `ProbeReport` that says exactly what failed, so that a provider can mend it
without asking.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Final

import msgspec

from broker.errors import RequestMalformed
from broker.upstream.addresses import AddressPolicy
from broker.upstream.faults import UNREADABLE, AttemptFailed
from broker.upstream.openai import CompletionFacts, read_completion, read_embedding
from broker.upstream.probe_kserve import probe_kserve
from broker.upstream.prober import Answer, ProbeFailed, Prober
from provider_sdk.protocol import DNS_LABEL, WELL_KNOWN_PATH, ProbeReport, Task

__all__ = ["probe_dns", "probe_kserve", "probe_openai", "probe_wellknown"]

_PROOF_TIMEOUT_S: Final = 10.0
_JSON: Final = {"content-type": "application/json"}
_TOKENS_MAX: Final = 8
_NAMES_TOLD: Final = 5

_CALLS: Final[dict[Task, tuple[str, dict[str, object]]]] = {
    "chat": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "Say ok."}], "max_tokens": _TOKENS_MAX},
    ),
    "completion": ("/v1/completions", {"prompt": "One, two,", "max_tokens": _TOKENS_MAX}),
    "embedding": ("/v1/embeddings", {"input": "probe"}),
}


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


async def probe_wellknown(url: str, nonce: str, policy: AddressPolicy) -> ProbeReport:
    """Check that the origin of `url` answers `nonce` as plain text under `WELL_KNOWN_PATH`."""
    check = "proof by well-known"
    try:
        async with Prober(url, None, policy, _PROOF_TIMEOUT_S) as prober:
            answer = await prober.get(WELL_KNOWN_PATH, at_root=True)
    except (ProbeFailed, RequestMalformed) as failed:
        return ProbeReport(check=check, ok=False, detail=str(failed))
    if answer.status == 200 and answer.body.strip() == nonce.encode():
        return ProbeReport(check=check, ok=True, latency_ms=answer.latency_ms)
    detail = f"GET {WELL_KNOWN_PATH} must answer the nonce; it answered {answer.quoted()}"
    return ProbeReport(check=check, ok=False, detail=detail, latency_ms=answer.latency_ms)


async def probe_dns(
    host: str, nonce: str, nameserver: tuple[str, int] | None = None
) -> ProbeReport:
    """Check that a TXT record `DNS_LABEL.<host>` is `nonce`; asks the system's name servers."""
    check, name = "proof by dns", f"{DNS_LABEL}.{host}"
    if find_spec("dns") is None:
        detail = "the broker cannot look up TXT records: dnspython is not installed"
        return ProbeReport(check=check, ok=False, detail=detail)
    asyncresolver = import_module("dns.asyncresolver")
    dns_error = import_module("dns.exception").DNSException
    try:
        resolver = asyncresolver.Resolver(configure=nameserver is None)
        if nameserver is not None:
            resolver.nameservers, resolver.port = [nameserver[0]], nameserver[1]
        found = await resolver.resolve(name, "TXT", lifetime=_PROOF_TIMEOUT_S)
    except (dns_error, OSError) as error:
        return ProbeReport(check=check, ok=False, detail=f"TXT {name}: {error}")
    texts = [b"".join(record.strings) for record in found]
    if nonce.encode() in texts:
        return ProbeReport(check=check, ok=True)
    detail = f"TXT {name} is not the nonce but {texts!r}"
    return ProbeReport(check=check, ok=False, detail=detail[:400])


async def probe_openai(
    url: str,
    credential: str | None,
    model: str,
    tasks: Sequence[Task],
    policy: AddressPolicy,
) -> list[ProbeReport]:
    """Look `model` up in the list of models, if there is one; make one small call per task."""
    try:
        async with Prober(url, credential, policy) as prober:
            listed = await _look_up(prober, model)
            return [listed, *[await _call(prober, model, task) for task in dict.fromkeys(tasks)]]
    except RequestMalformed as malformed_url:
        return [ProbeReport(check="url", ok=False, detail=malformed_url.detail)]


async def _look_up(prober: Prober, model: str) -> ProbeReport:
    check = "GET /v1/models"
    try:
        answer = await prober.get("/v1/models")
    except ProbeFailed as failed:
        return ProbeReport(check=check, ok=False, detail=str(failed))
    if answer.status in (404, 405, 501):
        return ProbeReport(check=check, ok=True, detail="there is no list of models")
    if answer.status != 200:
        return ProbeReport(check=check, ok=False, detail=answer.quoted())
    try:
        names = [each.id for each in msgspec.json.decode(answer.body, type=_Models).data]
    except UNREADABLE:
        return ProbeReport(check=check, ok=False, detail=f"no list of models: {answer.quoted()}")
    if model in names:
        return ProbeReport(check=check, ok=True, latency_ms=answer.latency_ms)
    detail = f"there is no {model!r} among {len(names)} models: {names[:_NAMES_TOLD]}"
    return ProbeReport(check=check, ok=False, detail=detail)


async def _call(prober: Prober, model: str, task: Task) -> ProbeReport:
    if task not in _CALLS:
        detail = "an OpenAI-compatible server has no such task"
        return ProbeReport(check=task, ok=False, detail=detail)
    path, members = _CALLS[task]
    check = f"POST {path}"
    try:
        answer = await prober.post(path, msgspec.json.encode({"model": model, **members}), _JSON)
    except ProbeFailed as failed:
        return ProbeReport(check=check, ok=False, detail=str(failed))
    judge: Callable[[bytes], str | None] = (
        _judge_embedding if task == "embedding" else _judge_completion
    )
    fault = _fault_of(answer, judge)
    return ProbeReport(
        check=check, ok=fault is None, detail=fault or "", latency_ms=answer.latency_ms
    )


def _fault_of(answer: Answer, judge: Callable[[bytes], str | None]) -> str | None:
    """Return what is wrong with an answer, None when nothing is."""
    if answer.status != 200:
        return answer.quoted()
    try:
        fault = judge(answer.body)
    except AttemptFailed as failed:
        return f"{failed.outcome.detail}; {answer.quoted()}"
    return None if fault is None else f"{fault}; {answer.quoted()}"


def _judge_completion(body: bytes) -> str | None:
    facts: CompletionFacts = read_completion(body)
    if facts.error is not None:
        return f"an error: {facts.error}"
    return None if facts.finished else "a choice has no finish_reason"


def _judge_embedding(body: bytes) -> str | None:
    facts = read_embedding(body)
    return None if facts.error is None else f"an error: {facts.error}"
