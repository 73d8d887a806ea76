"""The scripted provider does what its script says, over real sockets."""

from __future__ import annotations

import asyncio
import json
import signal
import struct
import sys
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from provider_sdk.testing.answers import EMBEDDING_DIMENSIONS_MAX
from provider_sdk.testing.scripted import (
    Script,
    ScriptedProvider,
    answer_text,
    chat_prompt,
    embedding_vector,
)
from tests.waiting import until

MESSAGES = [{"role": "user", "content": "Name a tree"}]
PROMPT = chat_prompt(MESSAGES)
CHAT = {"model": "scripted", "messages": MESSAGES}
STREAM = {**CHAT, "stream": True}


async def chat(http: httpx.AsyncClient, provider: ScriptedProvider, **more: Any) -> httpx.Response:
    return await http.post(f"{provider.url}/v1/chat/completions", json={**CHAT, **more})


async def read_until_failure(http: httpx.AsyncClient, url: str) -> tuple[bytes, Exception | None]:
    """What of a streamed chat arrives, and how it ends."""
    got = b""
    try:
        async with http.stream("POST", f"{url}/v1/chat/completions", json=STREAM) as answer:
            async for data in answer.aiter_raw():
                got += data
    except httpx.TransportError as error:
        return got, error
    return got, None


