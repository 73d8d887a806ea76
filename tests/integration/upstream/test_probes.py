"""Probes against servers that answer well, badly, and not at all."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Mapping
from typing import Any, cast

import httpx
import pytest

from broker.core.wire.signature import Signature, Tensor
from broker.upstream import checked_httpx
from broker.upstream.addresses import AddressPolicy
from broker.upstream.probe import probe_dns, probe_kserve, probe_openai, probe_wellknown
from broker.upstream.probe_kserve import NOT_CHECKED, signature_in
from provider_sdk.protocol import ProbeReport, Task
from tests.integration.upstream.scripted import LOOPBACK, Server, answering, read_request, serving

NONCE = "n0nce"
COMPLETION = {"choices": [{"message": {"content": "ok"}, "text": "ok", "finish_reason": "stop"}]}
EMBEDDINGS = {"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 1}}
MODELS = {"object": "list", "data": [{"id": "m"}, {"id": "n"}]}


def answer(status: int, body: object, headers: str = "") -> bytes:
    """Return a whole answer."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status} X\r\n{headers}content-length: {len(raw)}\r\n\r\n".encode() + raw


def routes(table: Mapping[str, bytes | Callable[[bytes], bytes]]) -> Any:
    """Serve a table of paths, 404 for the rest."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            path = request.split(b" ")[1].decode()
            found = table.get(path, answer(404, {"detail": "Not Found"}))
            writer.write(found if isinstance(found, bytes) else found(request))
            await writer.drain()

    return serving(handle)


def url_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


def failures(reports: list[ProbeReport]) -> list[tuple[str, str]]:
    """Return check and detail of what failed."""
    return [(report.check, report.detail) for report in reports if not report.ok]


async def test_the_right_nonce_proves_the_origin_and_a_wrong_one_is_quoted() -> None:
    async with routes({"/.well-known/model-broker": answer(200, b"n0nce\n")}) as server:
        report = await probe_wellknown(url_of(server) + "/llm", NONCE, LOOPBACK)
        assert report.ok
        assert report.latency_ms is not None
        report = await probe_wellknown(url_of(server), "other", LOOPBACK)
        assert not report.ok
        assert "status 200: n0nce" in report.detail


async def test_a_redirect_proves_nothing() -> None:
    async with answering(answer(200, NONCE.encode())) as target:
        away = answer(302, b"", f"location: {url_of(target)}/\r\n")
        async with routes({"/.well-known/model-broker": away}) as server:
            report = await probe_wellknown(url_of(server), NONCE, LOOPBACK)
            assert not report.ok
            assert "status 302" in report.detail
            assert target.connections == 0


async def test_probes_connect_to_no_private_address() -> None:
    async with answering(answer(200, NONCE.encode())) as server:
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
            url = f"http://{host}:{server.port}"
            report = await probe_wellknown(url, NONCE, AddressPolicy())
            assert not report.ok
            assert "not allowed" in report.detail
            reports = await probe_openai(url, None, "m", ["chat"], AddressPolicy())
            assert len(failures(reports)) == 2
            reports, _ = await probe_kserve(url, None, "m", "1", AddressPolicy())
            assert len(failures(reports)) == 1
        assert server.connections == 0


async def test_an_unusable_url_is_reported() -> None:
    for url in ("ftp://x", "http://u:p@x", "http://"):
        assert not (await probe_wellknown(url, NONCE, LOOPBACK)).ok
        assert failures(await probe_openai(url, None, "m", ["chat"], LOOPBACK))
        assert failures((await probe_kserve(url, None, "m", None, LOOPBACK)).reports)


async def test_the_checked_transport_serves_httpx_and_maps_what_fails() -> None:
    async with answering(answer(200, b"ok")) as server:
        async with httpx.AsyncClient(transport=checked_httpx.transport(LOOPBACK)) as client:
            assert (await client.get(url_of(server))).text == "ok"
            with pytest.raises(httpx.ConnectError, match="not resolved"):
                await client.get("http://nowhere.invalid/")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            async with httpx.AsyncClient(transport=checked_httpx.transport(LOOPBACK)) as client:
                with pytest.raises(httpx.ConnectError):
                    await client.get(f"http://127.0.0.1:{taken.getsockname()[1]}/")


async def test_a_good_openai_server_passes_every_task() -> None:
    requests: list[bytes] = []

    def note(body: object) -> Callable[[bytes], bytes]:
        def reply(request: bytes) -> bytes:
            requests.append(request)
            return answer(200, body)

        return reply

    table = {
        "/llm/v1/models": note(MODELS),
        "/llm/v1/chat/completions": note(COMPLETION),
        "/llm/v1/completions": note(COMPLETION),
        "/llm/v1/embeddings": note(EMBEDDINGS),
    }
    async with routes(table) as server:
        tasks: list[Task] = ["chat", "completion", "embedding"]
        reports = await probe_openai(url_of(server) + "/llm/", "s3cret", "m", tasks, LOOPBACK)
    assert failures(reports) == []
    assert [report.check for report in reports] == [
        "GET /v1/models",
        "POST /v1/chat/completions",
        "POST /v1/completions",
        "POST /v1/embeddings",
    ]
    assert all(report.latency_ms is not None for report in reports)
    assert all(b"authorization: bearer s3cret" in request.lower() for request in requests)
    assert json.loads(requests[1].partition(b"\r\n\r\n")[2])["model"] == "m"


async def test_an_openai_report_says_what_failed() -> None:
    cases: list[tuple[bytes, str]] = [
        (answer(401, {"error": {"message": "bad key"}}), 'status 401: {"error": {"message"'),
        (answer(500, b"x" * 999), "status 500: " + "x" * 200),
        (answer(200, b"<html>"), "status 200: <html>"),
        (answer(200, {"error": "no GPU"}), "an error: no GPU"),
        (answer(200, {"choices": [{"message": {"content": "x"}}]}), "no finish_reason"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx", "RemoteProtocolError"),
    ]
    for reply, words in cases:
        async with answering(answer(404, b""), reply, close=True) as server:
            reports = await probe_openai(url_of(server), None, "m", ["chat"], LOOPBACK)
        assert [report.ok for report in reports] == [True, False]
        assert "no list of models" in reports[0].detail
        assert words in reports[1].detail
        assert len(reports[1].detail) < 500


async def test_a_model_missing_from_the_list_is_named_with_those_there_are() -> None:
    table: dict[str, Any] = {
        "/v1/models": answer(200, MODELS),
        "/v1/chat/completions": answer(200, COMPLETION),
    }
    async with routes(table) as server:
        reports = await probe_openai(url_of(server), None, "x", ["chat", "infer"], LOOPBACK)
    assert failures(reports) == [
        ("GET /v1/models", "there is no 'x' among 2 models: ['m', 'n']"),
        ("infer", "an OpenAI-compatible server has no such task"),
    ]


def triton(binary: bool, size: int = 2) -> dict[str, Any]:
    """Return the routes of a small KServe server that adds up what it gets."""
    metadata = {
        "name": "m",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "t", "datatype": "BYTES", "shape": [-1, 1]},
        ],
    }

    def infer(request: bytes) -> bytes:
        head, _, body = request.partition(b"\r\n\r\n")
        length = head.lower().partition(b"inference-header-content-length: ")[2].split(b"\r\n")[0]
        assert bool(length) == binary
        asked = json.loads(body[: int(length)] if length else body)
        assert [(each["name"], each["shape"]) for each in asked["inputs"]] == [
            ("x", [1, 3]),
            ("t", [1, 1]),
        ]
        if binary:
            assert body[int(length) :] == bytes(12) + b"\5\0\0\0probe"
        else:
            assert [each["data"] for each in asked["inputs"]] == [[0.0] * 3, ["probe"]]
        output = {"name": "y", "datatype": "FP32", "shape": [size], "data": [0.5] * size}
        return answer(200, {"model_name": "m", "outputs": [output]})

    return {
        "/v2": answer(200, {"extensions": ["binary_tensor_data"] if binary else []}),
        "/v2/health/live": answer(200, b""),
        "/v2/health/ready": answer(200, b""),
        "/v2/models/m/versions/1/ready": answer(200, b""),
        "/v2/models/m/versions/1": answer(200, metadata),
        "/v2/models/m/versions/1/infer": infer,
    }


@pytest.mark.parametrize("binary", [True, False])
async def test_a_good_kserve_server_is_described_and_called(binary: bool) -> None:
    async with routes(triton(binary)) as server:
        reports, _ = await probe_kserve(url_of(server), None, "m", "1", LOOPBACK)
    assert failures(reports) == []
    assert [report.check for report in reports] == [
        "GET /v2/health/live",
        "GET /v2/health/ready",
        "GET /v2/models/m/versions/1/ready",
        "GET /v2/models/m/versions/1",
        "POST /v2/models/m/versions/1/infer",
    ]


@pytest.mark.parametrize(
    ("path", "reply", "words"),
    [
        ("/v2/health/live", answer(503, b"starting"), "status 503: starting"),
        ("/v2/models/m/versions/1/ready", answer(400, b""), "status 400"),
        ("/v2/models/m/versions/1", answer(200, b"[]"), "status 200: []"),
        ("/v2/models/m/versions/1/infer", answer(400, {"error": "shape"}), '{"error": "shape"}'),
        ("/v2/models/m/versions/1/infer", answer(200, {"error": "shape"}), "an error: shape"),
        ("/v2/models/m/versions/1/infer", answer(200, b"{}"), "not a KServe answer"),
        ("/v2/models/m/versions/1/infer", answer(200, b"junk"), "not a KServe answer"),
        ("/v2/models/m/versions/1/infer", answer(200, b""), "an empty answer"),
    ],
)
async def test_a_kserve_report_stops_at_what_failed(path: str, reply: bytes, words: str) -> None:
    async with routes({**triton(binary=True), path: reply}) as server:
        reports, _ = await probe_kserve(url_of(server), None, "m", "1", LOOPBACK)
    assert [report.ok for report in reports[:-1]] == [True] * (len(reports) - 1)
    assert not reports[-1].ok
    assert words in reports[-1].detail


async def test_what_a_model_declares_is_found_where_it_tells_all_of_it() -> None:
    tensors = [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    whole = {"name": "m", "versions": None, "inputs": tensors, "outputs": tensors}
    for metadata, known in (
        (whole, True),
        ({"inputs": tensors}, False),
        (whole | {"outputs": [{"name": "y"}]}, False),
        (whole | {"platform": "\0"}, False),
        (whole | {"inputs": [{**tensors[0], "name": "x" * 200}] * 100}, False),
    ):
        x = Tensor("x", "FP32", (-1, 3))
        expected = Signature((x,), (x,)) if known else None
        assert signature_in(json.dumps(metadata).encode()) == expected
    async with routes(triton(binary=True)) as server:
        reports, signature = await probe_kserve(url_of(server), None, "m", "1", LOOPBACK)
    assert failures(reports) == []
    assert signature is None, "it tells of its inputs alone"


async def test_a_server_whose_other_models_are_not_ready_passes_with_a_note() -> None:
    table = {**triton(binary=True), "/v2/health/ready": answer(400, b"")}
    async with routes(table) as server:
        reports, _ = await probe_kserve(url_of(server), None, "m", "1", LOOPBACK)
    assert failures(reports) == []
    assert "not ready as a whole" in reports[1].detail


async def test_outputs_that_are_all_empty_fail() -> None:
    async with routes(triton(binary=True, size=0)) as server:
        reports, _ = await probe_kserve(url_of(server), None, "m", "1", LOOPBACK)
    assert "every output is empty" in reports[-1].detail


async def test_a_model_for_which_no_input_can_be_made_up_has_not_passed() -> None:
    for datatype, shape in (("FP7", [1]), ("FP32", [9999, 9999])):
        metadata = {"inputs": [{"name": "x", "datatype": datatype, "shape": shape}]}
        table = {**triton(binary=True), "/v2/models/m/versions/1": answer(200, metadata)}
        async with routes(table) as server:
            reports, _ = await probe_kserve(url_of(server), None, "m", "1", LOOPBACK)
        assert not reports[-1].ok
        assert reports[-1].detail.startswith(NOT_CHECKED)
        assert f"{datatype} {shape}" in reports[-1].detail


async def test_what_is_made_up_stays_small_whatever_inputs_a_server_tells_of() -> None:
    numbers = {"name": "x", "datatype": "FP64", "shape": [4_194_304]}
    texts = {"name": "x", "datatype": "BYTES", "shape": [4_194_304]}
    deep = {"name": "x", "datatype": "FP32", "shape": [1] * 65}
    for inputs, words in (
        ([numbers, numbers], NOT_CHECKED),
        ([texts], NOT_CHECKED),
        ([deep], "length <= 32"),
        ([{**deep, "shape": [1]}] * 257, "length <= 256"),
    ):
        table = {**triton(binary=True), "/v2/models/m/versions/1": answer(200, {"inputs": inputs})}
        async with routes(table) as server:
            reports, _ = await probe_kserve(url_of(server), None, "m", "1", LOOPBACK)
        assert words in reports[-1].detail


class NameServer(asyncio.DatagramProtocol):
    """Answers every TXT question with one text, or that there is no such name."""

    def __init__(self, text: bytes | None) -> None:
        self.text = text

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        question = data[12 : data.index(b"\0", 12) + 5]
        flags = b"\x81\x80" if self.text is not None else b"\x81\x83"
        found = b""
        if self.text is not None:
            rdata = bytes([len(self.text)]) + self.text
            found = b"\xc0\x0c\0\x10\0\1\0\0\0\0" + len(rdata).to_bytes(2, "big") + rdata
        counts = b"\0\1" + (b"\0\1" if found else b"\0\0") + b"\0\0\0\0"
        self.transport.sendto(data[:2] + flags + counts + question + found, addr)


@pytest.mark.parametrize(
    ("text", "ok", "words"),
    [(b"n0nce", True, ""), (b"other", False, "other"), (None, False, "does not exist")],
)
async def test_a_txt_record_with_the_nonce_proves_the_name(
    text: bytes | None, ok: bool, words: str
) -> None:
    pytest.importorskip("dns")
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: NameServer(text), local_addr=("127.0.0.1", 0)
    )
    try:
        address = transport.get_extra_info("sockname")
        report = await probe_dns("a.example", NONCE, address)
    finally:
        transport.close()
    assert report.ok == ok
    assert words in report.detail
    assert ok or "_model-broker.a.example" in report.detail
