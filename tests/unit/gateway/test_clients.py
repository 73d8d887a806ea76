"""What clients send by themselves, byte for byte: taken, and passed on but for what is ours."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from broker.core.call import OpenAiBody
from broker.errors import RequestMalformed
from broker.gateway.openai import parse

CHAT = "/v1/chat/completions"
HELLO = b'"messages":[{"content":"hello","role":"user"}]'
SENT = {
    "openai_1_with_no_tools": (
        CHAT,
        (
            b'{"messages": [{"role": "user", "content": "Say hello."}], "model": "m",'
            b' "max_tokens": 8, "tools": []}'
        ),
    ),
    "openai_3_with_what_openai_alone_knows": (
        CHAT,
        (
            b'{"model":"m","service_tier":"auto","messages":[{"role":"developer",'
            b'"content":"be brief"},{"role":"user","content":[{"type":"text","text":"hello"}],'
            b'"name":"joe"}],"frequency_penalty":0,"logit_bias":{"1":1},"max_completion_tokens":5,'
            b'"metadata":{"a":"b"},"parallel_tool_calls":true,"presence_penalty":0,"seed":1,'
            b'"stop":["x"],"store":true,"temperature":0,"top_p":1,"user":"u"}'
        ),
    ),
    "openai_3_with_a_tool_s_result": (
        CHAT,
        (
            b'{"model":"m","messages":[{"role":"user","content":"hi"},{"role":"assistant",'
            b'"content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f",'
            b'"arguments":"{\\"city\\":\\"Rome\\"}"}}]},{"role":"tool","tool_call_id":"a",'
            b'"content":"sunny"}]}'
        ),
    ),
    "langchain_s_chat": (
        CHAT,
        b'{"model":"m","stream":true,' + HELLO + b',"max_completion_tokens":20,'
        b'"stream_options":{"include_usage":true}}',
    ),
    "langchain_s_completion": (
        "/v1/completions",
        (
            b'{"model":"m","prompt":["once"],"frequency_penalty":0,"logprobs":null,"max_tokens":5,'
            b'"n":1,"presence_penalty":0,"seed":null,"temperature":0.7,"top_p":1}'
        ),
    ),
    "langchain_s_tokens_to_embed": (
        "/v1/embeddings",
        b'{"model":"m","input":[[15339,11],[15340]],"encoding_format":"base64"}',
    ),
    "openai_agents": (
        CHAT,
        b'{"model":"m",' + HELLO + b',"max_tokens":10,"metadata":{"a":"b"},"store":true,'
        b'"temperature":0.1,"top_p":0.5}',
    ),
    "an_image_of_vercel_s": (
        CHAT,
        (
            b'{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"what?"},'
            b'{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}}]}]}'
        ),
    ),
    "guidance": (
        CHAT,
        b'{"model":"m","stream":true,' + HELLO + b',"logprobs":true,"max_completion_tokens":10,'
        b'"stream_options":{"include_usage":true},"tools":null,"top_logprobs":5}',
    ),
    "vercel_s_structured_output": (
        CHAT,
        b'{"model":"m","max_tokens":80,"response_format":{"type":"json_schema","json_schema":'
        b'{"schema":{"$schema":"http://json-schema.org/draft-07/schema#","type":"object",'
        b'"properties":{"city":{"type":"string"}}},"strict":true,"name":"response"}},'
        + HELLO
        + b"}",
    ),
}
OURS = {"model", "broker", "service_tier", "stream", "stream_options"}
"""Told anew, or between the caller and the broker alone."""


@pytest.mark.parametrize("client", SENT)
def test_what_a_client_sends_is_taken_and_goes_on_as_it_is(client: str) -> None:
    path, sent = SENT[client]
    asked = parse(path, [], sent)
    assert isinstance(asked.body, OpenAiBody)
    told: dict[str, Any] = json.loads(asked.body.render("its-own", asked.tokens_out_max))
    members = json.loads(sent)
    assert {name: told.get(name) for name in members if name not in OURS} == {
        name: value for name, value in members.items() if name not in OURS
    }
    assert told.keys() - members.keys() <= OURS, "nothing is added that the client did not say"
    assert told["model"] == "its-own"


def test_who_sends_a_compressed_body_is_told_that_none_is_taken() -> None:
    packed = gzip.compress(b'{"model":"m",' + HELLO + b"}")
    with pytest.raises(RequestMalformed, match="compressed, which is taken under /v2 alone"):
        parse(CHAT, [(b"content-encoding", b"gzip")], packed)
