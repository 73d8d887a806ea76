"""Text Generation Inference: the size of the current batch and of the queue; no KV usage."""

from __future__ import annotations

from provider_sdk.backends.prometheus import Metric
from provider_sdk.backends.signals import Signals

TGI = Signals(
    backend="tgi",
    mark="tgi_",
    running=(Metric("tgi_batch_current_size"),),
    waiting=(Metric("tgi_queue_size"),),
)
