"""Says whether a stranger's `tokenizer.json` may run here: only parts that cannot blow up.

A tokenizer is a program. A `Replace` may multiply a text, and one after the other do so again; a
regular expression may backtrack for ever; words without bounds are cut in cubic time, and pieces
that begin each other in the product of both. So parts are allowed by name and number, replacements
may together not grow a text beyond what a marker needs, words and pieces are short, and of regular
expressions only those of well-known models pass, to the letter.
"""

from __future__ import annotations

from typing import Any

import msgspec

GROWTH_MAX = 4
"""Replacements may make a text at most so many times as long, all together."""
PARTS_MAX = 16
PARTS_BYTES_MAX = 65_536
"""Of the JSON of a normalizer or a pre-tokenizer."""
WORD_CHARACTERS_MAX = 100
"""As of BERT; WordPiece looks at each stretch of a word from each of its characters on."""
PIECE_CHARACTERS_MAX = 48
"""Of Unigram, which looks for all pieces at each character."""
PIECES_BYTES_MAX = 24 << 20
PIECES_MAX = 500_000
"""Twice as many as the largest vocabularies have."""

_MODELS = frozenset({"BPE", "WordPiece", "Unigram", "WordLevel"})
_PLAIN = frozenset(
    {
        *("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "BertNormalizer"),
        *("Nmt", "ByteLevel", "BertPreTokenizer", "Metaspace", "Whitespace", "WhitespaceSplit"),
        *("Digits", "Punctuation", "UnicodeScripts"),
    }
)
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_WORDS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PATTERNS = frozenset(
    {
        _CONTRACTIONS + r"\p{N}{1,3}" + _WORDS,  # Llama 3
        _CONTRACTIONS + r"\p{N}" + _WORDS,  # Qwen 2
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",  # GPT-2
        r"\p{N}{1,3}",  # DeepSeek
        r"[0-9]",
        r" {2,}",
    }
)


class _Model(msgspec.Struct):
    type: str = "BPE"
    max_input_chars_per_word: int = WORD_CHARACTERS_MAX
    vocab: msgspec.Raw = msgspec.Raw(b"{}")


class _File(msgspec.Struct):
    model: _Model
    normalizer: msgspec.Raw = msgspec.Raw(b"null")
    pre_tokenizer: msgspec.Raw = msgspec.Raw(b"null")


_file = msgspec.json.Decoder(_File).decode
_pieces = msgspec.json.Decoder(list[tuple[str, float]]).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def obstacle(tokenizer_json: str) -> str | None:
    """Return what keeps a tokenizer from running here, None when nothing does."""
    try:
        file = _file(tokenizer_json)
    except _UNREADABLE:
        return "it is not a JSON object with a model"
    if file.model.type not in _MODELS:
        return f"a model of the kind {file.model.type[:40]}"
    looked_at = _Parts()
    return (
        _obstacle_in_model(file.model)
        or looked_at.obstacle_in(file.normalizer)
        or looked_at.obstacle_in(file.pre_tokenizer)
    )


def _obstacle_in_model(model: _Model) -> str | None:
    # Whatever its kind: the library goes by what is there.
    if model.max_input_chars_per_word > WORD_CHARACTERS_MAX:
        return f"words of more than {WORD_CHARACTERS_MAX} characters"
    if bytes(memoryview(model.vocab)[:1]) != b"[":
        return None
    if memoryview(model.vocab).nbytes > PIECES_BYTES_MAX:
        return f"pieces of more than {PIECES_BYTES_MAX} bytes"
    # Counted before they are made: millions of next to nothing take a second, in which no other
    # thread has its turn.
    if bytes(model.vocab).count(b"[") > PIECES_MAX:
        return f"more than {PIECES_MAX:,} pieces"
    try:
        longest = max((len(piece) for piece, _ in _pieces(model.vocab)), default=0)
    except _UNREADABLE:
        return "pieces that are none"
    return None if longest <= PIECE_CHARACTERS_MAX else f"a piece of {longest} characters"


class _Parts:
    """Looks at the parts of one tokenizer."""

    def __init__(self) -> None:
        self._left = PARTS_MAX
        self._growth = 1.0

    def obstacle_in(self, raw: msgspec.Raw) -> str | None:
        """Look at a normalizer or a pre-tokenizer, with all that is within."""
        if memoryview(raw).nbytes > PARTS_BYTES_MAX:
            return f"parts of more than {PARTS_BYTES_MAX} bytes"
        try:
            return self._obstacle_in(msgspec.json.decode(raw))
        except _UNREADABLE:
            return "parts that cannot be read"

    def _obstacle_in(self, part: Any) -> str | None:
        if part is None:
            return None
        if not isinstance(part, dict):
            return "a part that is no object"
        self._left -= 1
        if self._left < 0:
            return f"more than {PARTS_MAX} parts"
        kind = part.get("type")
        if kind == "Sequence":
            members = [*(part.get("normalizers") or ()), *(part.get("pretokenizers") or ())]
            return next(filter(None, map(self._obstacle_in, members)), None)
        if kind in _PLAIN or (kind == "Prepend" and len(str(part.get("prepend"))) <= GROWTH_MAX):
            return None
        if kind in ("Replace", "Split") and self._is_tame(part):
            return None
        return f"a part of the kind {str(kind)[:40]}"

    def _is_tame(self, part: dict[str, Any]) -> bool:
        pattern = part.get("pattern")
        if not isinstance(pattern, dict):
            return False
        if "Regex" in pattern:
            grows = len(str(part.get("content", ""))) > 1
            return pattern["Regex"] in _PATTERNS and not grows
        found, content = str(pattern.get("String", "")), str(part.get("content", ""))
        self._growth *= max(len(content) / max(len(found), 1), 1.0)
        return bool(found) and self._growth <= GROWTH_MAX
