"""Which controller moves whose prices, from when until when; the narrowest choice wins.

    endpoint > provider > domain > market

Choices are data: a scope, a subject, a controller's name and its numbers. Of several in force for
one subject the one that began last wins, so a choice for a few days lies over the standing one.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, Protocol

import numpy as np

from pricing.controllers import Controller
from pricing.controllers.excess import ExcessLoad
from pricing.controllers.pi import ProportionalIntegral
from pricing.controllers.posted import Posted
from pricing.controllers.revenue import RevenueSearch
from pricing.controllers.shadow import ShadowPrice
from pricing.ensemble import Ensemble, Group
from pricing.schedule import Schedule

CONTROLLERS: Mapping[str, Callable[..., Controller[Any]]] = {
    "posted": Posted,
    "excess": ExcessLoad,
    "pi": ProportionalIntegral,
    "shadow": ShadowPrice,
    "revenue": RevenueSearch,
}


class Scope(enum.StrEnum):
    """Whom a choice is for, the widest first."""

    MARKET = "market"
    DOMAIN = "domain"
    PROVIDER = "provider"
    ENDPOINT = "endpoint"


class ChoiceMalformed(ValueError):
    """A choice that makes no sense; `field` is where."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail


def build_controller(name: str, parameters: Mapping[str, float]) -> Controller[Any]:
    """The controller of that name with these numbers, the others at their defaults.

    Raises ChoiceMalformed.
    """
    kind: Any = CONTROLLERS.get(name)
    if kind is None:
        raise ChoiceMalformed("controller", f"is one of {', '.join(CONTROLLERS)}")
    known = {each.name: each.type for each in fields(kind)}
    given: dict[str, float] = {}
    for parameter, value in parameters.items():
        place = f"parameters.{parameter}"
        if parameter not in known:
            raise ChoiceMalformed(place, f"'{name}' takes {', '.join(known) or 'none'}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
            raise ChoiceMalformed(place, "is a finite number")
        whole = known[parameter] in (int, "int")
        if whole and (value != int(value) or not 0 <= value < 2**32):
            raise ChoiceMalformed(place, "is a whole number below 2^32")
        given[parameter] = int(value) if whole else value
    try:
        controller: Controller[Any] = kind(**given)
    except ValueError as error:
        raise ChoiceMalformed("parameters", f"{error}") from None
    return controller


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond what a float can be
        return False


@dataclass(frozen=True, slots=True)
class Choice:
    """`subject` names a domain, a provider or an endpoint; it is empty for the market. It is in
    force from `valid_from_s` on and before `valid_to_s`, in Unix time. Raises ChoiceMalformed."""

    scope: Scope
    subject: str
    controller: str
    parameters: Mapping[str, float] = field(default_factory=dict)
    schedule: Schedule | None = None
    valid_from_s: float = -math.inf
    valid_to_s: float = math.inf

    def __post_init__(self) -> None:
        if (self.scope is Scope.MARKET) != (self.subject == ""):
            raise ChoiceMalformed("subject", "names whom it is for, and is empty for the market")
        if not self.valid_from_s < self.valid_to_s:
            raise ChoiceMalformed("valid_to", "must be after its beginning")
        build_controller(self.controller, self.parameters)

    @property
    def key(self) -> str:
        """The same for all choices of the same controller with the same numbers."""
        told = ",".join(f"{name}={self.parameters[name]!r}" for name in sorted(self.parameters))
        return f"{self.controller}({told}){self.schedule or ''}"


@dataclass(frozen=True, slots=True)
class Member:
    """What a choice can go by; `domain` is the one that an endpoint is best at, empty for none."""

    number: int
    name: str
    provider: str
    domain: str = ""


Subjects = Mapping[Scope, Callable[[Any], str]]
"""What a choice of each scope, but for that of the market, goes by of an endpoint."""
OF_MEMBERS: Subjects = {
    Scope.ENDPOINT: attrgetter("name"),
    Scope.PROVIDER: attrgetter("provider"),
    Scope.DOMAIN: attrgetter("domain"),
}


class Numbered(Protocol):
    """An endpoint, whatever stands for it."""

    @property
    def number(self) -> int:
        """Its number."""


STANDARD = Choice(Scope.MARKET, "", "excess")
"""What is in force where nobody chose."""


def in_force(choices: Iterable[Choice], at_s: float) -> dict[tuple[Scope, str], Choice]:
    """The choice in force for each subject at a Unix time; of equals the one given last."""
    standing: dict[tuple[Scope, str], Choice] = {}
    for choice in sorted(choices, key=lambda each: each.valid_from_s):
        if choice.valid_from_s <= at_s < choice.valid_to_s:
            standing[choice.scope, choice.subject] = choice
    return standing


def choice_for(member: Member, standing: Mapping[tuple[Scope, str], Choice]) -> Choice:
    """The narrowest choice in force for an endpoint, STANDARD where there is none."""
    return _Standing.of(standing, OF_MEMBERS).choice_for(member)


@dataclass(frozen=True, slots=True)
class _Standing:
    """The choices in force by subject, a table for each scope: nearly all have none but one."""

    narrow: tuple[tuple[Callable[[Any], str], dict[str, Choice]], ...]
    """The tables that are not empty, the narrowest scope first, and what is looked for there."""
    widest: Choice

    @classmethod
    def of(cls, standing: Mapping[tuple[Scope, str], Choice], subjects: Subjects) -> _Standing:
        tables: dict[Scope, dict[str, Choice]] = {scope: {} for scope in Scope}
        for (scope, subject), choice in standing.items():
            tables[scope][subject] = choice
        narrow = tuple(
            (subjects[scope], tables[scope])
            for scope in (Scope.ENDPOINT, Scope.PROVIDER, Scope.DOMAIN)
            if tables[scope]
        )
        return cls(narrow, tables[Scope.MARKET].get("", STANDARD))

    def choice_for(self, member: object) -> Choice:
        for subject, table in self.narrow:
            choice = table.get(subject(member))
            if choice is not None:
                return choice
        return self.widest


def ensemble_of(
    members: Iterable[Numbered],
    standing: Mapping[tuple[Scope, str], Choice],
    subjects: Subjects = OF_MEMBERS,
) -> Ensemble:
    """The controllers that are chosen, each for its endpoints, of which `subjects` tell what is
    asked."""
    places: dict[str, int] = {}
    known: dict[int, int] = {}
    groups: list[Group] = []
    chosen: dict[int, int] = {}
    choice_of = _Standing.of(standing, subjects).choice_for
    for member in members:
        choice = choice_of(member)
        place = known.get(id(choice))
        if place is None:
            place = known[id(choice)] = places.setdefault(choice.key, len(groups))
            if place == len(groups):
                controller = build_controller(choice.controller, choice.parameters)
                groups.append(Group(choice.key, choice.controller, controller, choice.schedule))
        chosen[member.number] = place
    group_of = np.full(max(chosen, default=-1) + 1, -1)
    group_of[list(chosen)] = list(chosen.values())
    return Ensemble(tuple(groups), group_of)
