"""Which plan holds for whom, from when on, and what it takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import NAMESPACE_URL, UUID, uuid5

import pytest

from broker.core.money.takes import Plan, Taken, Tier, in_force, next_month, takes_at
from tests.fakes import endpoint

NOW = datetime(2030, 5, 10, 12, tzinfo=UTC)
ACME = uuid5(NAMESPACE_URL, "acme")
OTHER = uuid5(NAMESPACE_URL, "other")
_OWN = 1_000


def plan(
    take_bps: int | None,
    provider: UUID | None = None,
    domain: str | None = None,
    *,
    at: datetime = NOW,
    written: int = 0,
    tiers: tuple[Tier, ...] = (),
) -> Plan:
    """A plan with one tier, or the tiers given; with None it ends what stood before."""
    flat = () if take_bps is None else (Tier(0, take_bps),)
    created_at = NOW - timedelta(days=30) + timedelta(seconds=written)
    name = f"{provider} {domain} {at} {written} {take_bps}"
    return Plan(
        uuid5(NAMESPACE_URL, name), provider, domain, tiers or flat, at, "why", "boss", created_at
    )


@pytest.mark.parametrize(
    ("plans", "usual", "law"),
    [
        ([], _OWN, _OWN),
        ([plan(900)], 900, 900),
        ([plan(900), plan(700, domain="law")], 900, 700),
        ([plan(900), plan(700, domain="law"), plan(800, ACME)], 800, 800),
        ([plan(900), plan(700, domain="law"), plan(800, ACME), plan(600, ACME, "law")], 800, 600),
        ([plan(700, domain="law")], _OWN, 700),
        ([plan(600, ACME, "law")], _OWN, 600),
        ([plan(600, OTHER, "law"), plan(500, OTHER)], _OWN, _OWN),
    ],
)
def test_the_most_specific_plan_wins(plans: list[Plan], usual: int, law: int) -> None:
    take_bps, by_domain = takes_at(plans, NOW, {}).take(ACME, _OWN)
    assert (take_bps, by_domain.get("law", take_bps)) == (usual, law)
    listed = endpoint(name="acme/small", take_bps=_OWN)
    [applied] = Taken().of(takes_at(plans, NOW, {}), (listed,))
    assert (applied.take_of(None), applied.take_of("law")) == (usual, law)
    assert applied.take_of("medicine") == usual


def test_a_plan_holds_from_its_very_moment_on_and_until_the_next() -> None:
    day = timedelta(days=1)
    plans = [plan(900, at=NOW), plan(500, at=NOW + day), plan(None, at=NOW + 2 * day)]
    takes = [
        takes_at(plans, at, {}).take(ACME, _OWN)[0]
        for at in (NOW - timedelta(microseconds=1), NOW, NOW + day, NOW + 2 * day)
    ]
    assert takes == [_OWN, 900, 500, _OWN]


def test_of_two_plans_for_one_moment_the_one_written_later_holds() -> None:
    plans = [plan(500, written=2), plan(900, written=1)]
    assert in_force(plans, NOW)[None, None].take_bps(0) == 500


def test_the_next_change_is_known() -> None:
    later = NOW + timedelta(hours=1)
    assert takes_at([], NOW, {}).changes_at is None
    assert takes_at([plan(900)], NOW, {}).changes_at is None
    assert takes_at([plan(900), plan(800, at=later)], NOW, {}).changes_at == later
    latest = plan(700, ACME, at=later + timedelta(hours=1))
    assert takes_at([latest, plan(800, at=later)], NOW, {}).changes_at == later
    tiered = plan(0, tiers=(Tier(0, 900), Tier(10, 500)))
    assert takes_at([tiered], NOW, {}).changes_at == datetime(2030, 6, 1, tzinfo=UTC)
    assert next_month(datetime(2030, 12, 31, 23, 59, tzinfo=UTC)) == datetime(
        2031, 1, 1, tzinfo=UTC
    )


@pytest.mark.parametrize(
    ("sold", "take_bps"), [(0, 900), (9, 900), (10, 500), (99, 500), (100, 100), (10**18, 100)]
)
def test_a_tier_is_reached_exactly_at_its_threshold(sold: int, take_bps: int) -> None:
    tiered = plan(0, tiers=(Tier(0, 900), Tier(10, 500), Tier(100, 100)))
    assert takes_at([tiered], NOW, {ACME: sold}).take(ACME, _OWN) == (take_bps, {})


def test_a_market_without_plans_keeps_the_very_same_endpoints() -> None:
    listed = endpoint()
    [applied] = Taken().of(takes_at([], NOW, {}), (listed,))
    assert applied is listed


def test_of_a_changed_catalog_or_plan_only_those_concerned_are_other_endpoints() -> None:
    taken, general = Taken(), [plan(900)]
    listed = tuple(endpoint(at, f"{name}/small") for at, name in enumerate(("acme", "other", "a")))
    first = taken.of(takes_at(general, NOW, {}), listed)
    assert [each.take_bps for each in first] == [900, 900, 900]
    renewed = endpoint(2, "a/small", quality=0.9)
    second = taken.of(takes_at(general, NOW, {}), (*listed[:2], renewed))
    assert second[0] is first[0]
    assert second[1] is first[1]
    assert (second[2].quality, second[2].take_bps) == (0.9, 900)
    third = taken.of(takes_at([*general, plan(700, ACME)], NOW, {}), (*listed[:2], renewed))
    assert [each.take_bps for each in third] == [700, 900, 900]
    assert (third[1] is first[1], third[2] is second[2]) == (True, True)
