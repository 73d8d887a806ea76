"""The llama.cpp server, started with `--metrics`; KV usage was removed from it in 2025."""

from __future__ import annotations

from provider_sdk.backends.prometheus import Metric
from provider_sdk.backends.signals import Signals

LLAMACPP = Signals(
    backend="llamacpp",
    mark="llamacpp:",
    running=(Metric("llamacpp:requests_processing"),),
    waiting=(Metric("llamacpp:requests_deferred"),),
    kv_usage=(Metric("llamacpp:kv_cache_usage_ratio"),),
    capacity_path="/props",
    capacity_field="total_slots",
)
