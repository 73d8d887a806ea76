"""The clients people use take the scripted provider for a real one."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import openai
import pytest
import tritonclient.http as triton

from provider_sdk.front import Front
from provider_sdk.testing.scripted import (
    Script,
    ScriptedProvider,
    answer_text,
    chat_prompt,
    embedding_vector,
)

MESSAGES: list[Any] = [{"role": "user", "content": "Name a tree"}]


async def test_the_openai_client_talks_to_it(provider: ScriptedProvider) -> None:
    expected = answer_text(chat_prompt(MESSAGES))
    async with openai.AsyncOpenAI(base_url=f"{provider.url}/v1", api_key="x") as client:
        whole = await client.chat.completions.create(model="scripted", messages=MESSAGES)
        assert whole.choices[0].message.content == expected
        stream = await client.chat.completions.create(
            model="scripted",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
            logprobs=True,
            top_logprobs=1,
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == expected
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 16
        # the client asks for base64 of float32 by itself
        vectors = await client.embeddings.create(model="scripted", input="x")
        assert vectors.data[0].embedding == pytest.approx(embedding_vector("x"), abs=1e-6)
        assert [model.id async for model in client.models.list()] == ["scripted"]
        provider.script = Script(status=429)
        with pytest.raises(openai.RateLimitError):
            await client.with_options(max_retries=0).chat.completions.create(
                model="scripted", messages=MESSAGES
            )


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
async def test_the_triton_client_talks_to_it_directly_and_through_a_front(
    binary: bool, compression: str | None
) -> None:
    def talk(address: str) -> None:
        with triton.InferenceServerClient(address) as client:
            assert client.is_server_ready()
            assert client.is_model_ready("echo")
            numbers = np.array([[1.5, -2.0]], dtype=np.float32)
            texts = np.array(["tree", "bäume"], dtype=np.object_)
            inputs = [
                triton.InferInput("INPUT0", list(numbers.shape), "FP32"),
                triton.InferInput("INPUT1", list(texts.shape), "BYTES"),
            ]
            inputs[0].set_data_from_numpy(numbers, binary_data=binary)
            inputs[1].set_data_from_numpy(texts, binary_data=binary)
            result = client.infer("echo", inputs, request_compression_algorithm=compression)
            np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), numbers)
            echoed = [text.decode() for text in result.as_numpy("OUTPUT1")]
            assert echoed == ["tree", "bäume"]

    async with ScriptedProvider(Script(kind="kserve", models=("echo",))) as provider:
        await asyncio.to_thread(talk, provider.url.removeprefix("http://"))
        assert provider.calls == 1
        front = Front(provider.url, prefix="/llm")
        front.open()
        await asyncio.to_thread(talk, f"127.0.0.1:{front.port}/llm")
        await front.close()
        assert provider.calls == 2
        direct, fronted = provider.work_received
        encoding = "content-encoding"
        assert direct.headers.get(encoding) == fronted.headers.get(encoding) == compression
