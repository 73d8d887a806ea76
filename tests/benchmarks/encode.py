"""What it costs to turn a prompt into a vector, in CPU time.

    python -m tests.benchmarks.encode

Prompts of about 500 tokens made of words that were not met before in that order; then prompts of
2 MB, and the worst: nothing but words that nobody knows, and 2,000 characters without a space, as
Chinese is written. The last line is one JSON object;
`p50_ms` and `p95_ms` are of the prompts of 500 tokens.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from random import Random

import numpy as np

from broker.encoding.encoder import Encoder
from broker.encoding.words import load_encoder

PROMPTS = 500
TOKENS = 500
_SYLLABLES = ("ba", "con", "der", "el", "fi", "gra", "ho", "in", "ju", "ka", "lor", "men", "tion")


def words(random: Random, count: int) -> list[str]:
    """Make up so many words."""
    return ["".join(random.choices(_SYLLABLES, k=random.randint(1, 4))) for _ in range(count)]


def prompts(random: Random) -> list[str]:
    """Return prompts of about TOKENS tokens, their words drawn as unevenly as people do."""
    known = words(random, 4_000)
    weights = [1.0 / rank for rank in range(1, len(known) + 1)]
    return [" ".join(random.choices(known, weights, k=TOKENS // 2)) + "?" for _ in range(PROMPTS)]


def measured_ms(encoder: Encoder, texts: Sequence[str]) -> list[float]:
    """Return the CPU time of each prompt, in milliseconds."""
    took = []
    for text in texts:
        start = time.thread_time()
        encoder.encode(text)
        took.append((time.thread_time() - start) * 1_000)
    return took


def main() -> None:
    """Measure and print."""
    random, encoder = Random(1), load_encoder()
    usual = prompts(random)
    measured_ms(encoder, usual[:100])
    took = measured_ms(encoder, usual[100:])
    strange = measured_ms(encoder, [" ".join(words(random, 400)).title() for _ in range(100)])
    unspaced = [
        "".join(chr(random.randint(0x4E00, 0x9FFF)) for _ in range(2_000)) for _ in range(99)
    ]
    chinese = measured_ms(encoder, unspaced)
    huge = measured_ms(encoder, [" ".join(usual) * 5] * 20)
    figures = {
        "p50_ms": float(np.percentile(took, 50)),
        "p95_ms": float(np.percentile(took, 95)),
        "strange_words_p50_ms": float(np.percentile(strange, 50)),
        "without_spaces_p50_ms": float(np.percentile(chinese, 50)),
        "two_megabytes_p50_ms": float(np.percentile(huge, 50)),
    }
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
