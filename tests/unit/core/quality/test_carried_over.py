"""What was learned outlasts changes of the catalog, and of newcomers their claims are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from broker.core.catalog import Endpoint
from broker.core.market import Market, build_market
from broker.core.quality.evidence import Source
from broker.core.quality.lessons import Lessons
from broker.core.requirements import Prompt
from tests.fakes import endpoint, market
from tests.unit.core.quality.test_learning import ENDPOINTS, LENGTH, NAMES, learned, piece

LAW = NAMES.index("law")
REFUTED = learned(
    [piece(0, float(at % 10 < 3)) for at in range(40)]
    + [piece(2, 0.0, source=Source.CHECK) for _ in range(5)]
)


def scores(lessons: Lessons | None, numbers: list[int], domain: str = "law") -> list[float]:
    assert lessons is not None
    listed = np.array(numbers)
    prompt = Prompt(*lessons.mix(np.zeros(LENGTH), domain))
    cut = lessons.cut(domain, listed, np.full(listed.size, 1.0))
    return [*cut.quality(prompt).tolist(), *cut.fit.tolist()]


def test_a_change_of_the_catalog_forgets_nothing() -> None:
    before = replace(market(ENDPOINTS), lessons=REFUTED)
    known = scores(before.lessons, [0, 1, 2])
    assert known[0] < 0.6
    changed = [replace(ENDPOINTS[0], quality=0.99), *ENDPOINTS[1:]]
    after = rebuilt(before, changed)
    assert scores(after.lessons, [0, 1, 2]) == known


def test_of_newcomers_what_they_declare_is_known() -> None:
    before = replace(market(ENDPOINTS[:2]), lessons=REFUTED)
    known = scores(before.lessons, [0, 1])
    newcomers = [
        endpoint(2, "globex/large", quality=0.7),
        endpoint(5, "hooli/judge", domains={"law": 0.8, "sea": 0.9}, quality=0.6),
    ]
    after = rebuilt(before, [*ENDPOINTS[:2], *newcomers]).lessons
    assert scores(after, [0, 1]) == known
    assert scores(after, [2, 5]) == pytest.approx([0.7, 0.8, 1.0, 1.0])
    assert scores(after, [2, 5], "food") == pytest.approx([0.7, 0.6, 1.0, 1.0])
    assert after is not None
    assert after.weight[LAW, [2, 5]].tolist() == [0.0, 0.0]
    assert np.isnan(after.tokens_out[:, [2, 5]]).all()


def test_a_tick_of_prices_takes_over_what_was_learned_as_it_is() -> None:
    before = replace(market(ENDPOINTS), lessons=REFUTED)
    assert rebuilt(before, ENDPOINTS).lessons is REFUTED
    assert rebuilt(market(ENDPOINTS), ENDPOINTS[:1]).lessons is None


def test_what_was_worked_out_for_the_lists_of_one_market_is_not_kept_with_the_next() -> None:
    before = replace(market(ENDPOINTS), lessons=replace(REFUTED))
    scores(before.lessons, [0, 1, 2])
    after = rebuilt(before, ENDPOINTS).lessons
    assert after is not None
    assert after.cuts
    before.retire()
    assert not after.cuts
    assert not after.tables


def rebuilt(before: Market, endpoints: list[Endpoint]) -> Market:
    return build_market(endpoints, before.book, {}, before)
