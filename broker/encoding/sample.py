"""Cuts a long prompt down to what is read of it: its beginning, its middle and its end."""

from __future__ import annotations

SAMPLE_CHARACTERS_MAX = 2_000
"""About 500 tokens; reading more would hold up every other call."""
_EDGE = 800
"""What is asked for stands at the beginning or at the end; between them stands material."""


def sample(prompt: str) -> str:
    """Return the prompt, or so much of a longer one as SAMPLE_CHARACTERS_MAX allows."""
    if len(prompt) <= SAMPLE_CHARACTERS_MAX:
        return prompt
    middle = SAMPLE_CHARACTERS_MAX - 2 * _EDGE - 2
    start = (len(prompt) - middle) // 2
    return f"{prompt[:_EDGE]}\n{prompt[start : start + middle]}\n{prompt[-_EDGE:]}"
