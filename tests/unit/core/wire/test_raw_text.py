"""Of a prompt that is too long to be read whole the ends are read, wherever they are cut."""

from __future__ import annotations

import json

import pytest

from broker.core.wire.raw_text import END_BYTES, text_at_ends

SOME = [
    ("¿Puede mi casero…? ", "¿Qué dice la ley?"),
    ("我的房东可以提高租金吗", "合同什么时候到期"),
    ("\U0001f3e0\U0001f511 the flat ", "\U0001f4b8 the rent"),
    ('He said: "no\\way"\n\t', 'and "C:\\temp\\notes"'),
    ("plain words only ", "and an end"),
]


@pytest.mark.parametrize("in_ascii", [True, False])
@pytest.mark.parametrize("spaced", [None, (",", ":")])
@pytest.mark.parametrize(("start", "end"), SOME)
def test_what_stands_at_the_ends_is_read_wherever_the_cut_falls(
    start: str, end: str, spaced: tuple[str, str] | None, in_ascii: bool
) -> None:
    for shift in range(14):
        turns = [
            {"role": "system", "content": "x" * shift},
            {"role": "user", "content": start * 1_000 + "x" * shift + end},
        ]
        raw = json.dumps(turns, ensure_ascii=in_ascii, separators=spaced).encode()
        assert len(raw) > 2 * END_BYTES
        told = text_at_ends(memoryview(raw))
        assert told.startswith("x" * shift + " " + start * 20)
        assert told.endswith(start + "x" * shift + end)
        for syntax in ("role", "content", "user", "system", "}", "\\u", "\ufffd"):
            assert syntax not in told


def test_parts_and_plain_lists_are_read_and_what_is_no_text_is_not() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9_000}}
    parts = [{"type": "text", "text": "What is that?"}, image, {"type": "text", "text": "Say it."}]
    raw = json.dumps([{"role": "user", "content": parts}]).encode()
    told = text_at_ends(memoryview(raw))
    assert told.startswith("What is that?")
    assert told.endswith("Say it.")
    many = json.dumps(["first one", *["between"] * 2_000, "last one"]).encode()
    told = text_at_ends(memoryview(many))
    assert told.startswith("first one between")
    assert told.endswith("between last one")


@pytest.mark.parametrize(
    "raw",
    [b"", b"1" * 9_000, b'"' * 9_000, b"\\" * 9_000, b'"\\' * 5_000, b"\xff" * 9_000, b"[" * 9_000],
)
def test_nothing_breaks_it(raw: bytes) -> None:
    assert len(text_at_ends(memoryview(raw))) <= 2 * END_BYTES + 1
