"""Has a KServe v2 server show one model: live, ready, described, inferring from made-up input."""

from __future__ import annotations

import asyncio
import math
from importlib import import_module
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import quote

import msgspec
import numpy as np

from broker.core.wire.signature import Signature, Tensor
from broker.errors import RequestMalformed
from broker.upstream.addresses import AddressPolicy
from broker.upstream.faults import UNREADABLE, AttemptFailed
from broker.upstream.kserve import HEADER_LENGTH, read_infer
from broker.upstream.prober import Answer, ProbeFailed, Prober
from provider_sdk.protocol import ProbeReport

NOT_CHECKED: Final = "not checked: "
"""So begins what is said of a check that could not be made: it has neither passed nor failed."""
_ELEMENTS_MAX: Final = 4_194_304
_TEXTS_MAX: Final = 65_536
"""Numbers and texts that are made up for a model at most, whatever its server says it takes."""
_SIGNATURE_BYTES_MAX: Final = 16_384
"""Every broker keeps each in memory; a model of a hundred tensors needs half of that."""
_VERSIONS_MAX: Final = 64
_VERSION_MAX: Final = 100
"""Versions that are kept, and characters of one."""
_TEXT: Final = b"probe"
_LENGTH_NAME: Final = HEADER_LENGTH.decode()


_Name = Annotated[str, msgspec.Meta(max_length=1_000)]
_Size = Annotated[int, msgspec.Meta(le=2**32)]


class _Tensor(msgspec.Struct):
    name: _Name
    datatype: _Name
    shape: Annotated[list[_Size], msgspec.Meta(max_length=32)]


class _Metadata(msgspec.Struct):
    inputs: Annotated[list[_Tensor], msgspec.Meta(max_length=256)]


class _Told(_Metadata):
    """All of it; some servers tell only of the inputs."""

    outputs: Annotated[list[_Tensor], msgspec.Meta(max_length=256)]
    versions: list[str] | None = None
    platform: str | None = None


class _Server(msgspec.Struct):
    extensions: list[str] = []


class Probed(NamedTuple):
    """What probing came to, and what the model says that it takes and gives."""

    reports: list[ProbeReport]
    signature: Signature | None


async def probe_kserve(
    url: str, credential: str | None, model: str, version: str | None, policy: AddressPolicy
) -> Probed:
    """Check server and model, then infer once from zeros and short texts; stops at what fails.

    `version` None or empty leaves the choice to the server.
    """
    signature = None
    path = f"/v2/models/{quote(model, safe='')}"
    if version:
        path += f"/versions/{quote(version, safe='')}"
    reports: list[ProbeReport] = []
    try:
        async with Prober(url, credential, policy) as prober:
            await _check_live(prober, reports)
            await _get(prober, f"{path}/ready", reports)
            answer = await _get(prober, path, reports)
            signature = signature_in(answer.body)
            await _infer(prober, path, _described(answer), reports)
    except RequestMalformed as malformed_url:
        reports.append(ProbeReport(check="url", ok=False, detail=malformed_url.detail))
    except _Stopped as stopped:
        reports.append(ProbeReport(check=stopped.check, ok=False, detail=stopped.detail))
    return Probed(reports, signature)


def signature_in(metadata: bytes) -> Signature | None:
    """Return what a model's metadata tells; None where that is less than what it takes and gives,
    or cannot be kept."""
    try:
        told = msgspec.json.decode(metadata, type=_Told)
    except UNREADABLE:
        return None
    if b"\\u0000" in msgspec.json.encode(told):  # which no database takes
        return None
    inputs, outputs = (
        tuple(Tensor(each.name, each.datatype, tuple(each.shape)) for each in tensors)
        for tensors in (told.inputs, told.outputs)
    )
    versions = tuple(each[:_VERSION_MAX] for each in (told.versions or ())[:_VERSIONS_MAX])
    found = Signature(inputs, outputs, versions, (told.platform or "")[:_VERSION_MAX])
    return found if len(msgspec.json.encode(found)) <= _SIGNATURE_BYTES_MAX else None


class _Stopped(Exception):
    """A check failed, and the others would say no more."""

    def __init__(self, check: str, detail: str) -> None:
        super().__init__(detail)
        self.check = check
        self.detail = detail


async def _get(prober: Prober, path: str, reports: list[ProbeReport]) -> Answer:
    """GET what must answer 200, and report it."""
    check = f"GET {path}"
    try:
        answer = await prober.get(path)
    except ProbeFailed as failed:
        raise _Stopped(check, str(failed)) from failed
    if answer.status != 200:
        raise _Stopped(check, answer.quoted())
    reports.append(ProbeReport(check=check, ok=True, latency_ms=answer.latency_ms))
    return answer


