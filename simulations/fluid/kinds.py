"""A scenario's market as a fluid: atoms of demand, and endpoints that are alike taken as one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from broker.core.columns import AUTO
from pricing.book import FloatArray, IntArray, Rate
from pricing.equilibrium import WelfareOptimum
from pricing.fluid import FluidMarket
from pricing.tiers import Tier
from simulations.demand import ConsumerClass
from simulations.fluid.atoms import Atoms, atoms_of
from simulations.fluid.capacity import alone_s, share_there, work_s
from simulations.scenario import Scenario
from simulations.supply import EndpointSpec

_PICOS_PER_USD = 1e12


@dataclass(frozen=True, slots=True, eq=False)
class Usual:
    """What a usual call is at each kind: its cost and its list price in USD, its work in seconds
    of a whole server."""

    cost_usd: FloatArray
    list_usd: FloatArray
    work_s: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Kinds:
    """What does not change with time."""

    kind_of: IntArray
    """By endpoint."""
    members: tuple[tuple[EndpointSpec, ...], ...]
    class_of: IntArray
    """By atom."""
    share: FloatArray
    """By atom, of its class."""
    arcs: FluidMarket
    """With atoms for classes and kinds for endpoints; what is wanted and there is filled in."""
    usual: Usual

    @classmethod
    def of(cls, scenario: Scenario) -> Kinds:
        """Cut classes into atoms and put alike endpoints together."""
        kind_of, members = _grouped(scenario)
        firsts = [each[0] for each in members]
        atoms = [atoms_of(each) for each in scenario.classes]
        sizes = [each.value_usd.size for each in atoms]
        return cls(
            kind_of=kind_of,
            members=members,
            class_of=np.repeat(np.arange(len(atoms)), sizes),
            share=np.repeat([1.0 / size for size in sizes], sizes),
            arcs=_arcs(scenario, firsts, atoms),
            usual=_usual(scenario, firsts),
        )

    def there(self, at_s: float) -> FloatArray:
        """How many servers at full speed each kind has at a moment."""
        return np.array([sum(share_there(each, at_s) for each in alike) for alike in self.members])

    def market(self, calls_per_s: FloatArray, there: FloatArray) -> FluidMarket:
        """The market in which classes call at these rates and these servers are there."""
        return replace(self.arcs, wanted=calls_per_s[self.class_of] * self.share, capacity=there)

    def prices(self, best: WelfareOptimum) -> FloatArray:
        """By endpoint, what a usual call costs at the optimum, over what it costs at list."""
        usual = self.usual
        price: FloatArray = (usual.cost_usd + usual.work_s * best.congestion) / usual.list_usd
        return price[self.kind_of]

    def loads(self, best: WelfareOptimum, there: FloatArray) -> FloatArray:
        """By endpoint, the share of what its kind can do that is used at the optimum."""
        work = best.flow * self.arcs.work
        used = np.bincount(self.arcs.arc_endpoint, work, len(self.members))
        load: FloatArray = used / np.maximum(there, 1e-12)
        return load[self.kind_of]


def _grouped(scenario: Scenario) -> tuple[IntArray, tuple[tuple[EndpointSpec, ...], ...]]:
    asked = {each.model for each in scenario.classes}
    places: dict[str, int] = {}
    members: list[list[EndpointSpec]] = []
    kind_of = []
    for name, (_, each) in zip(scenario.endpoint_names, scenario.endpoints, strict=True):
        alike = replace(
            each,
            name=name if name in asked else "",
            enters_s=0.0,
            exits_s=0.0,
            outages=(),
            brownouts=(),
            cost_nanos_per_s=0,
            region="",
        )
        place = places.setdefault(repr(alike), len(members))
        if place == len(members):
            members.append([])
        members[place].append(replace(each, name=name))
        kind_of.append(place)
    return np.array(kind_of), tuple(map(tuple, members))


def _arcs(scenario: Scenario, kinds: list[EndpointSpec], atoms: list[Atoms]) -> FluidMarket:
    sizes = [each.value_usd.size for each in atoms]
    begins = np.concatenate(([0], np.cumsum(sizes)))
    parts = []
    for place, (consumers, cut) in enumerate(zip(scenario.classes, atoms, strict=True)):
        for kind, endpoint in enumerate(kinds):
            if _fits(consumers, endpoint):
                value, cost, work = _terms(consumers, cut, endpoint, _together(scenario, endpoint))
                first = begins[place] + np.arange(sizes[place])
                parts.append((first, np.full(sizes[place], kind), value, cost, work))
    empty = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), *(np.zeros(0),) * 3)
    columns = zip(*(parts or [empty]), strict=True)
    atom_of, kind_of, value, cost, work = (np.concatenate(each) for each in columns)
    return FluidMarket(
        wanted=np.zeros(begins[-1]),
        capacity=np.ones(len(kinds)),
        resource=np.arange(len(kinds)),
        arc_class=atom_of,
        arc_endpoint=kind_of,
        value=value,
        cost=cost,
        work=work,
    )


def _fits(consumers: ConsumerClass, endpoint: EndpointSpec) -> bool:
    named = consumers.model in (AUTO, endpoint.model, endpoint.name)
    sold = consumers.tier is Tier.STANDARD or consumers.tier in endpoint.tiers_bps
    good = consumers.quality_min is None or _quality(consumers, endpoint) >= consumers.quality_min
    return named and sold and good and consumers.task in endpoint.tasks


def _quality(consumers: ConsumerClass, endpoint: EndpointSpec) -> float:
    return endpoint.domains.get(consumers.domain or "", endpoint.quality)


def _terms(
    consumers: ConsumerClass, cut: Atoms, endpoint: EndpointSpec, together_max: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Value and cost in USD, work in seconds of the server, by atom."""
    waited = alone_s(endpoint.server, cut.tokens_in, cut.tokens_out)
    value = cut.value_usd * _quality(consumers, endpoint) ** consumers.quality_taste
    value = value - consumers.delay_cost_usd_per_s * waited
    cost = _usd(endpoint.cost, cut.tokens_in, cut.tokens_out)
    return value, cost, work_s(endpoint.server, cut.tokens_in, cut.tokens_out, together_max)


def _usual(scenario: Scenario, kinds: list[EndpointSpec]) -> Usual:
    columns: list[tuple[float, float, float]] = []
    for endpoint in kinds:
        of = [each for each in scenario.classes if _fits(each, endpoint)] or scenario.classes
        tokens_in = np.array([np.mean([each.tokens_in.mean for each in of])])
        tokens_out = np.array([np.mean([each.tokens_out.mean for each in of])])
        together = _together(scenario, endpoint)
        band = endpoint.band
        listed = Rate(band.list_in_micros, band.list_out_micros, band.list_call_nanos)
        columns.append(
            (
                float(_usd(endpoint.cost, tokens_in, tokens_out)[0]),
                float(_usd(listed, tokens_in, tokens_out)[0]),
                float(work_s(endpoint.server, tokens_in, tokens_out, together)[0]),
            )
        )
    return Usual(*np.array(columns).T)


def _together(scenario: Scenario, endpoint: EndpointSpec) -> float:
    """How many calls the broker lets one endpoint have at once."""
    return endpoint.capacity * scenario.routing.queue_factor


def _usd(rate: Rate, tokens_in: FloatArray, tokens_out: FloatArray) -> FloatArray:
    picos = tokens_in * rate.rate_in_micros + tokens_out * rate.rate_out_micros
    return np.asarray((picos + rate.rate_call_nanos * 1e3) / _PICOS_PER_USD)
