"""What is refused of KServe requests, and what is read of answers."""

from __future__ import annotations

import gc
import gzip
import json
import zlib
from collections.abc import Sequence

import pytest

from broker.core.call import TensorBody
from broker.core.outcome import Fault
from broker.errors import NotAllowed, RequestMalformed
from broker.upstream.faults import AttemptFailed
from broker.upstream.kserve import (
    LOOKED_INTO_BYTES_MAX,
    check_infer,
    is_denied,
    read_infer,
    request_id,
)

REQUEST = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [0.0]}]}
SHARED = json.dumps(
    {"inputs": [{"name": "x", "parameters": {"shared_memory_region": "r"}}]}
).encode()
LENGTH = b"inference-header-content-length"


def _check(headers: Sequence[tuple[bytes, bytes]], payload: bytes) -> frozenset[str]:
    return check_infer(TensorBody(tuple(headers), payload, size_bytes=len(payload)))


@pytest.mark.parametrize(
    "path",
    [
        "/v2/repository/index",
        "/v2/repository/models/m/load",
        "/v2/repository",
        "/v2//repository/index",
        "/v2/%72epository/index",
        "/v2/x/../repository/index",
        "/v2/models/m/../../logging",
        "/v2/systemsharedmemory/status",
        "/v2/systemsharedmemory/region/r/register",
        "/v2/cudasharedmemory/region/r/unregister",
        "/v2/trace/setting",
        "/v2/models/m/trace/setting",
        "/v2/models/m/load",
        "/v2/logging",
    ],
)
def test_paths_that_manage_a_server_are_denied(path: str) -> None:
    assert is_denied(path)


@pytest.mark.parametrize(
    "path",
    [
        "/v2",
        "/v2/health/ready",
        "/v2/models/m/infer",
        "/v2/models/repository/infer",
        "/v2/models/logging/versions/1/infer",
        "/v2/models/acme/loader/infer",
    ],
)
def test_paths_that_use_a_model_are_not_denied(path: str) -> None:
    assert not is_denied(path)


def test_requests_in_json_and_binary_pass() -> None:
    body = json.dumps(REQUEST).encode()
    _check([], body)
    _check([(LENGTH, b"%d" % len(body))], body + b"\0shared_memory_region\\u\0")
    _check([(b"content-encoding", b"gzip")], gzip.compress(body))
    _check([(b"content-encoding", b"deflate")], zlib.compress(body))
    _check([(b"content-encoding", b"identity")], body)
    told = json.dumps({"inputs": [{"data": ["what is a shared_memory_region? \\u0041"]}]}).encode()
    _check([], told)


@pytest.mark.parametrize(
    "body",
    [
        SHARED,
        SHARED.replace(b"shared_memory_region", b"\\u0073hared_memory_region"),
        b'{"inputs":[{"parameters":{"shared_memory_region":"r"},"parameters":{}}]}',
        b'{"outputs":[{"parameters":{"shared_memory_byte_size":1}}],"inputs":[]}',
    ],
)
def test_shared_memory_is_not_allowed_however_it_is_spelt(body: bytes) -> None:
    for headers, payload in (
        ([], body),
        ([(LENGTH, b"%d" % len(body))], body + bytes(50)),
        ([(b"content-encoding", b"gzip")], gzip.compress(body)),
        ([(b"content-encoding", b"Deflate")], zlib.compress(body)),
        ([(b"content-encoding", b"gzip"), (LENGTH, b"%d" % len(body))], gzip.compress(body + b"x")),
    ):
        with pytest.raises(NotAllowed):
            _check(headers, payload)


CLASSES = (
    b'{"inputs":[],"outputs":[{"name":"TOPIC","parameters":{"classification":2,"binary_data":true}},'
    b'{"name":"SURE","parameters":{"classification":0,"binary_data":true}},{"name":"REST"}]}'
)
"""As tritonclient writes `InferRequestedOutput("TOPIC", class_count=2)`."""


@pytest.mark.parametrize(
    "body",
    [
        CLASSES,
        CLASSES.replace(b"classification", b"cl\\u0061ssification"),
        CLASSES.replace(b"TOPIC", b"TOP\\u0049C"),
        b'{"outputs":[{"name":"TOPIC","parameters":{"classification":1,"classification":0}}]}',
        b'{"outputs":[{"name":"TOPIC","parameters":{"classification":1},"parameters":{}}]}',
        b'{"outputs":[{"name":"TOPIC","parameters":{"classification":1}}],"outputs":[]}',
    ],
)
def test_outputs_of_which_classes_are_asked_for_are_found_however_that_is_spelt(
    body: bytes,
) -> None:
    assert _check([], body) == {"TOPIC"}
    assert _check([(b"content-encoding", b"gzip")], gzip.compress(body)) == {"TOPIC"}
    tail = [(LENGTH, b"%d" % len(body))]
    assert _check(tail, body + b'{"outputs":[{"name":"TAIL"}]}') == {"TOPIC"}


