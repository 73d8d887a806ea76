"""How many images a chat shows, and how many of its bytes they are."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest

from broker.core.wire.images import IMAGES_MAX, images_in

PIXELS = base64.b64encode(random.Random(1).randbytes(3_000))
INLINE = "data:image/png;base64," + PIXELS.decode()
IN_BYTES = len(INLINE) - len("data:image")
ELSEWHERE = "https://a.example/b.png"


def _messages(*parts: Any, **how: Any) -> bytes:
    return json.dumps([{"role": "user", "content": [*parts]}], **how).encode()


def _part(value: object) -> dict[str, object]:
    return {"type": "image_url", "image_url": value}


@pytest.mark.parametrize(
    "part",
    [
        _part({"url": INLINE}),
        _part({"url": INLINE, "detail": "low"}),
        _part({"detail": "high", "url": INLINE}),
        _part(INLINE),
        {"image_url": {"url": INLINE}, "type": "image_url"},
    ],
)
@pytest.mark.parametrize("how", [{}, {"separators": (",", ":")}, {"indent": 2}])
def test_an_image_that_stands_in_the_chat_is_found_with_its_bytes(part: Any, how: Any) -> None:
    messages = _messages({"type": "text", "text": "what?"}, part, part, **how)
    assert images_in(messages) == (2, 2 * IN_BYTES)
    assert images_in(messages.replace(b"/", b"\\/"))[0] == 2


def test_an_image_that_is_elsewhere_has_no_bytes_here() -> None:
    assert images_in(_messages(_part({"url": ELSEWHERE}), _part({"url": INLINE}))) == (2, IN_BYTES)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(_part({"url": INLINE})),
        "image_url",
        INLINE,
        '"image_url": {"url": "data:image',
    ],
)
def test_a_text_about_images_shows_none(text: str) -> None:
    assert images_in(_messages({"type": "text", "text": text})) == (0, 0)
    assert images_in(_messages(text)) == (0, 0)


def test_of_very_many_images_some_are_counted_as_text() -> None:
    many = _messages(*[_part({"url": INLINE})] * (IMAGES_MAX + 9))
    assert images_in(many) == (IMAGES_MAX, IMAGES_MAX * IN_BYTES)
    assert images_in(b'"image_url"' * 100_000) == (0, 0)


def test_an_image_that_is_no_text_at_all_is_left_to_who_reads_it() -> None:
    assert images_in(_messages(_part(None), _part({"url": 1}), _part({"url": None}))) == (0, 0)
