"""The catalog as columns: what a decision reads of each endpoint and no price tick changes.

Arrays are indexed by endpoint number; a number not in use has zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from broker.core.catalog import Endpoint, Task

AUTO = "auto"
"""The model that means: any endpoint of the task."""
NO_LIMIT_TOKENS = 1 << 40
"""Stands for an endpoint that names no context length or output limit."""
CHANGED_MAX: Final = 64
"""So many endpoints, or an eighth of all, are changed one by one; of more all is laid out anew."""

Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Scalar = TypeVar("Scalar", np.int64, np.float64)

_NOBODY: Final[Numbers] = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """A column of words, each word one small number."""

    codes: Numbers
    code_of: Mapping[str, int]

    def among(self, numbers: Numbers, words: Iterable[str]) -> Bools:
        """Say which endpoints have one of these words."""
        wanted = [self.code_of[word] for word in words if word in self.code_of]
        return np.isin(self.codes[numbers], wanted)


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """All endpoints, by number. Build it with `build_columns`."""

    endpoints: tuple[Endpoint | None, ...]
    """None where a number is not in use."""
    given: tuple[Endpoint, ...]
    """What they were built of: the very same tuple holds nothing new."""
    by_name: Mapping[str, int]
    families: Mapping[tuple[Task, str], Numbers]
    """By task and model; under `auto` all of the task."""
    deployment: Numbers
    capacity: Floats
    context_tokens: Numbers
    output_tokens: Numbers
    quality: Floats
    specialist: Bools
    """It claims at least one domain."""
    claims: Mapping[str, tuple[Numbers, Floats]]
    """By domain: who claims it, and the quality that each declares there."""
    retains_data: Bools
    trains_on_data: Bools
    private: Bools
    has_private: bool
    provider: Words
    region: Words
    version: Words

    def members(self, task: Task, model: str) -> Numbers | None:
        """Return who is meant by a model that is asked for: a family, all of the task under `auto`,
        or the one of that name, `provider/endpoint`; None: there is none."""
        # Ten thousand arrays of one would take 2 MB.
        family, number = self.families.get((task, model)), self.by_name.get(model)
        one = None if number is None else self.endpoints[number]
        if one is None or task not in one.tasks:
            return family
        if family is None:
            return np.array([one.number], dtype=np.int64)
        return np.array(sorted({one.number, *family.tolist()}), dtype=np.int64)

    def on(self, deployments: Iterable[int]) -> Bools:
        """Say which endpoints are on one of these deployments."""
        # By a table: `np.isin` would load the half of numpy that is about masked arrays.
        among = np.zeros(int(self.deployment.max(initial=0)) + 1, dtype=np.bool_)
        among[[each for each in deployments if each < among.size]] = True
        away: Bools = among[self.deployment]
        return away


def as_index(numbers: Numbers) -> slice | Numbers:
    """Return a slice where the numbers follow each other, else the numbers."""
    first, size = int(numbers[0]) if numbers.size else 0, numbers.size
    return slice(first, first + size) if (np.diff(numbers) == 1).all() else numbers


def build_columns(endpoints: Iterable[Endpoint], before: Columns | None = None) -> Columns:
    """Lay out the endpoints that are listed. Those that `before` has are not looked at again: of
    ten thousand nearly all stand while one comes, goes, or changes its terms."""
    given = tuple(endpoints)
    if before is not None:
        change = _change(before, given)
        if change is not None:
            return _changed(before, given, *change)
    listed = sorted(given, key=lambda each: each.number)
    size = listed[-1].number + 1 if listed else 0
    by_number: list[Endpoint | None] = [None] * size
    families: dict[tuple[Task, str], list[int]] = {}
    for each in listed:
        by_number[each.number] = each
        for key in _families(each):
            families.setdefault(key, []).append(each.number)

    numbers = np.array([each.number for each in listed], dtype=np.int64)

    def column(kind: type, value: Callable[[Endpoint], Any]) -> NDArray[Any]:
        array: NDArray[Any] = np.zeros(size, dtype=kind)
        array[numbers] = [value(each) for each in listed]
        return array

    def words(value: Callable[[Endpoint], str]) -> Words:
        code_of: dict[str, int] = {}
        codes = column(np.int64, lambda each: code_of.setdefault(value(each), len(code_of)))
        return Words(codes, code_of)

    columns: dict[str, Any] = {name: column(*told) for name, told in _COLUMNS.items()}
    columns |= {name: words(value) for name, value in _WORDS.items()}
    return Columns(
        endpoints=tuple(by_number),
        given=given,
        by_name={each.name: each.number for each in sorted(listed, key=lambda each: each.name)},
        families={key: np.array(each, dtype=np.int64) for key, each in families.items()},
        claims=_claims(listed),
        has_private=bool(columns["private"].any()),
        **columns,
    )


_COLUMNS: Final[Mapping[str, tuple[type, Callable[[Endpoint], Any]]]] = {
    "deployment": (np.int64, lambda each: each.deployment.number),
    "capacity": (np.float64, lambda each: each.deployment.capacity),
    "context_tokens": (np.int64, lambda each: each.context_length_tokens or NO_LIMIT_TOKENS),
    "output_tokens": (np.int64, lambda each: each.max_output_tokens or NO_LIMIT_TOKENS),
    "quality": (np.float64, lambda each: each.quality),
    "specialist": (np.bool_, lambda each: bool(each.domains)),
    "retains_data": (np.bool_, lambda each: each.deployment.retains_data),
    "trains_on_data": (np.bool_, lambda each: each.deployment.trains_on_data),
    "private": (np.bool_, lambda each: each.visible_to is not None),
}
_WORDS: Final[Mapping[str, Callable[[Endpoint], str]]] = {
    "provider": lambda each: each.deployment.provider,
    "region": lambda each: each.deployment.region,
    "version": lambda each: each.version,
}


def _families(endpoint: Endpoint) -> set[tuple[Task, str]]:
    return {(task, model) for task in endpoint.tasks for model in (AUTO, endpoint.model)}


def _change(
    before: Columns, given: tuple[Endpoint, ...]
) -> tuple[list[Endpoint], list[Endpoint]] | None:
    """Return who is new or has changed, and who is no more or was otherwise; None where these are
    too many to change one by one, or too many words are remembered of those that are no more."""
    known = before.endpoints
    size = len(known)
    fresh = [each for each in given if each.number >= size or known[each.number] is not each]
    most = max(CHANGED_MAX, len(given) // 8)
    words = max(len(before.provider.code_of), len(before.version.code_of))
    if len(fresh) > most or words > len(given) + CHANGED_MAX:
        return None
    stale = [old for each in fresh if each.number < size and (old := known[each.number])]
    if sum(each is not None for each in known) - len(stale) + len(fresh) > len(given):
        now = {each.number for each in given}
        stale += [each for each in known if each is not None and each.number not in now]
    return None if len(stale) > 2 * most else (fresh, stale)


def _changed(
    before: Columns, given: tuple[Endpoint, ...], fresh: list[Endpoint], stale: list[Endpoint]
) -> Columns:
    """Lay out the same with the `fresh`, without the `stale`, who are no more or were otherwise."""
    by_number = [*before.endpoints]
    by_number += [None] * (max((each.number + 1 for each in fresh), default=0) - len(by_number))
    for old in stale:
        by_number[old.number] = None
    for each in fresh:
        by_number[each.number] = each
    while by_number and by_number[-1] is None:
        by_number.pop()
    numbers = [each.number for each in fresh]
    left = [each.number for each in stale if each.number < len(by_number)]

    def column(known: NDArray[Any], values: list[Any]) -> NDArray[Any]:
        array = np.zeros(len(by_number), dtype=known.dtype)
        array[: known.size] = known[: array.size]
        array[left] = 0
        array[numbers] = values
        return array

    def words(known: Words, value: Callable[[Endpoint], str]) -> Words:
        code_of = dict(known.code_of)
        codes = [code_of.setdefault(value(each), len(code_of)) for each in fresh]
        return Words(column(known.codes, codes), code_of)

    columns: dict[str, Any] = {
        name: column(getattr(before, name), [value(each) for each in fresh])
        for name, (_, value) in _COLUMNS.items()
    }
    columns |= {name: words(getattr(before, name), value) for name, value in _WORDS.items()}
    return Columns(
        endpoints=tuple(by_number),
        given=given,
        by_name=_renamed(before.by_name, fresh, stale),
        families=_regrouped(before.families, fresh, stale),
        claims=_reclaimed(before.claims, fresh, stale),
        has_private=bool(columns["private"].any()),
        **columns,
    )


def _renamed(
    by_name: Mapping[str, int], fresh: list[Endpoint], stale: list[Endpoint]
) -> Mapping[str, int]:
    now = {each.name: each.number for each in fresh}
    if now == {each.name: each.number for each in stale}:
        return by_name
    gone = {each.name for each in stale}
    all_names = {name: number for name, number in by_name.items() if name not in gone} | now
    return {name: all_names[name] for name in sorted(all_names)}


def _regrouped(
    families: Mapping[tuple[Task, str], Numbers], fresh: list[Endpoint], stale: list[Endpoint]
) -> Mapping[tuple[Task, str], Numbers]:
    left = {(key, each.number) for each in stale for key in _families(each)}
    joined = {(key, each.number) for each in fresh for key in _families(each)}
    changed = dict(families)
    for key, number in left - joined:
        changed[key] = changed[key][changed[key] != number]
    for key, number in joined - left:
        members = changed.get(key, _NOBODY)
        changed[key] = np.insert(members, members.searchsorted(number), number)
    return {key: each for key, each in changed.items() if each.size}


def _reclaimed(
    claims: Mapping[str, tuple[Numbers, Floats]], fresh: list[Endpoint], stale: list[Endpoint]
) -> dict[str, tuple[Numbers, Floats]]:
    left = {(name, e.number, quality) for e in stale for name, quality in e.domains.items()}
    joined = {(name, e.number, quality) for e in fresh for name, quality in e.domains.items()}
    changed = dict(claims)
    for domain, number, _ in left - joined:
        numbers, qualities = changed[domain]
        kept = numbers != number
        changed[domain] = numbers[kept], qualities[kept]
    for domain, number, quality in joined - left:
        numbers, qualities = changed.get(domain, (_NOBODY, np.zeros(0)))
        at = numbers.searchsorted(number)
        changed[domain] = np.insert(numbers, at, number), np.insert(qualities, at, quality)
    return {domain: each for domain, each in changed.items() if each[0].size}


def _claims(endpoints: Iterable[Endpoint]) -> dict[str, tuple[Numbers, Floats]]:
    told: dict[str, list[tuple[int, float]]] = {}
    for each in endpoints:
        for domain, quality in each.domains.items():
            told.setdefault(domain, []).append((each.number, quality))
    claims: dict[str, tuple[Numbers, Floats]] = {}
    for domain, rows in told.items():
        numbers, qualities = zip(*rows, strict=True)
        claims[domain] = np.array(numbers, dtype=np.int64), np.array(qualities, dtype=np.float64)
    return claims


def middle(values: Floats) -> float:
    """Return the median; 0 of nothing. By hand, for numpy's own loads the half that is about masked
    arrays: 2 MB."""
    if not values.size:
        return 0.0
    low, high = (values.size - 1) // 2, values.size // 2
    parted = np.partition(values, (low, high))
    return float(parted.item(low) + parted.item(high)) / 2.0


def grown(array: NDArray[Scalar], size: int, filler: float) -> NDArray[Scalar]:
    """Return an array with room for so many numbers, twice as many where it had too little."""
    if size <= array.size:
        return array
    wider = np.full(max(size, 2 * array.size), filler, dtype=array.dtype)
    wider[: array.size] = array
    return wider


def ints(array: Numbers) -> memoryview[int]:
    """Return the same memory, to be read and written one number at a time."""
    return array.data.cast("B").cast("q")


def floats(array: Floats) -> memoryview[float]:
    """The same."""
    return array.data.cast("B").cast("d")
