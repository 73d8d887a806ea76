"""A prompt becomes a vector: what is alike lies close, and nothing that is sent breaks it."""

from __future__ import annotations

from random import Random
from string import digits, punctuation

import numpy as np
import pytest

from broker.encoding.encoder import Vector
from broker.encoding.sample import SAMPLE_CHARACTERS_MAX, sample
from broker.encoding.shape import SHAPE_LENGTH
from broker.encoding.words import WordEncoder, load_encoder


@pytest.fixture(scope="module")
def encoder() -> WordEncoder:
    return load_encoder()


def meaning(vector: Vector) -> Vector:
    return vector[:-SHAPE_LENGTH]


def test_prompts_about_one_thing_lie_closer_than_prompts_about_two(encoder: WordEncoder) -> None:
    lease, notice, rash = (
        meaning(encoder.encode(each))
        for each in (
            "May my landlord end the lease without notice?",
            "How long is the notice period when a tenant ends a contract?",
            "What ointment helps against an itching rash on the skin?",
        )
    )
    assert lease @ notice > lease @ rash + 0.1
    assert lease @ lease == pytest.approx(1.0, abs=1e-4)


def test_the_shape_tells_code_from_prose(encoder: WordEncoder) -> None:
    prose = encoder.encode("Write a letter to the tax office.")[-SHAPE_LENGTH:]
    code = encoder.encode("def total(rows):\n    return sum(rows[1:])\n")[-SHAPE_LENGTH:]
    assert np.abs(prose - code).max() > 0.3


def test_a_prompt_has_one_vector_whatever_was_encoded_before() -> None:
    strange = "Wugglebatch frimzonter über 汉字 zxqvv"
    fresh, used = load_encoder(), load_encoder()
    for each in range(300):
        used.encode(f"frimzonter number {each} of the wugglebatches")
    np.testing.assert_array_equal(fresh.encode(strange), used.encode(strange))


@pytest.mark.parametrize("letters", ["abc", "\u6cd5\u5f8bc"])
def test_words_are_cut_into_the_longest_pieces_that_there_are(letters: str) -> None:
    """Counted out by a vocabulary of which each piece has a direction of its own."""
    random, mark = Random(3), "\u2581"
    for _ in range(30):
        pieces = {"".join(random.choices(letters, k=random.randint(1, 12))) for _ in range(40)}
        pieces |= {f"{mark}{each}" for each in sorted(pieces)[::3]}
        vocabulary = {
            each: row for row, each in enumerate([*digits, *punctuation, *sorted(pieces)])
        }
        encoder = WordEncoder(np.eye(len(vocabulary), dtype=np.float32), vocabulary)
        word = "".join(random.choices(letters, k=60))
        counts, left = np.zeros(len(vocabulary)), mark + word
        longest = 10 if word.isascii() else 6
        while left:
            found = [left[:size] for size in range(longest, 0, -1) if left[:size] in vocabulary]
            for piece in found[:1]:
                counts[vocabulary[piece]] += 1.0
            left = left[len(found[0]) if found else 1 :]
        expected = counts / np.linalg.norm(counts)
        np.testing.assert_allclose(meaning(encoder.encode(word)), expected, atol=1e-6)


@pytest.mark.parametrize(
    "prompt",
    ["", " ", "\ud800 alone", "...", "汉" * 9_000, "a" * 2_000_000, "\0\x7f", "¿" * 300, "\n" * 99],
    ids=range(9),
)
def test_every_text_has_a_finite_vector(encoder: WordEncoder, prompt: str) -> None:
    vector = encoder.encode(prompt)
    assert vector.shape == (encoder.length,)
    assert np.isfinite(vector).all()


def test_of_a_long_prompt_its_beginning_middle_and_end_are_read() -> None:
    told = sample("begin " + "x" * 50_000 + " MIDDLE " + "x" * 50_000 + " end?")
    assert len(told) <= SAMPLE_CHARACTERS_MAX
    assert told.startswith("begin ")
    assert "MIDDLE" in told
    assert told.endswith(" end?")
    assert sample("short") == "short"
