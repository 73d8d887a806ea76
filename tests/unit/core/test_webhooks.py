"""When a webhook is tried again, spared and given up, and what is signed."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest

from broker.core.webhooks import Patience, fault_in
from broker.outbound.webhooks import signature

NOW = datetime(2030, 5, 1, tzinfo=UTC)
PATIENCE = Patience()


def waits_s(chance: float) -> list[float]:
    return [
        (PATIENCE.retry_at(attempts, NOW, chance) - NOW).total_seconds()
        for attempts in range(1, 40)
    ]


def test_waits_double_up_to_a_bound_and_spread_around_it() -> None:
    assert waits_s(0.5)[:4] == [10, 20, 40, 80]
    assert max(waits_s(0.5)) == PATIENCE.most_s
    assert waits_s(0)[0] == pytest.approx(8)
    assert waits_s(1)[0] == pytest.approx(12)
    assert PATIENCE.retry_at(32_000, NOW, 0.5) == NOW + timedelta(seconds=PATIENCE.most_s)


def test_an_event_is_tried_for_three_days() -> None:
    at, attempts = NOW, 0
    while not PATIENCE.given_up(NOW, at):
        attempts += 1
        at = PATIENCE.retry_at(attempts, at, 0.5)
    assert timedelta(days=3) <= at - NOW < timedelta(days=3, hours=5)
    assert 20 < attempts < 40


def test_a_webhook_is_spared_after_a_few_failures_in_a_row() -> None:
    pauses = [(PATIENCE.resume_at(n, NOW) - NOW).total_seconds() for n in range(1, 100)]
    assert pauses[:7] == [0, 0, 0, 0, 10, 20, 40]
    assert max(pauses) == PATIENCE.spared_most_s


@pytest.mark.parametrize("kinds", [["*"], ["refund.*", "call.settled"], ["sla_credit.c_d"]])
def test_kinds_are_a_noun_and_a_verb_or_a_star(kinds: list[str]) -> None:
    assert fault_in(kinds) is None


@pytest.mark.parametrize(
    "kinds", [[], ["refund"], ["*.posted"], ["Refund.posted"], [""], ["key.b"] * 51, ["key.b.c"]]
)
def test_what_is_no_kind_is_named(kinds: list[str]) -> None:
    assert fault_in(kinds)


def test_a_kind_of_which_there_are_no_events_is_refused_with_those_there_are() -> None:
    told = fault_in(["refund.*", "refunds.*"])
    assert told is not None
    assert told.startswith("'refunds.*': there are no such events, only of adjustment, call,")


def test_a_signature_is_over_time_and_body_under_each_secret() -> None:
    body = b'{"id":1}'
    at_s = int(NOW.timestamp())
    digests = [
        hmac.new(secret, b"%d." % at_s + body, hashlib.sha256).hexdigest()
        for secret in (b"one", b"two")
    ]
    expected = f"t={at_s},v1={digests[0]},v1={digests[1]}"
    assert signature(["one", "two"], NOW + timedelta(milliseconds=900), body) == expected
