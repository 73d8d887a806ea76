"""A scripted provider's place in the market."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from provider_sdk.deployment import Deployment
from provider_sdk.protocol import CallBand, EndpointOffer, TokenBand
from provider_sdk.testing.scripted import Script, ScriptedProvider


@dataclass(eq=False)
class Stall:
    """A scripted provider's deployment with one endpoint, for chats or, where its script says
    `kserve`, for inferences; `family` is what callers ask for.

    `price` is USD per million tokens, in and out, or for each inference, and the list price; the
    band reaches from a tenth of it to ten times as much. Each provider account has any number of
    stalls.
    """

    provider: str
    family: str
    price: str = "10"
    capacity: int = 64
    script: Script = field(default_factory=lambda: Script(output_tokens=8))
    server: ScriptedProvider = field(init=False)

    def __post_init__(self) -> None:
        self.server = ScriptedProvider(self.script)

    @property
    def name(self) -> str:
        """What the broker calls the endpoint."""
        return f"{self.provider}/{self.family}"

    def behave(self, **changes: Any) -> None:
        """Be as at first but for these fields of the script."""
        self.server.script = msgspec.structs.replace(self.script, **changes)

    def deployment(self) -> Deployment:
        """What the provider's agent is told."""
        low, high = float(self.price) / 10, float(self.price) * 10
        band = {"floor": f"{low:f}", "list": self.price, "ceiling": f"{high:f}"}
        infers = self.script.kind == "kserve"
        ways = ("call",) if infers else ("in", "out")
        prices = {f"{at}_{way}": usd for at, usd in band.items() for way in ways}
        endpoint = EndpointOffer(
            name=self.family,
            model=self.family,
            upstream_model="scripted",
            tasks=["infer" if infers else "chat"],
            price=CallBand(**prices) if infers else TokenBand(**prices),
        )
        return Deployment(
            name=self.family,
            url=self.server.url,
            server=self.server.url,
            kind=self.script.kind,
            capacity=self.capacity,
            endpoints=[endpoint],
        )
