"""A line of a call says truly why it went where it went."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.story import ScoredCandidate, Story
from web.told import why

CHAIN: list[dict[str, Any]] = [{"endpoint_number": 1, "judged": {"kept": True}}]
PLAIN: list[dict[str, Any]] = [{"endpoint_number": 1, "judged": None}]


@pytest.mark.parametrize(
    ("scores", "requirements", "attempts", "said"),
    [
        ([0.8, 0.5], {}, PLAIN, "best of 2, score 0.80"),
        ([0.5, 0.8], {}, PLAIN, "drawn among the best of 2, score 0.50"),
        ([0.5, 0.8], {"providers_order": ["acme"]}, PLAIN, "first as ordered of 2, score 0.50"),
        ([0.8, 0.5], {"providers_order": ["acme"]}, PLAIN, "best of 2, score 0.80"),
        ([0.5, 0.8], {}, CHAIN, "first in the chain of 2, score 0.50"),
        ([0.5], {}, PLAIN, "the only fit, score 0.50"),
    ],
)
def test_what_made_the_first_the_first_is_said(
    scores: list[float],
    requirements: dict[str, Any],
    attempts: list[dict[str, Any]],
    said: str,
) -> None:
    candidates = [ScoredCandidate(number, score, {}, "0.01") for number, score in enumerate(scores)]
    assert why(Story(requirements, 1, candidates, [], attempts, "delivered")) == said
