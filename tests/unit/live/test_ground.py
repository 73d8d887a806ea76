"""What the price tick goes by is laid out once, and of a catalog that changes what has changed."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import pytest

from broker.core.catalog import Band, Endpoint, Task
from broker.flows.market.facts import Banded, Change
from broker.flows.market.measure import OF_ENDPOINTS, Ground, ground_of, member_of
from broker.flows.market.price_newcomers import Newcomers
from pricing.book import PriceBook
from pricing.choice import Choice, Scope, choice_for, ensemble_of
from tests.fakes import endpoint

STANDING = {
    (Scope.MARKET, ""): Choice(Scope.MARKET, "", "pi"),
    (Scope.DOMAIN, "law"): Choice(Scope.DOMAIN, "law", "posted"),
    (Scope.ENDPOINT, "acme/4"): Choice(Scope.ENDPOINT, "acme/4", "revenue"),
}


def some(number: int, random: Random) -> Endpoint:
    """An endpoint of any price, on one of a few servers."""
    server, listed = random.randrange(12), random.randrange(2, 9)
    made = endpoint(
        number,
        f"acme/{number}",
        model=random.choice(("small", "wide")),
        tasks=random.choice(([Task.CHAT], [Task.CHAT, Task.INFER])),
        domains=random.choice(({}, {"law": 0.9}, {"law": 0.5, "food": 0.6})),
        deployment={
            "id": uuid5(NAMESPACE_URL, f"server {server}"),
            "number": server,
            "capacity": 10 + server,
        },
    )
    by_call = random.choice(((0, 0, 0), (1, 5, 9)))
    return replace(made, band=Band(1, listed, 9, 1, listed, 9, *by_call))


def same(moved: Ground, anew: Ground) -> None:
    """Hold both to say the same."""
    for bound in ("floor", "listed", "ceiling", "present"):
        np.testing.assert_array_equal(getattr(moved.bands, bound), getattr(anew.bands, bound))
    np.testing.assert_array_equal(moved.deployment, anew.deployment)
    used = np.unique(anew.deployment[anew.deployment >= 0])
    np.testing.assert_array_equal(moved.capacity[used], anew.capacity[used])
    np.testing.assert_array_equal(moved.family < 0, anew.family < 0)
    pairs = {*zip(moved.family.tolist(), anew.family.tolist(), strict=True)}
    assert len(pairs) == len({each for each, _ in pairs}) == len({each for _, each in pairs})
    assert {*moved.roster.ids} >= {each.deployment.id for each in moved.endpoints}


@pytest.mark.parametrize("seed", range(4))
def test_a_catalog_that_changes_is_laid_out_as_one_laid_out_anew(seed: int) -> None:
    random = Random(seed)
    catalog = {number: some(number, random) for number in range(0, 40, 2)}
    ground, newcomers = ground_of([*catalog.values()]), Newcomers()
    for turn in range(50):
        for number in random.sample(range(44), random.randint(0, 5)):
            if number in catalog and random.random() < 0.4:
                del catalog[number]
            else:
                catalog[number] = some(number, random)
        listed = tuple(catalog[number] for number in sorted(catalog))
        ground = ground.moved(listed)
        same(ground, ground_of(listed))
        priced = newcomers.priced(PriceBook.empty(), listed).matrix()
        np.testing.assert_array_equal(priced, Banded.of(listed).bands.listed, str(turn))


def test_nobody_is_left_of_a_catalog_that_all_have_left() -> None:
    random = Random(1)
    ground = ground_of([some(number, random) for number in range(5)])
    same(ground.moved(()), ground_of(()))
    listed = (some(2, random),)
    same(ground.moved(()).moved(listed), ground_of(listed))


def test_endpoints_are_chosen_for_as_the_members_that_stand_for_them() -> None:
    random = Random(3)
    listed = [some(number, random) for number in range(0, 30, 2)]
    by_endpoint = ensemble_of(listed, STANDING, OF_ENDPOINTS)
    by_member = ensemble_of(map(member_of, listed), STANDING)
    assert [each.key for each in by_endpoint.groups] == [each.key for each in by_member.groups]
    assert len(by_endpoint.groups) == 3
    np.testing.assert_array_equal(by_endpoint.group_of, by_member.group_of)
    for each in listed:
        key = by_endpoint.groups[by_endpoint.group_of[each.number]].key
        assert key == choice_for(member_of(each), STANDING).key


def test_families_that_are_no_more_are_forgotten_in_time() -> None:
    ground = ground_of([endpoint(0)])
    for turn in range(50):
        ground = ground.moved((endpoint(0, model=f"model {turn}"),))
        assert len(ground.families) < 5


def test_a_change_is_told_by_who_is_another_object() -> None:
    stands, changes, leaves, comes = (endpoint(number) for number in range(4))
    changed = endpoint(1, quality=0.9)
    change = Change.between((stands, changes, leaves), (stands, changed, comes))
    assert (change.fresh, change.gone) == ((changed, comes), (2,))
