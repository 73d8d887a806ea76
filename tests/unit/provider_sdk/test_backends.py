"""Golden samples of what inference servers export, and the load read from them.

All are made from the names in the servers' sources and documentation: llama.cpp, Triton, vLLM,
SGLang, TGI and TensorRT-LLM.
"""

from __future__ import annotations

import msgspec
import pytest

from provider_sdk.backends import BACKENDS, NONE, detect
from provider_sdk.backends.prometheus import Metric, Series, parse, values
from provider_sdk.protocol import REPORTED_CALLS_MAX, LoadReport

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="org/model-7b"} 3.0
vllm:num_requests_running{engine="1",model_name="org/model-7b"} 4.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="org/model-7b"} 0.0
vllm:num_requests_waiting{engine="1",model_name="org/model-7b"} 2.0
vllm:num_requests_waiting_by_reason{engine="1",model_name="org/model-7b",reason="capacity"} 2.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="org/model-7b"} 0.125
vllm:kv_cache_usage_perc{engine="1",model_name="org/model-7b"} 0.5
# TYPE vllm:request_queue_time_seconds histogram
vllm:request_queue_time_seconds_bucket{engine="0",le="+Inf",model_name="org/model-7b"} 9.0
vllm:request_queue_time_seconds_count{engine="0",model_name="org/model-7b"} 9.0
"""

VLLM_BEFORE_THE_RENAMING = """\
vllm:num_requests_running{model_name="m"} 1.0
vllm:num_requests_waiting{model_name="m"} 0.0
vllm:gpu_cache_usage_perc{model_name="m"} 0.25
"""

SGLANG = """\
# HELP sglang:num_running_reqs The number of running requests.
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="org/m",dp_rank="0"} 5.0
sglang:num_running_reqs{model_name="org/m",dp_rank="1"} 6.0
sglang:num_queue_reqs{model_name="org/m",dp_rank="0"} 1.0
sglang:token_usage{model_name="org/m",dp_rank="0"} 0.28
sglang:token_usage{model_name="org/m",dp_rank="1"} 0.31
sglang:gen_throughput{model_name="org/m"} 86.5
"""

TGI = """\
# TYPE tgi_batch_current_size gauge
tgi_batch_current_size 7
# TYPE tgi_queue_size gauge
tgi_queue_size 3
tgi_request_queue_duration_bucket{le="0.1"} 12
"""

LLAMACPP = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 352
# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 4
# HELP llamacpp:requests_deferred Number of requests deferred.
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 4
"""

TRITON = """\
# HELP nv_inference_exec_count Number of model executions performed
# TYPE nv_inference_exec_count counter
nv_inference_exec_count{model="digits",version="1"} 4711
# HELP nv_inference_pending_request_count Instantaneous number of pending requests per-model
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="digits",version="1"} 2
nv_inference_pending_request_count{model="slow",version="1"} 6
nv_cpu_utilization 0.5
"""

TRITON_WITH_TRTLLM = """\
nv_inference_pending_request_count{model="ensemble",version="1"} 9
nv_trt_llm_request_metrics{model="llm",request_type="scheduled",version="1"} 3
nv_trt_llm_request_metrics{model="llm",request_type="waiting",version="1"} 1
nv_trt_llm_request_metrics{model="llm",request_type="max",version="1"} 512
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="llm",version="1"} 0.4
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="llm",version="1"} 6239
"""

TRTLLM = """\
trtllm_num_requests_running 2
trtllm_num_requests_waiting 1
trtllm_kv_cache_utilization 0.6
"""

SOMEBODY_ELSE = """\
python_gc_objects_collected_total{generation="0"} 353.0
rest_server_requests_in_progress 1.0
"""


@pytest.mark.parametrize(
    ("sample", "backend", "load"),
    [
        (VLLM, "vllm", LoadReport(running=7, waiting=2, kv_usage=0.5)),
        (VLLM_BEFORE_THE_RENAMING, "vllm", LoadReport(running=1, waiting=0, kv_usage=0.25)),
        (SGLANG, "sglang", LoadReport(running=11, waiting=1, kv_usage=0.31)),
        (TGI, "tgi", LoadReport(running=7, waiting=3)),
        (LLAMACPP, "llamacpp", LoadReport(running=4, waiting=4)),
        (TRITON, "triton", LoadReport(waiting=8)),
        (TRITON_WITH_TRTLLM, "triton", LoadReport(running=3, waiting=1, kv_usage=0.4)),
        (TRTLLM, "trtllm", LoadReport(running=2, waiting=1, kv_usage=0.6)),
        (SOMEBODY_ELSE, "none", LoadReport()),
        ("", "none", LoadReport()),
    ],
)
def test_a_golden_sample_is_known_and_read(sample: str, backend: str, load: LoadReport) -> None:
    scrape = parse(sample)
    assert detect(scrape).backend == backend
    assert BACKENDS[backend].read(scrape) == load


def test_a_new_name_wins_over_an_old_one() -> None:
    both = "vllm:gpu_cache_usage_perc 0.9\nvllm:kv_cache_usage_perc 0.1\n"
    assert BACKENDS["vllm"].read(parse(both)).kv_usage == 0.1


def test_values_out_of_bounds_are_brought_in_and_nan_is_nothing() -> None:
    text = (
        "vllm:num_requests_running NaN\n"
        "vllm:num_requests_waiting -1\n"
        "vllm:kv_cache_usage_perc 1.02\n"
    )
    load = BACKENDS["vllm"].read(parse(text))
    assert load == LoadReport(running=None, waiting=0, kv_usage=1.0)


@pytest.mark.parametrize("count", ["1e300", "1e308"])
def test_counts_beyond_all_bounds_are_told_as_the_most_that_is_understood(count: str) -> None:
    text = "".join(f'vllm:num_requests_running{{engine="{each}"}} {count}\n' for each in range(2))
    load = BACKENDS["vllm"].read(parse(text))
    assert load.running == REPORTED_CALLS_MAX
    assert msgspec.json.decode(msgspec.json.encode(load), type=LoadReport) == load


def test_nothing_is_read_from_a_server_without_metrics() -> None:
    assert NONE.read(parse(VLLM)) == LoadReport()


def test_the_text_format_is_read_with_its_oddities() -> None:
    text = (
        'a:b{x="q\\"uo}te",y="line\\nbreak" , z="back\\\\slash",} 1e3 1395066363000\n'
        "plain 2\n"
        'exemplar_bucket{le="1"} 3 # {trace_id="x"} 0.5\n'
        "   \n# a comment\nnonsense\nbroken{ 1\nname notanumber\nworst +Inf\n"
    )
    scrape = parse(text)
    assert scrape["a:b"] == [
        Series({"x": 'q"uo}te', "y": "line\nbreak", "z": "back\\slash"}, 1000.0)
    ]
    assert values(scrape, Metric("plain")) == [2.0]
    assert values(scrape, Metric("exemplar_bucket", {"le": "1"})) == [3.0]
    assert values(scrape, Metric("exemplar_bucket", {"le": "2"})) == []
    assert values(scrape, Metric("worst")) == []
    assert set(scrape) == {"a:b", "plain", "exemplar_bucket", "worst"}
