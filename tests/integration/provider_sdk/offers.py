"""Deployments for tests."""

from __future__ import annotations

from typing import Any

from broker.embedded.port import free_port
from provider_sdk.deployment import Deployment
from provider_sdk.protocol import CallBand, EndpointOffer

PRICE = CallBand(floor_call="0.001", list_call="0.002", ceiling_call="0.01")


def fronted(server: str, name: str = "gpu1", **more: Any) -> Deployment:
    """A deployment with a front on a free port."""
    port = free_port()
    fields: dict[str, Any] = {
        "name": name,
        "url": f"http://127.0.0.1:{port}",
        "kind": "openai",
        "capacity": 4,
        "server": server,
        "front": f"127.0.0.1:{port}",
        "endpoints": [EndpointOffer(name="e", model="scripted", tasks=["chat"], price=PRICE)],
    }
    return Deployment(**{**fields, **more})
