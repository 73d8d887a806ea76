"""Triton: a gauge of pending requests for each model, none of running ones.

`nv_inference_exec_count` looks like "running" and is not: it only ever rises. TensorRT-LLM, in
Triton or by itself, has gauges for both and for the KV cache.
"""

from __future__ import annotations

from provider_sdk.backends.prometheus import Metric
from provider_sdk.backends.signals import Signals

_REQUESTS = "nv_trt_llm_request_metrics"
_BLOCKS = "nv_trt_llm_kv_cache_block_metrics"

TRITON = Signals(
    backend="triton",
    mark="nv_",
    running=(Metric(_REQUESTS, {"request_type": "scheduled"}),),
    waiting=(
        Metric(_REQUESTS, {"request_type": "waiting"}),
        Metric("nv_inference_pending_request_count"),
    ),
    kv_usage=(Metric(_BLOCKS, {"kv_cache_block_type": "fraction"}),),
)

TRTLLM = Signals(
    backend="trtllm",
    mark="trtllm_",
    running=(Metric("trtllm_num_requests_running"),),
    waiting=(Metric("trtllm_num_requests_waiting"),),
    kv_usage=(Metric("trtllm_kv_cache_utilization"),),
)
