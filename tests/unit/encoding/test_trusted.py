"""Which tokenizers of strangers may run inside the broker."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker.encoding.trusted import PIECES_MAX, obstacle

QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tokenizer(normalizer: Any = None, pre_tokenizer: Any = None, kind: str = "BPE") -> str:
    return json.dumps(
        {"model": {"type": kind}, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer}
    )


DOUBLED = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
EVIL = {"type": "Split", "pattern": {"Regex": "(a|a)*b"}, "behavior": "Isolated"}


def model(**members: Any) -> str:
    return json.dumps({"model": members})


def sequence(name: str, *members: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", name: list(members)}


@pytest.mark.parametrize(
    "text",
    [
        tokenizer(),
        tokenizer({"type": "BertNormalizer"}, {"type": "BertPreTokenizer"}, "WordPiece"),
        tokenizer({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}),
        tokenizer(sequence("normalizers", {"type": "Prepend", "prepend": "▁"}, {"type": "NFKC"})),
        tokenizer(sequence("normalizers", DOUBLED, DOUBLED)),
        model(type="WordPiece", vocab={"a": 0}, max_input_chars_per_word=100),
        model(type="Unigram", vocab=[["<unk>", 0.0], ["▁" * 48, -1.5]], unk_id=0),
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
        tokenizer(sequence("normalizers", *[DOUBLED] * 3)),
        tokenizer(sequence("normalizers", DOUBLED), sequence("pretokenizers", DOUBLED, DOUBLED)),
        tokenizer(sequence("normalizers", *[{"type": "NFD"}] * 16)),
        tokenizer(None, sequence("normalizers", {"type": "NFD"}) | {"pretokenizers": [EVIL]}),
        tokenizer({"type": "Lowercase", "padding": "b" * 70_000}),
        model(type="WordPiece", vocab={"a": 0}, max_input_chars_per_word=101),
        model(vocab={"a": 0}, max_input_chars_per_word=10**9),
        model(type="Unigram", vocab=[["a" * 49, -1.5]]),
        model(type="Unigram", vocab=["a"]),
        '{"model":{"type":"Unigram","vocab":[%s["",0]]}}' % ('["",0],' * PIECES_MAX),
        "{",
        "[]",
        "{}",
    ],
)
def test_a_tokenizer_that_could_blow_up_may_not_run(text: str) -> None:
    assert obstacle(text) is not None
