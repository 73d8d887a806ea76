"""Which tokenizers of strangers may run inside the broker."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker.encoding.trusted import obstacle

QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tokenizer(normalizer: Any = None, pre_tokenizer: Any = None, kind: str = "BPE") -> str:
    return json.dumps(
        {"model": {"type": kind}, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer}
    )


def sequence(name: str, *members: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", name: list(members)}


@pytest.mark.parametrize(
    "text",
    [
        tokenizer(),
        tokenizer({"type": "BertNormalizer"}, {"type": "BertPreTokenizer"}, "WordPiece"),
        tokenizer({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}),
        tokenizer(sequence("normalizers", {"type": "Prepend", "prepend": "▁"}, {"type": "NFKC"})),
        tokenizer(
            None,
            sequence(
                "pretokenizers",
                {"type": "Split", "pattern": {"Regex": QWEN}, "behavior": "Isolated"},
                {"type": "ByteLevel", "use_regex": False},
            ),
        ),
    ],
)
def test_the_tokenizers_of_well_known_models_may_run(text: str) -> None:
    assert obstacle(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[" * 100_000,
        tokenizer(kind="Elsewhere"),
        tokenizer({"type": "Replace", "pattern": {"String": "a"}, "content": "b" * 20_000}),
        tokenizer({"type": "Replace", "pattern": {"String": ""}, "content": "b"}),
        tokenizer({"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}),
        tokenizer({"type": "Prepend", "prepend": "b" * 20_000}),
        tokenizer(None, {"type": "Split", "pattern": {"Regex": "(a|a)*b"}}),
        tokenizer(sequence("normalizers", {"type": "Precompiled", "precompiled_charsmap": ""})),
        tokenizer(sequence("normalizers", sequence("normalizers", {"type": "Unheard"}))),
    ],
)
def test_a_tokenizer_that_could_blow_up_may_not_run(text: str) -> None:
    assert obstacle(text) is not None
