"""Which scenarios can go slice by slice: those in which no attempt fails at once."""

from __future__ import annotations

from simulations.demand import Foresight
from simulations.scenario import Scenario, ScenarioMalformed
from simulations.supply import LINE_MAX, EndpointSpec, SharingServer

_INSTEAD = "use `events`"


def check_slices(scenario: Scenario) -> None:
    """Raise ScenarioMalformed where a scenario has what only the pace `events` simulates."""
    for place, provider in enumerate(scenario.providers):
        for number, endpoint in enumerate(provider.endpoints):
            name = _too_much(endpoint)
            if name is not None:
                field = f"providers.{place}.endpoints.{number}.{name}"
                raise ScenarioMalformed(field, f"the pace `slices` knows none of it; {_INSTEAD}")
    for place, each in enumerate(scenario.classes):
        if each.foresight is Foresight.QUEUE:
            field = f"classes.{place}.foresight"
            raise ScenarioMalformed(field, f"in the pace `slices` nobody sees lines; {_INSTEAD}")


def _too_much(endpoint: EndpointSpec) -> str | None:
    """The field that stands against it."""
    if not isinstance(endpoint.server, SharingServer):
        return "server"
    if endpoint.outages:
        return "outages"
    if endpoint.failures:
        return "failures"
    return "queue_max" if endpoint.queue_max < LINE_MAX else None
