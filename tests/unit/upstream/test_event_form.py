"""Events that differ in their text alone: read together, they are what they are one by one."""

from __future__ import annotations

import random

import pytest

from broker.upstream.event_form import form_of
from broker.upstream.openai import only_text

BEFORE = b'{"id":"1","choices":[{"index":0,"delta":{"content":"'
AFTER = b'"},"logprobs":null,"finish_reason":null}]}'
PLAIN = (
    b" fox",
    b"",
    b"zw\xc3\xb6lf",
    b"a, b",
    b"\\n",
    b"\\u00e9",
    b"\\ud83d\\ude00",
    b"\x7f",
    b"'",
)
ODD = (
    b'"',
    b"\\",
    b'\\"',
    b'a","b',
    b"c\\",
    b"\\x",
    b"\\u12",
    b"\\ud83d",
    b"\\ude00",
    b"\xc3",
    b"\xb6",
)
CONTROL = (b"\n", b"\n\n", b"\0", b"\t")


def event(text: bytes) -> bytes:
    return b"data: " + BEFORE + text + AFTER + b"\n\n"


def test_texts_are_read_together_only_where_each_would_be_read_alone() -> None:
    form, lots, together = form_of(BEFORE + b"Hello" + AFTER), random.Random(5), 0
    assert form is not None
    for _ in range(3_000):
        odd = lots.choices(ODD + CONTROL, k=lots.choice((0, 0, 1, 2)))
        texts = lots.choices(PLAIN, k=lots.randrange(2, 6)) + odd
        lots.shuffle(texts)
        alone = [only_text(BEFORE + each + AFTER) for each in texts]
        data = b"".join(map(event, texts))
        heard = form.read(data, keep_text=True)
        if any(each is None for each in alone):
            assert heard is None, texts
        else:
            text = "".join(each for each in alone if each is not None)
            assert heard == (len(data), len(text.encode()), text), texts
            together += 1
    assert together > 1_000


def test_what_follows_the_last_event_of_the_form_is_left() -> None:
    form = form_of(BEFORE + b"Hello" + AFTER)
    assert form is not None
    three = event(b"a") + event(b"b") + event(b"c")
    for rest in (b"data: [DONE]\n\n", b": a comment\n\n", event(b"cut")[:-1], b"data: "):
        assert form.read(three + rest, keep_text=False) == (len(three), 3, "")
    assert form.read(b": a comment\n\n" + three, keep_text=False) is None
    assert form.read(event(b"a") + b": a comment\n\n" + event(b"b"), keep_text=False) is None
    assert form.read(event(b"few"), keep_text=False) is None


@pytest.mark.parametrize(
    "payload",
    [
        b'{"content":"not it","choices":[{"delta":{"content":"told"}}]}',
        b'{"choices":[{"delta":{"content":"not it","content":"told"}}]}',
        b'{"choices":[{"delta":{"content":"quo\\"ted"}}]}',
        b'{"choices":[{"delta":{"content":"told"}}],"usage":{"prompt_tokens":1}}',
        b'{"choices":[{"delta":{"content":"a trial, which stands nowhere else"}}]}',
        b'{"choices":[{"delta":{"content":"long"}}],"id":"' + b"x" * 4_096 + b'"}',
    ],
)
def test_an_event_has_no_form_where_its_text_may_be_something_else(payload: bytes) -> None:
    assert form_of(payload) is None
