"""The catalog as columns: what a decision reads of each endpoint and no price tick changes.

Arrays are indexed by endpoint number; a number not in use has zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from broker.core.catalog import Endpoint, Task

AUTO = "auto"
"""The model that means: any endpoint of the task."""
NO_LIMIT_TOKENS = 1 << 40
"""Stands for an endpoint that names no context length or output limit."""

Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Scalar = TypeVar("Scalar", np.int64, np.float64)


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


def build_columns(endpoints: Iterable[Endpoint]) -> Columns:
    """Lay out the endpoints that are listed."""
    given = tuple(endpoints)
    listed = sorted(given, key=lambda each: each.number)
    size = listed[-1].number + 1 if listed else 0
    by_number: list[Endpoint | None] = [None] * size
    families: dict[tuple[Task, str], list[int]] = {}
    for each in listed:
        by_number[each.number] = each
        for task in each.tasks:
            for model in {AUTO, each.model}:
                families.setdefault((task, model), []).append(each.number)

    numbers = np.array([each.number for each in listed], dtype=np.int64)

    def column(kind: type, value: Callable[[Endpoint], Any]) -> NDArray[Any]:
        array: NDArray[Any] = np.zeros(size, dtype=kind)
        array[numbers] = [value(each) for each in listed]
        return array

    def words(value: Callable[[Endpoint], str]) -> Words:
        code_of: dict[str, int] = {}
        codes = column(np.int64, lambda each: code_of.setdefault(value(each), len(code_of)))
        return Words(codes, code_of)

    return Columns(
        endpoints=tuple(by_number),
        given=given,
        by_name={each.name: each.number for each in sorted(listed, key=lambda each: each.name)},
        families={key: np.array(each, dtype=np.int64) for key, each in families.items()},
        deployment=column(np.int64, lambda each: each.deployment.number),
        capacity=column(np.float64, lambda each: each.deployment.capacity),
        context_tokens=column(np.int64, lambda e: e.context_length_tokens or NO_LIMIT_TOKENS),
        output_tokens=column(np.int64, lambda each: each.max_output_tokens or NO_LIMIT_TOKENS),
        quality=column(np.float64, lambda each: each.quality),
        specialist=column(np.bool_, lambda each: bool(each.domains)),
        claims=_claims(listed),
        retains_data=column(np.bool_, lambda each: each.deployment.retains_data),
        trains_on_data=column(np.bool_, lambda each: each.deployment.trains_on_data),
        private=column(np.bool_, lambda each: each.visible_to is not None),
        has_private=any(each.visible_to is not None for each in listed),
        provider=words(lambda each: each.deployment.provider),
        region=words(lambda each: each.deployment.region),
        version=words(lambda each: each.version),
    )


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
