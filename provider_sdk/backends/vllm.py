"""vLLM: one series for each engine; `gpu_cache_usage_perc` was renamed in 2025."""

from __future__ import annotations

from provider_sdk.backends.prometheus import Metric
from provider_sdk.backends.signals import Signals

VLLM = Signals(
    backend="vllm",
    mark="vllm:",
    running=(Metric("vllm:num_requests_running"),),
    waiting=(Metric("vllm:num_requests_waiting"),),
    kv_usage=(Metric("vllm:kv_cache_usage_perc"), Metric("vllm:gpu_cache_usage_perc")),
)
