"""What goes upstream is what was priced: the same slices, the broker's own members replaced."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from broker.core.call import (
    READ_BYTES_MAX,
    ROLE_TOKENS,
    OpenAiBody,
    tokens_in_bound,
    tokens_in_expected,
)
from broker.core.wire.images import IMAGE_TOKENS_MOST

decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def body(text: bytes, *, stream: bool = False) -> OpenAiBody:
    return OpenAiBody(b"/v1/chat/completions", decode(text), len(text), stream, False, 1)


def rendered(text: bytes, tokens_out_max: int | None = None, **how: Any) -> bytes:
    return body(text, **how).render("their-name", tokens_out_max)


def test_the_model_is_replaced_by_the_providers_name_of_it() -> None:
    assert rendered(b'{"messages":[1],"model":"auto"}') == b'{"model":"their-name","messages":[1]}'


def test_a_name_that_needs_escaping_is_escaped() -> None:
    made = body(b'{"model":"x"}').render('a"b\\c', None)
    assert json.loads(made) == {"model": 'a"b\\c'}


def test_wishes_to_the_broker_stay_with_the_broker() -> None:
    assert b"broker" not in rendered(b'{"model":"x","broker":{"domain":"law"},"messages":[]}')


@pytest.mark.parametrize(
    "slice_",
    [
        b'[ {"role" : "user"} ]',
        b'"\\u00e9\\n"',
        '"é"'.encode(),
        b"1.50",
        b"1e2",
        b"123456789012345678901234567890",
        b"null",
        b'{"a":1,"a":2}',
    ],
)
def test_what_the_broker_does_not_know_goes_through_byte_for_byte(slice_: bytes) -> None:
    assert b'"unknown":' + slice_ + b"}" in rendered(b'{"model":"x","unknown": ' + slice_ + b" }")


def test_of_a_member_that_stands_twice_the_one_that_was_read_is_the_one_that_is_sent() -> None:
    text = b'{"model":"x","n":1,"messages":["a"],"n":4,"messages":["b"]}'
    made = body(text)
    assert msgspec.json.decode(made.members["n"]) == 4
    assert made.prompt_text() == "b"
    assert made.render("m", None) == b'{"model":"m","n":4,"messages":["b"]}'


def test_an_escaped_name_is_the_same_name() -> None:
    made = rendered(b'{"model":"x","max\\u005ftokens":100000,"mod\\u0065l":"y"}', 50)
    assert made == b'{"model":"their-name","max_tokens":50}'


def test_the_output_limit_is_that_of_the_hold() -> None:
    assert json.loads(rendered(b'{"model":"x"}', 50))["max_tokens"] == 50
    assert json.loads(rendered(b'{"model":"x","max_tokens":900}', 50))["max_tokens"] == 50
    assert b"max_" not in rendered(b'{"model":"x"}')


def test_the_name_that_the_caller_used_for_the_limit_is_kept() -> None:
    made = json.loads(rendered(b'{"model":"x","max_completion_tokens":900}', 50))
    assert made == {"model": "their-name", "max_completion_tokens": 50}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_both_names_for_the_limit_only_the_newer_is_sent(order: tuple[int, int]) -> None:
    limits = [b'"max_tokens":10', b'"max_completion_tokens":20']
    text = b'{"model":"x",' + b",".join(limits[each] for each in order) + b"}"
    assert json.loads(rendered(text, 20)) == {"model": "their-name", "max_completion_tokens": 20}


def test_where_no_tokens_come_out_a_limit_is_none_of_the_brokers_business() -> None:
    text = b'{"model":"x","input":"y","max_tokens":9}'
    assert json.loads(rendered(text)) == {"model": "their-name", "input": "y", "max_tokens": 9}


def test_a_stream_always_brings_its_usage() -> None:
    made = json.loads(rendered(b'{"model":"x","stream":true}', stream=True))
    assert made["stream"] is True
    assert made["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("asked", [b"true", b"false"])
def test_the_callers_stream_options_are_merged(asked: bytes) -> None:
    options = b'{"include_usage":' + asked + b',"continuous_usage_stats":true}'
    text = b'{"model":"x","stream":true,"stream_options":' + options + b"}"
    made = json.loads(rendered(text, stream=True))
    assert made["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


def test_stream_options_that_are_null_are_as_good_as_none() -> None:
    text = b'{"model":"x","stream":true,"stream_options":null}'
    assert json.loads(rendered(text, stream=True))["stream_options"] == {"include_usage": True}


def test_without_a_stream_there_are_no_stream_options() -> None:
    assert b"stream" not in rendered(b'{"model":"x","stream":false,"stream_options":{}}')


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        (b'{"messages":[{"role":"user","content":"Hello "},{"content":"you"}]}', "Hello you"),
        (b'{"messages":[{"role":"user","content":[{"type":"text","text":"Hi"}]}]}', "Hi"),
        (b'{"prompt":["a","b"]}', "ab"),
        (b'{"input":"text"}', "text"),
        (b'{"prompt":[1,2,3]}', ""),
        (b"{}", ""),
    ],
)
def test_the_text_of_a_prompt_is_found_in_every_shape(text: bytes, prompt: str) -> None:
    assert body(text).prompt_text() == prompt


def test_a_prompt_that_only_the_provider_can_read_has_no_text_here() -> None:
    assert body(b'{"messages":[{"content":"Hello","x":1e999}]}').prompt_text() is None
    nested = b"[" * 900 + b"]" * 900
    assert body(b'{"input":' + nested + b"}").prompt_text() in ("", None)


def test_stream_options_that_only_the_provider_can_read_pass_untouched() -> None:
    text = b'{"model":"x","stream":true,"stream_options":{"x":1e999}}'
    assert b'"x":1e999' in rendered(text, stream=True)


def test_roles_and_tools_are_more_tokens_than_the_text_alone() -> None:
    turn = b'{"role":"user","content":"Hello"}'
    called = b'{"role":"assistant","tool_calls":[{"id":"1"}]}'
    pictured = b'{"content":[{"type":"text","text":"Hi"}]}'
    assert body(b'{"messages":[%b,%b]}' % (turn, turn)).tokens_beside_text() == 2 * ROLE_TOKENS
    assert body(b'{"messages":[%b],"tools":[{"x":1}]}' % turn).tokens_beside_text() == (
        ROLE_TOKENS + len(b'[{"x":1}]')
    )
    assert body(b'{"messages":[%b]}' % called).tokens_beside_text() == (
        ROLE_TOKENS + len(b'[{"id":"1"}]')
    )
    assert body(b'{"messages":[%b]}' % pictured).tokens_beside_text() == (
        ROLE_TOKENS + len(b'[{"type":"text","text":"Hi"}]')
    )
    assert body(b'{"prompt":"Hello"}').tokens_beside_text() == 0
    assert body(b'{"messages":[1]}').tokens_beside_text() == 0


def test_no_tokenizer_makes_more_tokens_than_there_are_bytes() -> None:
    assert tokens_in_bound(400) >= 400
    assert tokens_in_expected(400) == 100
    assert tokens_in_expected(1) == 1


@pytest.mark.parametrize("name", ["messages", "prompt", "input"])
def test_a_prompt_is_read_whole_up_to_a_bound_and_not_beyond(name: str) -> None:
    around = len(b'["",[]]')
    longest = b'["%b",[]]' % (b"a" * (READ_BYTES_MAX - around))
    assert body(b'{"%b":%b}' % (name.encode(), longest)).prompt_text() == "a" * (
        READ_BYTES_MAX - around
    )
    longer = b'["%b",[]]' % (b"a" * (READ_BYTES_MAX - around + 1))
    made = body(b'{"%b":%b}' % (name.encode(), longer))
    assert made.prompt_text() is None
    assert made.opening_text().startswith("aaa"), "what it is about is told by its ends"


def test_what_a_template_may_make_of_images_is_bounded_by_their_tokens_not_their_bytes() -> None:
    part = b'{"type":"image_url","image_url":{"url":"https://a.example/b.png"}}'
    made = body(b'{"messages":[{"role":"user","content":[%b]}]}' % part)
    seen = msgspec.structs.replace(made, images=1)
    assert seen.tokens_beside_text() == made.tokens_beside_text() + IMAGE_TOKENS_MOST