LARGE = CLASSES.replace(
    b'"inputs":[', b'"inputs":[' + b",".join([b"{}"] * (LOOKED_INTO_BYTES_MAX // 2))
)
"""With tensors in its JSON."""


def test_classes_are_found_beside_tensors_in_json_that_are_not_taken_apart() -> None:
    before = gc.get_threshold()
    runs: list[str] = []
    gc.callbacks.append(note := lambda phase, _: runs.append(phase))
    gc.set_threshold(1_000, 1_000_000, 1_000_000)
    try:
        assert _check([], LARGE) == {"TOPIC"}
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(note)
    assert len(runs) < 20, "each is of a thousand objects more"


@pytest.mark.parametrize(
    "body",
    [
        LARGE.replace(b"{}", b'{"a":"shared_memory"}', 1),
        LARGE.replace(b"classification", b"cl\\u0061ssification"),
        LARGE[:-1] + b',"outputs":[]}',
        LARGE.replace(b'"outputs"', b'"outputs":1,"outp\\u0075ts"'),
        LARGE.replace(b'{"name":"REST"}', b",".join([b"{}"] * (LOOKED_INTO_BYTES_MAX // 2))),
        LARGE[:-1],
    ],
)
def test_large_json_of_which_that_cannot_be_told_is_refused(body: bytes) -> None:
    with pytest.raises((RequestMalformed, NotAllowed)):
        _check([], body)


def test_texts_in_letters_that_json_escapes_may_be_long() -> None:
    text = json.dumps("\u00e9\u4e2d\x7f" * (LOOKED_INTO_BYTES_MAX // 10))
    assert _check([], b'{"inputs":[{"name":"a","data":[%b]}]}' % text.encode()) == frozenset()


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(REQUEST).encode(),
        b'{"id":"classification","outputs":"classification"}',
        b'["classification"]',
        b'{"outputs":[{"parameters":{"classification":1}},{"name":["A"]},7,{"name":"B"}]}',
    ],
)
def test_of_what_asks_for_no_output_s_classes_none_are_found(body: bytes) -> None:
    assert not _check([], body)


@pytest.mark.parametrize(
    "headers",
    [
        [(LENGTH, b"999")],
        [(LENGTH, b"-1")],
        [(LENGTH, b"1e1")],
        [(LENGTH, b"")],
        [(LENGTH, b"9" * 40)],
        [(LENGTH, b"1"), (LENGTH, b"2")],
        [(b"content-encoding", b"gzip")],
        [(b"content-encoding", b"br")],
        [(b"content-encoding", b"gzip"), (b"content-encoding", b"gzip")],
    ],
)
def test_lengths_and_encodings_that_cannot_be_are_malformed(
    headers: list[tuple[bytes, bytes]],
) -> None:
    with pytest.raises(RequestMalformed):
        _check(headers, json.dumps(REQUEST).encode())


def test_json_that_cannot_be_read_is_malformed_where_it_must_be_read() -> None:
    for body in (b'{"shared_memory', b'"\\u0061', b'["shared_memory",' + b"[" * 100_000):
        with pytest.raises(RequestMalformed):
            _check([], body)


def test_an_answer_is_told_from_an_error_inside_a_200() -> None:
    good = b'{"model_name":"m","outputs":[{"name":"y","data":["\\"error\\""]}]}'
    assert read_infer(None, good).error is None
    assert read_infer(b"%d" % len(good), good + bytes(9)).json_bytes == len(good)
    assert read_infer(None, b'{"error":"no such model"}').error == "no such model"
    assert read_infer(b"14", b'{"error":"no"}tail').error == "no"


@pytest.mark.parametrize(
    ("length", "body"),
    [
        (None, b""),
        (b"99", b"{}"),
        (b"0", b"{}"),
        (b"x", b"{}"),
        (b"-1", b"{}"),
        (b"0" * 14 + b"2" + b"0" * 5_000, b"{}"),
    ],
)
def test_an_answer_that_cannot_be_is_malformed(length: bytes | None, body: bytes) -> None:
    with pytest.raises(AttemptFailed) as failed:
        read_infer(length, body)
    assert failed.value.outcome.fault is Fault.MALFORMED


def test_an_answer_to_another_request_is_malformed() -> None:
    asked = request_id(None, b'{"id":"a","inputs":[]}')
    assert asked == "a"
    assert read_infer(None, b'{"id":"a","outputs":[]}', asked).error is None
    assert read_infer(None, b'{"outputs":[]}', asked).error is None, "some tell none"
    with pytest.raises(AttemptFailed):
        read_infer(None, b'{"id":"b","outputs":[]}', asked)
    with pytest.raises(AttemptFailed):
        read_infer(b"23", b'{"id":"b","outputs":[]}tail', asked)
    assert request_id(b"10", b'{"id":"a"}tail') == "a"
    assert request_id(None, b'{"id":7}') is None
    assert request_id(None, b'{"inputs":[{"name":"id"}]}') is None


def test_what_is_nested_too_deeply_is_malformed_and_not_our_fault() -> None:
    nested = b"[" * 1_000_000 + b"]" * 1_000_000
    with pytest.raises(AttemptFailed) as failed:
        read_infer(None, b'{"error":%b}' % nested)
    assert failed.value.outcome.fault is Fault.MALFORMED
    assert request_id(None, b'{"id":"a","x":%b}' % nested) is None


def test_who_left_the_length_of_another_call_in_its_headers_is_asked_whether_it_did() -> None:
    body = b'{"inputs":[{"name":"TEXT","shape":[1,1],"datatype":"BYTES","data":["My invoice"]}]}'
    with pytest.raises(RequestMalformed, match="left from another call in headers"):
        _check([(LENGTH, b"139")], body)


def test_an_escape_is_found_wherever_it_stands() -> None:
    """It is looked for in steps, and may stand in two."""
    for begin in range((1 << 20) - 7, (1 << 20) + 2):
        text = "ä" * ((begin - len('{"x":"')) // 2) + "a" * ((begin - len('{"x":"')) % 2)
        payload = b'{"x":"%b\\u0073"}' % text.encode()
        assert payload.index(b"\\") == begin
        with pytest.raises(NotAllowed):
            _check([], payload)
    assert not _check([], payload.replace(b"0073", b"00e4"))
