"""Of large bodies only so much is made as may be needed, and what is too much is refused before."""

from __future__ import annotations

import pytest

from broker.errors import RequestMalformed
from broker.gateway.openai import parse

CHAT, COMPLETION, EMBEDDING = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"


def body(*members: str) -> bytes:
    return ("{" + ",".join(('"model":"auto"', *members)) + "}").encode()


def asked_choices(*members: str) -> int:
    return parse(COMPLETION, [], body(*members)).choices


HELLO = '"messages":[{"role":"user","content":"hello"}]'
SHORT = ("models", "n", "stream", "stream_options", "max_tokens", "service_tier")
NAMES = ",".join(['"a"'] * 100_000)


@pytest.mark.parametrize(
    ("path", "told", "why"),
    [
        (CHAT, body(HELLO, *(f'"m{at}":1' for at in range(60_000))), "10000 members"),
        (CHAT, body(HELLO, f'"broker":{{"region":[{NAMES}]}}'), "262144 bytes"),
        (CHAT, body(HELLO, f'"broker":{{"providers":{{"only":[{NAMES}]}}}}'), "262144 bytes"),
        (COMPLETION, body(f'"prompt":[{NAMES}]'), "at most 2048"),
        *((CHAT, body(HELLO, f'"{name}":[{NAMES}]'), f"'{name}' has more than") for name in SHORT),
    ],
)
def test_what_would_be_made_for_seconds_is_refused_before(path: str, told: bytes, why: str) -> None:
    with pytest.raises(RequestMalformed, match=why):
        parse(path, [], told)


def test_long_texts_may_hold_any_number_of_colons() -> None:
    texts = f'"messages":[{{"role":"user","content":"{"a: " * 200_000}"}}]'
    members = parse(CHAT, [], body(texts, '"unheard":{"a":1}')).body.members  # type: ignore[union-attr]
    assert {"model", "messages", "unheard"} == members.keys()


@pytest.mark.parametrize("name", ["prediction", "suffix", "documents", "guided_json"])
def test_all_that_is_asked_about_may_be_long_and_full_of_names(name: str) -> None:
    code = ",".join([r"""{"text":"{\"a\": 1}"}"""] * 20_000)
    members = parse(CHAT, [], body(HELLO, f""""{name}":[{code}]""")).body.members  # type: ignore[union-attr]
    assert name in members


@pytest.mark.parametrize(
    ("members", "choices"),
    [
        (('"prompt":"a"',), 1),
        (('"prompt":[]',), 1),
        (('"prompt":[1,2,3]',), 1),
        (('"prompt":["a","b"]', '"n":3'), 6),
        (('"prompt":[[1],[2,3]]', '"best_of":2'), 4),
        (('"prompt":[' + ",".join(["7"] * 200_000) + "]",), 1),
        ((f'"prompt":["{"a" * 200_000}","{"b" * 200_000}"]',), 2),
    ],
)
def test_prompts_are_counted_however_long_they_are(members: tuple[str, ...], choices: int) -> None:
    assert asked_choices(*members) == choices


@pytest.mark.parametrize(
    ("texts", "longest_bytes"),
    [
        ('"a"', None),
        ("[]", None),
        ("[1,2,3]", None),
        ('["abc"]', None),
        ('["a","abc","ab"]', 5),
        ("[[1],[2,3]]", 5),
        (f'["{"a" * 200_000}","{"b" * 200_001}"]', 200_003),
        (f"[{NAMES}]", None),
    ],
)
def test_of_several_texts_the_longest_is_told(texts: str, longest_bytes: int | None) -> None:
    assert parse(EMBEDDING, [], body(f'"input":{texts}')).longest_bytes == longest_bytes
    if texts != f"[{NAMES}]":  # so many prompts are refused
        assert parse(COMPLETION, [], body(f'"prompt":{texts}')).longest_bytes == longest_bytes