async def test_a_chat_answer_depends_on_the_prompt_alone(
    provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    first, again = await chat(http, provider), await chat(http, provider)
    assert first.content == again.content
    answer = first.json()
    assert answer["choices"][0]["message"]["content"] == answer_text(PROMPT, 16)
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"] == {"prompt_tokens": 4, "completion_tokens": 16, "total_tokens": 20}
    assert provider.calls == provider.finished == 2
    assert provider.received[0].json["messages"] == MESSAGES


async def test_a_stream_says_the_same_text_and_usage_only_when_asked(
    provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    for options, usages in (({}, 0), ({"stream_options": {"include_usage": True}}, 1)):
        answer = await chat(http, provider, stream=True, max_tokens=5, **options)
        events = [line[6:] for line in answer.text.split("\n\n") if line]
        assert events.pop() == "[DONE]"
        decoded = [json.loads(event) for event in events]
        deltas = [e["choices"][0]["delta"] for e in decoded if e["choices"]]
        assert deltas[0]["role"] == "assistant"
        text = "".join(delta.get("content") or "" for delta in deltas)
        assert text == answer_text(PROMPT, 5)
        assert sum("usage" in event for event in decoded) == usages
        finished = [e["choices"][0]["finish_reason"] for e in decoded if e["choices"]][-1]
        assert finished == "length"


async def test_tools_and_logprobs_have_a_plausible_shape(
    provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    choice = (await chat(http, provider, tools=tools)).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    called = choice["message"]["tool_calls"][0]["function"]
    assert called["name"] == "weather"
    assert "city" in json.loads(called["arguments"])
    scored = (await chat(http, provider, logprobs=True, top_logprobs=2)).json()["choices"][0]
    assert len(scored["logprobs"]["content"]) == 16
    assert len(scored["logprobs"]["content"][0]["top_logprobs"]) == 2


async def test_completions_and_embeddings_answer(
    provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    body = {"model": "scripted", "prompt": ["a", "b"], "max_tokens": 3}
    texts = (await http.post(f"{provider.url}/v1/completions", json=body)).json()["choices"]
    assert [choice["text"] for choice in texts] == [answer_text("a", 3), answer_text("b", 3)]
    body = {"model": "scripted", "input": ["x"], "encoding_format": "float"}
    data = (await http.post(f"{provider.url}/v1/embeddings", json=body)).json()["data"]
    assert data[0]["embedding"] == embedding_vector("x")
    body |= {"dimensions": 10**6}
    data = (await http.post(f"{provider.url}/v1/embeddings", json=body)).json()["data"]
    assert len(data[0]["embedding"]) == EMBEDDING_DIMENSIONS_MAX


@pytest.mark.parametrize("status", [400, 429, 500, 503])
async def test_a_status_is_answered_with_its_retry_after(
    provider: ScriptedProvider, http: httpx.AsyncClient, status: int
) -> None:
    provider.script = Script(status=status, retry_after_s=2, body="nope")
    answer = await chat(http, provider)
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "2")
    assert answer.text == "nope"


async def test_refusing_and_listening_again_take_effect_at_once(
    provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    for _ in range(3):
        assert (await chat(http, provider)).status_code == 200
        provider.script = Script(refuse=True)
        with pytest.raises(httpx.TransportError):  # the pooled connection is gone, too
            await chat(http, provider)
        with pytest.raises(httpx.ConnectError):
            await chat(http, provider)
        provider.script = Script()


async def test_a_killed_provider_breaks_the_calls_under_way(
    provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    provider.script = Script(stall_after_chunks=2)
    reading = asyncio.create_task(read_until_failure(http, provider.url))
    await until(lambda: provider.in_flight == 1)
    provider.kill()
    _got, error = await reading
    assert isinstance(error, httpx.TransportError)
    await until(lambda: provider.in_flight == 0)


async def test_a_reset_comes_before_a_byte_of_the_answer(
    provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    provider.script = Script(reset=True)
    with pytest.raises(httpx.ReadError):
        await chat(http, provider)
    assert provider.calls == 1


@pytest.mark.parametrize("by_reset", [False, True])
async def test_a_cut_stream_ends_after_so_many_chunks(
    provider: ScriptedProvider, http: httpx.AsyncClient, by_reset: bool
) -> None:
    provider.script = Script(cut_after_chunks=3, byte_interval_ms=0, cut_by_reset=by_reset)
    got, error = await read_until_failure(http, provider.url)
    assert isinstance(error, httpx.TransportError)
    if not by_reset:  # a RST may overtake what was sent
        assert got.count(b"data: ") == 3
    assert provider.finished == 0


async def test_a_body_is_cut_after_so_many_bytes(
    provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    provider.script = Script(cut_after_bytes=10)
    got, error = await read_until_failure(http, provider.url)
    assert len(got) == 10
    assert isinstance(error, httpx.RemoteProtocolError)


@pytest.mark.parametrize(
    ("script", "chunks"), [(Script(stall=True), 0), (Script(stall_after_chunks=2), 2)]
)
async def test_a_stall_lasts_until_the_caller_leaves(
    provider: ScriptedProvider, http: httpx.AsyncClient, script: Script, chunks: int
) -> None:
    provider.script = script
    got: list[bytes] = []

    async def read() -> None:
        url = f"{provider.url}/v1/chat/completions"
        async with http.stream("POST", url, json=STREAM) as answer:
            async for data in answer.aiter_raw():
                got.append(data)  # noqa: PERF401 - what came before the timeout counts

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(read(), 0.3)
    assert b"".join(got).count(b"data: ") == chunks
    await until(lambda: provider.cancelled == 1 and provider.in_flight == 0)


async def test_malformed_answers_are_malformed(
    provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    provider.script = Script(malformed_json=True)
    with pytest.raises(json.JSONDecodeError):
        (await chat(http, provider)).json()
    provider.script = Script(malformed_sse=True)
    events = (await chat(http, provider, stream=True)).content.split(b"\n\n")
    assert sum(not event.startswith(b"data: ") for event in events if event) == 16
    provider.script = Script(wrong_content_type=True)
    assert (await chat(http, provider)).headers["content-type"] == "text/html"
    provider.script = Script(empty=True)
    answer = await chat(http, provider)
    assert (answer.status_code, answer.content) == (200, b"")


async def test_what_is_left_out_is_left_out(
    provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    provider.script = Script(omit_usage=True, omit_done=True, omit_finish_reason=True)
    assert "usage" not in (await chat(http, provider)).json()
    options = {"include_usage": True}
    text = (await chat(http, provider, stream=True, stream_options=options)).text
    assert "[DONE]" not in text
    assert "usage" not in text
    assert '"finish_reason":"' not in text


async def test_usage_lies_by_its_factor(
    provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    provider.script = Script(usage_factor=3.0)
    assert (await chat(http, provider)).json()["usage"]["completion_tokens"] == 48


async def test_an_error_and_garbage_appear_inside_a_stream(
    provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    provider.script = Script(error_after_chunks=2)
    events = (await chat(http, provider, stream=True)).text.strip().split("\n\n")
    assert len(events) == 3
    assert "error" in json.loads(events[-1][6:])
    provider.script = Script(garbage_mb=1.5)
    assert len((await chat(http, provider, stream=True)).content) > 1_500_000


async def test_bytes_come_one_by_one_when_told(
    provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    provider.script = Script(byte_interval_ms=0, output_tokens=1)
    assert (await chat(http, provider)).json()["choices"][0]["message"]["content"]


async def test_capacity_queues_and_then_refuses(
    provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    provider.script = Script(capacity=2, queue_limit=1, stall=True)
    held = [asyncio.create_task(chat(http, provider)) for _ in range(3)]
    await until(lambda: provider.running == 2 and provider.waiting == 1)
    refused = await chat(http, provider)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    metrics = (await http.get(f"{provider.url}/metrics")).text
    assert 'vllm:num_requests_running{engine="0",model_name="scripted"} 2.0' in metrics
    assert 'vllm:num_requests_waiting{engine="0",model_name="scripted"} 1.0' in metrics
    held[0].cancel()
    await until(lambda: provider.waiting == 0)
    assert provider.running == 2
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    await until(lambda: provider.in_flight == 0)


async def test_a_sequence_is_played_once_and_then_the_script_holds(
    provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    provider.script = Script(sequence=(Script(status=500), Script(status=429)))
    statuses = [(await chat(http, provider)).status_code for _ in range(4)]
    assert statuses == [500, 429, 200, 200]


async def test_a_fault_rate_is_the_same_for_the_same_seed(
    provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    runs = []
    for _ in range(2):
        provider.script = Script(status=500, fault_rate=0.5, seed=7)
        runs.append([(await chat(http, provider)).status_code for _ in range(12)])
    assert runs[0] == runs[1]
    assert set(runs[0]) == {200, 500}


async def test_a_connection_is_closed_without_a_word_when_told(
    provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    provider.script = Script(close_after_answer=True)
    answer = await chat(http, provider)
    assert "connection" not in answer.headers
    reader, writer = await asyncio.open_connection("127.0.0.1", provider.port)
    body = json.dumps(CHAT).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()


async def test_the_side_paths_answer(provider: ScriptedProvider, http: httpx.AsyncClient) -> None:
    well_known = f"{provider.url}/.well-known/model-broker"
    assert (await http.get(well_known)).status_code == 404
    provider.script = Script(models=("a", "b"), nonce="n-1", api_key="sk", healthy=False)
    assert (await http.get(well_known)).text == "n-1"
    assert (await http.get(f"{provider.url}/health")).status_code == 503
    assert (await http.get(f"{provider.url}/v1/models")).status_code == 401
    assert (await http.get(f"{provider.url}/metrics")).status_code == 401
    key = {"authorization": "Bearer sk"}
    models = (await http.get(f"{provider.url}/v1/models", headers=key)).json()
    assert [model["id"] for model in models["data"]] == ["a", "b"]
    assert (await chat(http, provider)).status_code == 401
    assert provider.calls == 1


async def test_a_malformed_request_is_answered_and_not_fatal(provider: ScriptedProvider) -> None:
    for garbage in (b"BLAH\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"y" * 50_000):
        reader, writer = await asyncio.open_connection("127.0.0.1", provider.port)
        writer.write(garbage)
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
        writer.close()
        await writer.wait_closed()


async def test_kserve_echoes_json_and_binary_tensors(http: httpx.AsyncClient) -> None:
    async with ScriptedProvider(Script(kind="kserve", models=("echo",))) as provider:
        base = f"{provider.url}/v2"
        assert (await http.get(base)).json()["name"] == "scripted"
        assert (await http.get(f"{base}/health/ready")).status_code == 200
        assert (await http.get(f"{base}/models/echo/ready")).status_code == 200
        assert (await http.get(f"{base}/models/echo")).json()["name"] == "echo"
        assert (await http.get(f"{base}/models/other")).status_code == 404
        tensor = {"name": "INPUT0", "datatype": "FP32", "shape": [2]}
        plain = {"inputs": [{**tensor, "data": [1.5, 2.5]}]}
        answer = (await http.post(f"{base}/models/echo/infer", json=plain)).json()
        assert answer["outputs"][0]["data"] == [1.5, 2.5]
        raw = struct.pack("<2f", 1.5, 2.5)
        head = json.dumps(
            {
                "inputs": [{**tensor, "parameters": {"binary_data_size": 8}}],
                "outputs": [{"name": "OUTPUT0", "parameters": {"binary_data": True}}],
            }
        ).encode()
        binary = await http.post(
            f"{base}/models/echo/infer",
            content=head + raw,
            headers={"Inference-Header-Content-Length": str(len(head))},
        )
        length = int(binary.headers["Inference-Header-Content-Length"])
        assert binary.content[length:] == raw
        assert (await http.post(f"{base}/models/echo/infer", content=b"{")).status_code == 400
        assert (
            "nv_inference_pending_request_count" in (await http.get(f"{provider.url}/metrics")).text
        )


async def test_the_process_form_serves_its_script_and_stops_on_sigterm(
    tmp_path: Path, http: httpx.AsyncClient
) -> None:
    told = tmp_path / "script.json"
    told.write_bytes(msgspec.json.encode(Script(status=418, sequence=(Script(),))))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "provider_sdk.testing.scripted", "--script", str(told)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        url = (await asyncio.wait_for(process.stdout.readline(), 10)).decode().strip()
        statuses = [
            (await http.post(f"{url}/v1/chat/completions", json=CHAT)).status_code for _ in "12"
        ]
        assert statuses == [200, 418]
    finally:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
