"""Says whether a stranger's `tokenizer.json` may run here: only parts that cannot blow up.

A tokenizer is a program. A `Replace` may multiply a text, a regular expression may backtrack for
ever. So parts are allowed by name, replacements may not grow a text beyond what a marker needs,
and of regular expressions only those of well-known models pass, to the letter.
"""

from __future__ import annotations

from typing import Any

import msgspec

GROWTH_MAX = 4
"""A replacement may be at most so many times as long as what it replaces."""

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


def obstacle(tokenizer_json: str) -> str | None:
    """Return what keeps a tokenizer from running here, None when nothing does."""
    try:
        file = msgspec.json.decode(tokenizer_json, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return "it is not a JSON object"
    model = file.get("model")
    kind = model.get("type", "BPE") if isinstance(model, dict) else None
    if kind not in _MODELS:
        return f"a model of the kind {str(kind)[:40]}"
    return _obstacle_in(file.get("normalizer")) or _obstacle_in(file.get("pre_tokenizer"))


def _obstacle_in(part: Any) -> str | None:
    if part is None:
        return None
    if not isinstance(part, dict):
        return "a part that is no object"
    kind = part.get("type")
    if kind == "Sequence":
        members = part.get("normalizers") or part.get("pretokenizers") or []
        return next(filter(None, map(_obstacle_in, members)), None)
    if kind in _PLAIN or (kind == "Prepend" and len(str(part.get("prepend"))) <= GROWTH_MAX):
        return None
    if kind in ("Replace", "Split") and _is_tame(part):
        return None
    return f"a part of the kind {str(kind)[:40]}"


def _is_tame(part: dict[str, Any]) -> bool:
    pattern = part.get("pattern")
    if not isinstance(pattern, dict):
        return False
    if "Regex" in pattern:
        grows = len(str(part.get("content", ""))) > 1
        return pattern["Regex"] in _PATTERNS and not grows
    found, content = str(pattern.get("String", "")), str(part.get("content", ""))
    return bool(found) and len(content) <= GROWTH_MAX * len(found)
