"""SGLang, started with `--enable-metrics`: one series for each rank."""

from __future__ import annotations

from provider_sdk.backends.prometheus import Metric
from provider_sdk.backends.signals import Signals

SGLANG = Signals(
    backend="sglang",
    mark="sglang:",
    running=(Metric("sglang:num_running_reqs"),),
    waiting=(Metric("sglang:num_queue_reqs"),),
    kv_usage=(Metric("sglang:token_usage"), Metric("sglang:full_token_usage")),
)
