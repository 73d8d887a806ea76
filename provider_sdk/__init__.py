"""Register an inference server with a model broker and keep it alive there.

    import provider_sdk as sdk

    price = sdk.CallBand(floor_call="0.0001", list_call="0.0002", ceiling_call="0.001")
    endpoint = sdk.EndpointOffer(name="kind", model="text-kind", tasks=["infer"], price=price)
    sdk.run(
        sdk.Deployment(name="gpu1", url="https://gpu1.acme.example", kind="kserve", capacity=8,
                       server="http://127.0.0.1:8000", front="0.0.0.0:9001", endpoints=[endpoint]),
        broker="https://broker.example", key="bk_...",
    )

Names are imported on first use: whoever needs only `provider_sdk.protocol` loads no HTTP client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from provider_sdk.agent import Agent, run
    from provider_sdk.client import BrokerClient, BrokerRefused, BrokerUnreachable, ProviderError
    from provider_sdk.deployment import Deployment
    from provider_sdk.protocol import (
        CallBand,
        DataPolicy,
        DeploymentOffer,
        EndpointOffer,
        TokenBand,
    )

__all__ = [
    "Agent",
    "BrokerClient",
    "BrokerRefused",
    "BrokerUnreachable",
    "CallBand",
    "DataPolicy",
    "Deployment",
    "DeploymentOffer",
    "EndpointOffer",
    "ProviderError",
    "TokenBand",
    "run",
]

_HOMES = {
    "agent": ("Agent", "run"),
    "client": ("BrokerClient", "BrokerRefused", "BrokerUnreachable", "ProviderError"),
    "deployment": ("Deployment",),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((module for module, names in _HOMES.items() if name in names), "protocol")
    return getattr(import_module(f"{__name__}.{home}"), name)