async def _check_live(prober: Prober, reports: list[ProbeReport]) -> None:
    """Live is a must; ready as a whole is not, for Triton is not while any of its models is not."""
    await _get(prober, "/v2/health/live", reports)
    check = "GET /v2/health/ready"
    try:
        answer = await prober.get("/v2/health/ready")
    except ProbeFailed as failed:
        raise _Stopped(check, str(failed)) from failed
    detail = "" if answer.status == 200 else f"not ready as a whole: {answer.quoted()}"
    reports.append(ProbeReport(check=check, ok=True, detail=detail, latency_ms=answer.latency_ms))


def _described(answer: Answer) -> _Metadata:
    try:
        return msgspec.json.decode(answer.body, type=_Metadata)
    except UNREADABLE as error:
        raise _Stopped("model metadata", f"{error}; {answer.quoted()}") from error


async def _infer(
    prober: Prober, path: str, metadata: _Metadata, reports: list[ProbeReport]
) -> None:
    check = f"POST {path}/infer"
    # importing tritonclient takes a second, and its request bodies are what consumers will send
    triton: Any = await asyncio.to_thread(import_module, "tritonclient.http")
    binary = await _speaks_binary(prober)
    inputs = []
    left = _ELEMENTS_MAX
    for tensor in metadata.inputs:
        shape = [max(size, 1) for size in tensor.shape]
        numbers = _zeros(tensor.datatype, shape, left, binary=binary)
        left -= math.prod(shape)
        if numbers is None:
            words = f"the model was not called, for no input is made up for {tensor.datatype}"
            raise _Stopped(check, f"{NOT_CHECKED}{words} {tensor.shape}")
        made = triton.InferInput(tensor.name, shape, tensor.datatype)
        inputs.append(made.set_data_from_numpy(numbers, binary_data=binary))
    body, header_length = triton.InferenceServerClient.generate_request_body(inputs)
    headers = {"content-type": "application/json"}
    if header_length is not None:
        headers = {"content-type": "application/octet-stream", _LENGTH_NAME: str(header_length)}
    try:
        answer = await prober.post(f"{path}/infer", body, headers)
    except ProbeFailed as failed:
        raise _Stopped(check, str(failed)) from failed
    fault = _fault_of(answer, triton)
    if fault is not None:
        raise _Stopped(check, fault)
    reports.append(ProbeReport(check=check, ok=True, latency_ms=answer.latency_ms))


def _fault_of(answer: Answer, triton: Any) -> str | None:
    """Return what is wrong with an answer to an infer call, None when nothing is."""
    if answer.status != 200:
        return answer.quoted()
    length = answer.headers.get(_LENGTH_NAME)
    try:
        facts = read_infer(None if length is None else length.encode(), answer.body)
        if facts.error is not None:
            return f"an error: {facts.error}"
        result = triton.InferenceServerClient.parse_response_body(
            answer.body, header_length=None if length is None else facts.json_bytes
        )
        outputs = result.get_response()["outputs"]
        sizes = [math.prod(output["shape"]) for output in outputs]
    except AttemptFailed as failed:
        return f"{failed.outcome.detail}; {answer.quoted()}"
    except (ValueError, KeyError, TypeError, triton.InferenceServerException) as error:
        return f"not a KServe answer: {error!r}; {answer.quoted()}"
    return None if any(sizes) else f"every output is empty; {answer.quoted()}"


async def _speaks_binary(prober: Prober) -> bool:
    """True when the server announces the binary tensor extension."""
    try:
        answer = await prober.get("/v2")
        return "binary_tensor_data" in msgspec.json.decode(answer.body, type=_Server).extensions
    except (ProbeFailed, msgspec.MsgspecError, UnicodeDecodeError):
        return False


def _zeros(
    datatype: str, shape: list[int], elements_max: int, *, binary: bool
) -> np.ndarray[Any, Any] | None:
    """Return zeros or short texts; None for an unknown datatype or too large a tensor."""
    if datatype == "BYTES":
        elements_max = min(elements_max, _TEXTS_MAX)
    if math.prod(shape) > elements_max or (datatype == "BF16" and not binary):
        return None
    if datatype == "BYTES":
        return np.full(shape, _TEXT, dtype=np.object_)
    numpy_type = import_module("tritonclient.utils").triton_to_np_dtype(datatype)
    return None if numpy_type is None else np.zeros(shape, dtype=numpy_type)
