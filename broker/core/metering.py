"""Turns what a provider claims and what was seen on the way into what is paid.

A claim is cut only above a hard bound (a token is at least a byte of UTF-8, or the exact count of a
registered tokenizer) and noted when it is above SUSPICIOUS x the estimate learned for the endpoint.
Nothing delivered, nothing paid.
"""

from __future__ import annotations

import msgspec

SUSPICIOUS = 1.3
TEMPLATE_TOKENS = 64
"""What a chat template may add to a prompt beyond its bytes."""
END_TOKENS = 8
"""Tokens without text that end an answer or open a tool call."""


class Delivered(msgspec.Struct, frozen=True, gc=False):
    """What was seen of one attempt."""

    claimed_in: int | None
    claimed_out: int | None
    text_bytes: int
    """UTF-8 bytes of content, reasoning and tool-call arguments that arrived."""
    hidden_out: int = 0
    """Reasoning tokens the provider claims and does not show; `tokens_out_max` bounds them."""
    text: str = ""
    """The content itself, kept only until it has been counted."""
    exact_in: int | None = None
    """By the registered tokenizer, template not included."""
    exact_out: int | None = None
    beside_in: int = 0
    """Tokens at most that a template makes of a prompt's roles and tools, beside `exact_in`."""
    complete: bool = True
    generates: bool = True
    """False for embeddings: there is no text to bound, an answer is delivered or not."""
    choices: int = 1
    beside_text: int = 0
    """Choices, or pieces of a stream, without text that tell what the caller has asked to be told
    beside one: a token each at least."""


class Expected(msgspec.Struct, frozen=True, gc=False):
    """What was known of the call before."""

    tokens_in_bound: int
    body_bytes: int
    tokens_out_max: int
    bytes_in_per_token: float
    bytes_out_per_token: float


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What is paid for, and what was noticed."""

    tokens_in: int
    tokens_out: int
    notes: tuple[str, ...] = ()


NOTHING = Usage(0, 0)


def meter(seen: Delivered, expected: Expected) -> Usage:
    """Return the tokens to be paid for one attempt; what delivered nothing costs nothing."""
    if seen.generates and not seen.text_bytes and not seen.beside_text:
        # Reasoning that was only claimed has reached nobody.
        return NOTHING
    if seen.generates and _is_plain(seen, expected):
        return Usage(seen.claimed_in or 0, seen.claimed_out or 0)
    return judge(seen, expected)


def judge(seen: Delivered, expected: Expected) -> Usage:
    """Return the same for what was delivered, with all that can be said against a claim."""
    notes: list[str] = []
    tokens_in = _count_in(seen, expected, notes)
    tokens_out = _count_out(seen, expected, notes) if seen.generates else 0
    if seen.generates and not tokens_out:
        return NOTHING
    return Usage(tokens_in, tokens_out, tuple(notes) if notes else ())


def _is_plain(seen: Delivered, expected: Expected) -> bool:
    """True where both claims are so low that `judge` would return them as they are, as most are:
    told in half the steps. A test holds both to the same usage."""
    tokens_in, tokens_out = seen.claimed_in, seen.claimed_out
    if not tokens_in or not tokens_out or seen.exact_in is not None or seen.exact_out is not None:
        return False
    if not 0 < tokens_in <= expected.tokens_in_bound:
        return False
    if not 0 < tokens_out <= expected.tokens_out_max or tokens_out > seen.text_bytes:
        return False
    # Less by a token than is let pass, for an estimate may have been rounded down.
    text_in = (tokens_in - (TEMPLATE_TOKENS - 1)) * expected.bytes_in_per_token
    text_out = (tokens_out - END_TOKENS) * expected.bytes_out_per_token
    return text_in <= expected.body_bytes and text_out <= seen.text_bytes


def _count_in(seen: Delivered, expected: Expected, notes: list[str]) -> int:
    estimate = round(expected.body_bytes / expected.bytes_in_per_token)
    bound, likely = expected.tokens_in_bound, estimate + TEMPLATE_TOKENS
    exact, claimed = seen.exact_in, seen.claimed_in
    if exact is not None:
        estimate = exact
        likely = exact + seen.beside_in + TEMPLATE_TOKENS
        bound = min(bound, likely)
    if claimed is None:
        notes.append("tokens_in_estimated")
        return min(estimate, bound)
    if 0 <= claimed <= bound and claimed <= likely:
        return claimed  # as most: nothing to be judged
    return _cut(claimed, bound, likely, "tokens_in", notes)


def _count_out(seen: Delivered, expected: Expected, notes: list[str]) -> int:
    text_bytes, exact, claimed = seen.text_bytes, seen.exact_out, seen.claimed_out
    estimate = int(-(-text_bytes // max(expected.bytes_out_per_token, 1.0)))
    beside = END_TOKENS * seen.choices + seen.beside_text
    bound = text_bytes + beside
    if exact is not None:
        estimate = exact
        bound = min(bound, exact + beside)
    if not text_bytes:
        estimate = seen.beside_text
    beside += seen.hidden_out
    bound = min(bound + seen.hidden_out, expected.tokens_out_max)
    if claimed is None:
        notes.append("tokens_out_estimated")
        return min(estimate, bound)
    likely = estimate + beside
    if 0 <= claimed <= bound and claimed <= likely:
        return claimed  # as most: nothing to be judged
    return _cut(claimed, bound, likely, "tokens_out", notes)


def _cut(claimed: int, bound: int, likely: int, name: str, notes: list[str]) -> int:
    if claimed > bound:
        notes.append(f"{name}_cut_from_{claimed}")
        return bound
    if claimed > SUSPICIOUS * likely:
        notes.append(f"{name}_suspicious")
    return max(claimed, 0)
