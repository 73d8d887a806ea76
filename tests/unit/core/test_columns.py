"""A catalog that changes is laid out as one laid out anew; what stands stays as it is."""

from __future__ import annotations

from dataclasses import fields, replace
from random import Random

import numpy as np
import pytest

from broker.core.catalog import Endpoint, Task
from broker.core.columns import AUTO, CHANGED_MAX, Columns, Words, build_columns
from tests.fakes import ACCOUNT, endpoint

TASKS = [Task.CHAT, Task.EMBEDDING, Task.INFER]
MODELS, DOMAINS, REGIONS = ("small", "wide", "auto"), ("law", "food", "code"), ("eu", "us", "in")


def some(number: int, random: Random) -> Endpoint:
    """An endpoint of any terms."""
    claimed = random.sample(DOMAINS, random.randint(0, 2))
    return endpoint(
        number,
        f"provider-{random.randrange(5)}/endpoint-{number}-{random.randrange(2)}",
        model=random.choice(MODELS),
        version=random.choice("12"),
        tasks=frozenset(random.sample(TASKS, random.randint(1, 2))),
        quality=random.random(),
        domains={each: random.choice((0.5, 0.9)) for each in claimed},
        context_length_tokens=random.choice((None, 4_096)),
        visible_to=random.choice((None, None, None, frozenset({ACCOUNT}))),
        deployment={"region": random.choice(REGIONS), "retains_data": random.random() < 0.5},
    )


def told(columns: Columns) -> dict[str, object]:
    """All that columns say, words in place of their codes."""
    said: dict[str, object] = {}
    for each in fields(columns):
        value = getattr(columns, each.name)
        if isinstance(value, Words):
            word_of = {code: word for word, code in value.code_of.items()}
            used = columns.by_name.values()
            said[each.name] = {number: word_of[int(value.codes[number])] for number in used}
        elif isinstance(value, np.ndarray):
            said[each.name] = (value.dtype, value.tolist())
        elif each.name == "families":
            said[each.name] = {key: numbers.tolist() for key, numbers in value.items()}
        elif each.name == "claims":
            said[each.name] = {key: [a.tolist() for a in pair] for key, pair in value.items()}
        elif each.name == "by_name":
            said[each.name] = list(value.items())
        else:
            said[each.name] = value
    return said


@pytest.mark.parametrize("seed", range(6))
def test_a_catalog_that_changes_is_laid_out_as_one_laid_out_anew(seed: int) -> None:
    random = Random(seed)
    catalog = {number: some(number, random) for number in range(0, 60, 2)}
    columns = build_columns(catalog.values())
    for _ in range(60):
        for number in random.sample(range(70), random.randint(0, 4)):
            if number in catalog and random.random() < 0.4:
                del catalog[number]
            else:
                catalog[number] = some(number, random)
        listed = tuple(catalog[number] for number in sorted(catalog))
        columns = build_columns(listed, columns)
        assert told(columns) == told(build_columns(listed))


def test_whoever_stands_is_not_looked_at_again() -> None:
    random = Random(1)
    catalog = [some(number, random) for number in range(30)]
    catalog[3] = replace(catalog[3], tasks=frozenset({Task.CHAT}), model="small")
    before = build_columns(catalog)
    catalog[3] = replace(catalog[3], quality=0.123)
    after = build_columns(catalog, before)
    assert after.quality[3] == 0.123
    assert after.by_name is before.by_name
    for key in before.families:
        assert after.families[key] is before.families[key]


def test_where_nobody_is_left_nobody_is_meant() -> None:
    random = Random(2)
    before = build_columns([some(number, random) for number in range(5)])
    after = build_columns([], before)
    assert (after.endpoints, after.families, after.claims, after.by_name) == ((), {}, {}, {})
    again = build_columns([endpoint(2)], after)
    members = again.members(Task.CHAT, AUTO)
    assert members is not None
    assert members.tolist() == [2]


def test_words_that_nobody_uses_any_more_are_forgotten_in_time() -> None:
    catalog = [endpoint(0), endpoint(1)]
    columns = build_columns(catalog)
    for turn in range(3 * CHANGED_MAX):
        catalog[1] = endpoint(1, "zeta/small", version=f"v{turn}")
        columns = build_columns(catalog, columns)
        assert len(columns.version.code_of) <= 2 * CHANGED_MAX
        numbers = np.array([0, 1])
        assert columns.version.among(numbers, [f"v{turn}"]).tolist() == [False, True]
