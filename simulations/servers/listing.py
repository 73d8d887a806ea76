"""What is on offer at a moment of a simulation: endpoints as the broker knows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np

from broker.core.catalog import Band, Deployment, Endpoint, Kind, ListingStatus
from pricing.book import FloatArray, IntArray
from pricing.choice import Member
from pricing.snapshot import Bands
from simulations.scenario import Scenario
from simulations.servers.strategies import declared
from simulations.supply import EndpointSpec, ProviderSpec


class Listing:
    """Endpoints come and go and change their bands; numbers are places in the scenario.

    Each endpoint stands on a deployment of its own, of the same number.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.specs: tuple[EndpointSpec, ...] = tuple(each for _, each in scenario.endpoints)
        self.capacity: FloatArray = np.array([each.capacity for each in self.specs], dtype=float)
        self.names = scenario.endpoint_names
        self.payees: Mapping[UUID, int] = {
            _id("earnings", provider.name): place
            for place, provider in enumerate(scenario.providers)
        }
        """Places of providers by the ledger account that they are paid to."""
        models = sorted({each.model for each in self.specs})
        self.family: IntArray = np.array([models.index(each.model) for each in self.specs])
        self._known = [
            _endpoint(number, provider, spec)
            for number, (provider, spec) in enumerate(scenario.endpoints)
        ]
        self._listed = np.zeros(len(self.specs), dtype=bool)
        self._bands: Bands | None = None

    @property
    def size(self) -> int:
        """How many numbers there are, whether or not in use."""
        return len(self.specs)

    def is_listed(self, number: int) -> bool:
        """True while it is on offer."""
        return bool(self._listed[number])

    def enter(self, number: int) -> None:
        """Put an endpoint on offer."""
        self._listed[number] = True
        self._bands = None

    def leave(self, number: int) -> None:
        """Take an endpoint off; calls under way on it go on."""
        self._listed[number] = False
        self._bands = None

    def band(self, number: int) -> Band:
        """The band that stands now."""
        return self._known[number].band

    def reprice(self, number: int, band: Band) -> bool:
        """Give an endpoint another band; False where it is the same."""
        before = self._known[number]
        if before.band == band:
            return False
        self._known[number] = replace(before, band=band)
        self._bands = None
        return True

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Those on offer, by number."""
        return tuple(each for each in self._known if self._listed[each.number])

    def endpoint(self, number: int) -> Endpoint:
        """The endpoint of a number, on offer or not."""
        return self._known[number]

    @property
    def bands(self) -> Bands:
        """The bands of those on offer; the same object while nothing changes."""
        if self._bands is None:
            rows = {each.number: _row(each.band) for each in self.endpoints}
            self._bands = Bands.from_rows(rows, self.size)
        return self._bands

    @property
    def members(self) -> list[Member]:
        """What choices of controllers go by."""
        return [
            Member(
                each.number,
                each.name,
                each.deployment.provider,
                max(sorted(each.domains), key=each.domains.__getitem__, default=""),
            )
            for each in self.endpoints
        ]


def _row(band: Band) -> tuple[int, ...]:
    """Floor, list, ceiling of in, then out, then call."""
    return (
        *(band.floor_in_micros, band.list_in_micros, band.ceiling_in_micros),
        *(band.floor_out_micros, band.list_out_micros, band.ceiling_out_micros),
        *(band.floor_call_nanos, band.list_call_nanos, band.ceiling_call_nanos),
    )


def _endpoint(number: int, provider: ProviderSpec, spec: EndpointSpec) -> Endpoint:
    quality, domains = declared(provider.strategy, spec)
    generates = any(task.generates for task in spec.tasks)
    name = f"{provider.name}/{spec.name}"
    deployment = Deployment(
        id=_id("deployment", name),
        number=number,
        provider_id=_id("provider", provider.name),
        provider=provider.name,
        name=spec.name,
        url="",
        kind=Kind.OPENAI if generates else Kind.KSERVE,
        capacity=spec.capacity,
        region=spec.region,
        retains_data=False,
        trains_on_data=False,
        retention_days=0,
        credential=None,
        status=ListingStatus.LISTED,
    )
    return Endpoint(
        id=_id("endpoint", name),
        number=number,
        deployment=deployment,
        name=name,
        model=spec.model,
        version="1",
        upstream_model=spec.model,
        tasks=spec.tasks,
        domains=dict(domains),
        quality=quality,
        context_length_tokens=spec.context_tokens,
        max_output_tokens=spec.output_tokens_max,
        tokenizer_json=None,
        visible_to=None,
        band=spec.band,
        ledger_account=_id("earnings", provider.name),
        take_bps=spec.take_bps,
        tiers=dict(spec.tiers_bps),
    )


def _id(kind: str, name: str) -> UUID:
    return uuid5(NAMESPACE_URL, f"{kind} {name}")
