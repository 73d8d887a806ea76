"""What is made of the error answers of providers, of whichever shape and encoding."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from broker.core.outcome import Fault
from broker.flows.calls.refused import refused
from broker.upstream.client import Limits, Response, Timeouts

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def answer(status: int, **headers: str) -> Response:
    response = Response(Timeouts(), Limits(), 0.0, 1.0, None, 0)
    response.status = status
    response.headers = [
        (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
    ]
    return response


@pytest.mark.parametrize(
    ("told", "wait_s"),
    [
        ("7", 7.0),
        (format_datetime(NOW + timedelta(seconds=30), usegmt=True), 30.0),
        (format_datetime(NOW - timedelta(seconds=30), usegmt=True), 0.0),
        ("soon", None),
        ("-1", None),
        ("", None),
        ("9" * 400, 999_999_999.0),
        ("Fri, 99 Foo 9999 99:99:99 GMT", None),
    ],
)
def test_when_to_come_again_is_told_in_seconds_or_as_a_date(
    told: str, wait_s: float | None
) -> None:
    outcome = refused(answer(429, retry_after=told), b"", NOW)
    assert outcome.fault is Fault.OVERLOADED
    assert outcome.retry_after_s == wait_s


def test_what_it_says_is_read_when_it_is_compressed_too() -> None:
    body = gzip.compress(b'{"error":{"message":"too long"}}')
    outcome = refused(answer(400, content_encoding="gzip"), body, NOW)
    assert (outcome.fault, outcome.said) == (Fault.CALLER_FAULT, "too long")
    assert refused(answer(400, content_encoding="br"), b"\xff\xfe", NOW).said


@pytest.mark.parametrize("body", [b"", b"[" * 90_000, b"\xff\x00", b'{"error":null}', b"7"])
def test_whatever_it_says_is_told_in_a_sentence(body: bytes) -> None:
    outcome = refused(answer(500), body, NOW)
    assert outcome.fault is Fault.SERVER_ERROR
    assert len(outcome.said) <= 500
