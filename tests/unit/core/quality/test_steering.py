"""No account steers what the evidence of others weighs."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from uuid import UUID, uuid5

import numpy as np
import pytest

from broker.core.quality.evidence import Piece, Source
from broker.core.quality.fading import capped
from tests.fakes import ACCOUNT
from tests.unit.core.quality.test_learning import NAMES, learned, of, piece

LAW = NAMES.index("law")


def examined(count: int, share: float, seed: int = 1) -> list[Piece]:
    random = Random(seed)
    return [piece(2, float(random.random() < share)) for _ in range(count)]


def words(scores: Sequence[float], account: UUID = ACCOUNT, *, calls: int = 1) -> list[Piece]:
    """What an account says of so many calls in turn, discounted as a flood is."""
    return [
        piece(
            2,
            score,
            source=Source.FEEDBACK,
            account_id=account,
            call_id=uuid5(account, str(at % calls)),
            weight=min(1.0, 200 / (at + 1)),
        )
        for at, score in enumerate(scores)
    ]


def weight_of(pieces: Sequence[Piece]) -> float:
    return float(learned(pieces).weight[LAW, 2])


def test_praise_takes_no_weight_from_what_was_examined() -> None:
    before, after = examined(300, 0.7), examined(100, 0.7, seed=2)
    for calls in (1, 2_000):
        praise = words([1.0] * 2_000, calls=calls)
        assert weight_of(before + praise + after) >= weight_of(before + after)


def test_a_flood_of_zeros_hides_no_fall_and_feigns_none() -> None:
    good, bad = examined(300, 0.9), examined(60, 0.3)
    found = of(learned(good + bad), "law")[2]
    assert found < 0.65 < of(learned(good), "law")[2]
    for calls in (1, 2_000):
        zeros = words([0.0] * 2_000, calls=calls)
        assert of(learned(zeros + good + bad), "law")[2] < found + 0.05
    feigned = good + words([1.0] * 200 + [0.0] * 100, calls=300)
    assert weight_of(feigned) > weight_of(good)


def test_what_one_account_says_outdates_what_it_said_itself_and_many_outdate_all() -> None:
    praise, blame = [1.0] * 100, [0.0] * 60
    once = of(learned(words(praise + blame, calls=160)), "law")[2]
    assert once == pytest.approx(of(learned(words(blame, calls=60)), "law")[2], abs=0.1)
    assert once < of(learned(words(praise, calls=100)), "law")[2] - 0.2
    crowd = [uuid5(ACCOUNT, str(at)) for at in range(20)]
    good = examined(300, 0.9)
    joined = good + [each for one in crowd for each in words([0.0], one)]
    assert weight_of(joined) < weight_of(good) / 3


def test_no_voice_has_more_than_its_share() -> None:
    weights, voices = np.array([1.0, 0.5, 3.0, 3.0]), np.array([7, 7, 2, 2])
    assert capped(weights, voices, 4.0) == pytest.approx([1.0, 0.5, 2.0, 2.0])
    assert capped(weights[:0], voices[:0], 4.0).size == 0
