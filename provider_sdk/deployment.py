"""A deployment as its provider describes it: the offer, and where the server stands."""

from __future__ import annotations

from typing import Literal

import msgspec

from provider_sdk.protocol import DeploymentOffer

Backend = Literal["auto", "vllm", "sglang", "tgi", "llamacpp", "triton", "trtllm", "none"]


class Deployment(DeploymentOffer, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An offer, and what stays on the provider's side of it."""

    server: str
    """The local inference server, for instance `http://127.0.0.1:8001`."""
    front: str | None = None
    """`host:port` on which the agent fronts the server and answers the broker's nonce."""
    backend: Backend = "auto"
    """Which inference server it is; found out from its metrics by default."""
    metrics: str | None = None
    """The URL of its metrics where it is not `<server>/metrics`."""
    receipts_key: str | None = None
    """The file of the key that receipts of usage are signed with; made when it is not there."""
    server_credential: str | None = None
    """The key the local server wants; only the agent and the front ever use it."""

    def offer(self) -> DeploymentOffer:
        """What the broker is told."""
        fields = (field.name for field in msgspec.structs.fields(DeploymentOffer))
        return DeploymentOffer(**{name: getattr(self, name) for name in fields})
