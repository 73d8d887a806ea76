"""Only what is meant for callers passes the front."""

from __future__ import annotations

import pytest

from provider_sdk.passage import end_to_end, may_pass, without_prefix


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/org%2Fmodel"),
        ("GET", "/health"),
        ("HEAD", "/v2/health/live"),
        ("GET", "/v2"),
        ("GET", "/v2/"),
        ("GET", "/v2/health/ready"),
        ("GET", "/v2/models/digits"),
        ("GET", "/v2/models/digits/versions/3/ready"),
        ("GET", "/v2/models/digits/config"),
        ("POST", "/v2/models/digits/infer"),
        ("POST", "/v2/models/digits/versions/3/infer"),
        ("POST", "/v2/models/digits/generate_stream"),
        ("POST", "/v2/models/repository/infer"),
    ],
)
def test_calls_pass(method: str, path: str) -> None:
    assert may_pass(method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/metrics"),
        ("GET", "/slots"),
        ("GET", "/props"),
        ("GET", "/v1"),
        ("GET", "/v1/"),
        ("DELETE", "/v1/models/m"),
        ("PUT", "/v1/files"),
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/v1/unload%5Flora_adapter"),
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/m/load"),
        ("POST", "/v2/repository/models/m/unload"),
        ("POST", "/v2/systemsharedmemory/region/r/register"),
        ("GET", "/v2/cudasharedmemory/status"),
        ("GET", "/v2/trace/setting"),
        ("POST", "/v2/models/m/trace/setting"),
        ("POST", "/v2/logging"),
        ("GET", "/v2/models/m/unknown"),
        ("GET", "/v1/../metrics"),
        ("GET", "/v1/%2e%2e/metrics"),
        ("GET", "/v1/..%2fmetrics"),
        ("GET", "/v1/..\\metrics"),
        ("GET", "/v1//../metrics"),
        ("GET", "/v2/models/x%2F..%2F..%2Frepository/infer"),
        ("GET", "/v1/%00"),
        ("GET", "//v1/models"),
        ("GET", "http://elsewhere/v1/models"),
    ],
)
def test_everything_else_does_not(method: str, path: str) -> None:
    assert not may_pass(method, path)


def test_a_prefix_is_taken_off_where_it_stands() -> None:
    assert without_prefix("/llm/v1/models", "/llm") == "/v1/models"
    assert without_prefix("/v1/models", "/llm") == "/v1/models"
    assert without_prefix("/llmv1/models", "/llm") == "/llmv1/models"
    assert without_prefix("/v1/models", "") == "/v1/models"


def test_headers_of_the_connection_stay_on_it() -> None:
    headers = [
        (b"connection", b"close, X-Secret, content-length"),
        (b"x-secret", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"te", b"trailers"),
        (b"content-length", b"3"),
        (b"content-encoding", b"gzip"),
        (b"inference-header-content-length", b"2"),
    ]
    assert end_to_end(headers) == headers[4:]
