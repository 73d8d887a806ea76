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
    if seen.generates and not seen.text_bytes:
        # Reasoning that was only claimed has reached nobody.
        return NOTHING
    notes: list[str] = []
    tokens_in = _count_in(seen, expected, notes)
    tokens_out = _count_out(seen, expected, notes) if seen.generates else 0
    if seen.generates and not tokens_out:
        return NOTHING
    return Usage(tokens_in, tokens_out, tuple(notes) if notes else ())


def _count_in(seen: Delivered, expected: Expected, notes: list[str]) -> int:
    estimate = round(expected.body_bytes / expected.bytes_in_per_token)
    bound, likely = expected.tokens_in_bound, estimate + TEMPLATE_TOKENS
    if seen.exact_in is not None:
        estimate = seen.exact_in
        likely = seen.exact_in + seen.beside_in + TEMPLATE_TOKENS
        bound = min(bound, likely)
    if seen.claimed_in is None:
        notes.append("tokens_in_estimated")
        return min(estimate, bound)
    return _judge(seen.claimed_in, bound, likely, "tokens_in", notes)


def _count_out(seen: Delivered, expected: Expected, notes: list[str]) -> int:
    estimate = -(-seen.text_bytes // max(expected.bytes_out_per_token, 1.0))
    bound = seen.text_bytes + END_TOKENS * seen.choices
    if seen.exact_out is not None:
        estimate = seen.exact_out
        bound = min(bound, seen.exact_out + END_TOKENS * seen.choices)
    bound = min(bound + seen.hidden_out, expected.tokens_out_max)
    if seen.claimed_out is None:
        notes.append("tokens_out_estimated")
        return min(int(estimate), bound)
    likely = int(estimate) + seen.hidden_out + END_TOKENS * seen.choices
    return _judge(seen.claimed_out, bound, likely, "tokens_out", notes)


def _judge(claimed: int, bound: int, likely: int, name: str, notes: list[str]) -> int:
    if claimed > bound:
        notes.append(f"{name}_cut_from_{claimed}")
        return bound
    if claimed > SUSPICIOUS * likely:
        notes.append(f"{name}_suspicious")
    return max(claimed, 0)
