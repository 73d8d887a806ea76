"""An identity model behind the KServe v2 protocol, Triton's binary tensor extension included."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import msgspec

from provider_sdk.testing.answers import Answer, Chunk
from provider_sdk.testing.script import Script

HEADER_LENGTH = "inference-header-content-length"
_WINDOW_BITS = {"gzip": 31, "deflate": 15}
_FORMATS = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}


class BadInference(Exception):
    """The request does not follow the protocol; the text says how."""


def server_metadata() -> dict[str, Any]:
    """The answer of `GET /v2`."""
    return {"name": "scripted", "version": "1.0.0", "extensions": ["binary_tensor_data"]}


def model_metadata(name: str, datatype: str) -> dict[str, Any]:
    """The answer of `GET /v2/models/M`."""
    tensor = {"datatype": datatype, "shape": [-1]}
    return {
        "name": name,
        "versions": ["1"],
        "platform": "scripted",
        "inputs": [{"name": "INPUT0", **tensor}],
        "outputs": [{"name": "OUTPUT0", **tensor}],
    }


def infer(named: tuple[str, str], headers: dict[str, str], body: bytes, script: Script) -> Answer:
    """The answer of `POST /v2/models/M/infer`: every input `INPUTx` comes back as `OUTPUTx`.

    `named` is model and version; `script` tells what is wrong with it.
    """
    model, version = named
    body = _decompressed(body, headers.get("content-encoding", ""))
    header_length = int(headers.get(HEADER_LENGTH) or len(body))
    if not 0 < header_length <= len(body):
        raise BadInference(
            f"inference header size should be in range (0, {len(body)}], got: {header_length}"
        )
    try:
        request = msgspec.json.decode(body[:header_length], type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise BadInference(f"failed to parse the request JSON buffer: {error}") from error
    echoed = _outputs(request, body[header_length:])
    if script.wrong_tensor:
        _spoil(echoed, script.wrong_tensor)
    value: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": []}
    if "id" in request:
        value["id"] = "another" if script.wrong_answer else request["id"]
    tail = b""
    for output, raw in echoed:
        value["outputs"].append(output)
        tail += raw or b""
    if script.wrong_tensor == "no_outputs":
        del value["outputs"]
    head = msgspec.json.encode(value)
    encoding = headers.get("accept-encoding", "")
    if not any(raw is not None for _output, raw in echoed):
        return _encoded(Answer("application/json", [Chunk(head)]), encoding)
    length = ((HEADER_LENGTH.encode(), str(len(head)).encode()),)
    answer = Answer("application/octet-stream", [Chunk(head + tail)], headers=length)
    return _encoded(answer, encoding)


def _encoded(answer: Answer, encoding: str) -> Answer:
    """The answer compressed where the caller wants it, the header length that of the plain JSON."""
    if encoding not in _WINDOW_BITS:
        return answer
    deflater = zlib.compressobj(wbits=_WINDOW_BITS[encoding])
    data = b"".join(deflater.compress(chunk.data) for chunk in answer.chunks) + deflater.flush()
    headers = (*answer.headers, (b"content-encoding", encoding.encode()))
    return Answer(answer.content_type, [Chunk(data)], headers=headers)


def _decompressed(body: bytes, encoding: str) -> bytes:
    try:
        if encoding in ("gzip", "deflate"):
            return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(body)
    except zlib.error as error:
        raise BadInference(f"the body is not {encoding}: {error}") from error
    return body


def _outputs(request: dict[str, Any], tail: bytes) -> list[tuple[dict[str, Any], bytes | None]]:
    """Each output's JSON, and its bytes when it goes into the binary tail."""
    wanted = {output["name"]: output for output in request.get("outputs") or []}
    by_default = bool(request.get("parameters", {}).get("binary_data_output", False))
    echoed: list[tuple[dict[str, Any], bytes | None]] = []
    offset = 0
    for tensor in request.get("inputs") or []:
        size = tensor.get("parameters", {}).get("binary_data_size")
        raw = None
        if size is not None:
            raw = tail[offset : offset + size]
            offset += size
            if len(raw) != size:
                raise BadInference(f"unexpected size of input {tensor['name']}")
        name = tensor["name"].replace("INPUT", "OUTPUT")
        if wanted and name not in wanted:
            continue
        parameters = wanted.get(name, {}).get("parameters", {})
        binary = bool(parameters.get("binary_data", by_default))
        echoed.append(_echo(name, tensor, raw, binary))
    if not echoed:
        raise BadInference("the request has no input, or asks for an output that does not exist")
    return echoed


def _spoil(echoed: list[tuple[dict[str, Any], bytes | None]], what: str) -> None:
    """Make the first output other than it should be, or take the last away."""
    output, raw = echoed[0]
    if what == "missing":
        echoed.pop()
    elif what == "datatype":
        output["datatype"] = "INT32" if output["datatype"] != "INT32" else "FP32"
    elif what == "shape":
        output["shape"] = [1, *output["shape"]]
    elif what == "size":
        if raw is not None:
            raw = raw[:-1]
            output["parameters"]["binary_data_size"] = len(raw)
        else:
            output["data"] = output["data"][:-1]
    elif what == "nan":
        if raw is not None:
            raw = b"\xff" * 4 + raw[4:]
        else:
            output["data"] = ["NaN", *output["data"][1:]]
    if echoed:
        echoed[0] = output, raw


def _echo(
    name: str, tensor: dict[str, Any], raw: bytes | None, binary: bool
) -> tuple[dict[str, Any], bytes | None]:
    output = {"name": name, "datatype": tensor["datatype"], "shape": tensor["shape"]}
    if binary:
        if raw is None:
            raw = _pack(tensor["datatype"], _flat(tensor["data"]))
        output["parameters"] = {"binary_data_size": len(raw)}
        return output, raw
    output["data"] = tensor["data"] if raw is None else _unpack(tensor["datatype"], raw)
    return output, None


def _flat(data: Any) -> list[Any]:
    if not isinstance(data, list):
        return [data]
    return [value for item in data for value in _flat(item)]


def _pack(datatype: str, data: list[Any]) -> bytes:
    if datatype == "BYTES":
        texts = [str(value).encode() for value in data]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return struct.pack(f"<{len(data)}{_format(datatype)}", *data)


def _unpack(datatype: str, raw: bytes) -> list[Any]:
    if datatype == "BYTES":
        texts: list[Any] = []
        while raw:
            (length,) = struct.unpack_from("<I", raw)
            texts.append(raw[4 : 4 + length].decode("utf-8", "replace"))
            raw = raw[4 + length :]
        return texts
    return [value for (value,) in struct.iter_unpack(f"<{_format(datatype)}", raw)]


def _format(datatype: str) -> str:
    if datatype not in _FORMATS:
        raise BadInference(f"unsupported datatype {datatype}")
    return _FORMATS[datatype]
