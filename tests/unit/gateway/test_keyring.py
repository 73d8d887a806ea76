"""The keyring: who is calling, from a header, remembered until the keys are swapped."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from broker.core.key_terms import Allowance, KeyTerms, Rates, Scope
from broker.errors import CallerUnknown, NotAllowed, ScopeMissing, TooManyCalls, Unavailable
from broker.flows.access import keyring as keyrings
from broker.flows.access.keyring import Keyring
from broker.store.access.accounts import Role
from broker.store.access.key_text import sha256_of
from broker.store.access.keys import StoredKey

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SOON = NOW + timedelta(seconds=10)
ACCOUNT, FUNDS = UUID(int=1), UUID(int=2)
HEADER = b"Bearer bk_one_secret"


def key(**changes: Any) -> StoredKey:
    made = {
        "id": "one",
        "account_id": ACCOUNT,
        "account_name": "shop",
        "role": Role.CONSUMER,
        "funds": FUNDS,
        "terms": KeyTerms(),
        "secret_sha256": sha256_of("secret"),
    }
    return StoredKey(**(made | changes))


def ring(*keys: StoredKey) -> Keyring:
    made = Keyring()
    made.swap({each.id: each for each in keys or (key(),)})
    return made


def test_before_the_keys_have_been_read_none_is_called_wrong() -> None:
    with pytest.raises(Unavailable):
        Keyring().find(HEADER, NOW)


@pytest.mark.parametrize(
    "header",
    [
        HEADER,
        b"bearer  bk_one_secret ",
        b"Basic " + base64.b64encode(b"anyone:bk_one_secret"),
    ],
)
def test_a_key_is_found_in_every_form_it_may_come_in(header: bytes) -> None:
    keyring = ring()
    assert keyring.find(header, NOW).id == "one"
    assert keyring.find(header, NOW).id == "one", "and again, from what is remembered"


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer bk_one_wrong",
        b"Bearer bk_two_secret",
        b"Bearer bk_one_secret_",
        b"Basic bk_one_secret",
        b"Digest bk_one_secret",
    ],
)
def test_whatever_else_is_refused_each_time(header: bytes | None) -> None:
    keyring = ring()
    keyring.find(HEADER, NOW)
    for _ in range(2):
        with pytest.raises(CallerUnknown):
            keyring.find(header, NOW)


def test_a_remembered_key_expires_all_the_same() -> None:
    keyring = ring(key(terms=KeyTerms(expires_at=SOON)))
    assert keyring.find(HEADER, NOW)
    with pytest.raises(CallerUnknown):
        keyring.find(HEADER, SOON)


def test_a_former_secret_opens_until_the_overlap_ends_and_the_new_one_after_it() -> None:
    both = key(
        secret_sha256=sha256_of("newer"), former_sha256=sha256_of("secret"), former_until=SOON
    )
    keyring = ring(both)
    for header in (HEADER, b"Bearer bk_one_newer"):
        assert keyring.find(header, NOW) is both
    assert keyring.find(b"Bearer bk_one_newer", SOON) is both
    for each in (keyring, ring(both)):
        with pytest.raises(CallerUnknown):
            each.find(HEADER, SOON)


def test_what_was_remembered_is_forgotten_with_the_keys() -> None:
    keyring = ring()
    found = keyring.find(HEADER, NOW)
    keyring.swap({})
    with pytest.raises(CallerUnknown):
        keyring.find(HEADER, NOW)
    with pytest.raises(CallerUnknown):
        keyring.enter(found)


def test_no_more_headers_are_remembered_than_there_is_room_for() -> None:
    keyring = ring()
    for count in range(keyrings.HEADERS_KEPT_MAX + 100):
        padded = f"anyone {count}:bk_one_secret".encode()
        keyring.find(b"Basic " + base64.b64encode(padded), NOW)
    assert 0 < len(keyring._opened) <= keyrings.HEADERS_KEPT_MAX
    keyring = ring()
    keyring.find(b"Bearer " + b" " * 1_000 + b"bk_one_secret", NOW)
    assert not keyring._opened


def test_a_key_without_the_scope_of_calls_opens_no_door() -> None:
    keyring = ring(key(terms=KeyTerms(scopes=frozenset({Scope.READ, Scope.MONEY}))))
    for _ in range(2):
        with pytest.raises(ScopeMissing) as raised:
            keyring.find(HEADER, NOW)
        assert (raised.value.status, raised.value.code) == (403, "scope_missing")


def test_the_payer_carries_what_limits_the_key() -> None:
    terms = KeyTerms(rates=Rates(60), allowance=Allowance(models=frozenset({"small"})))
    keyring = ring(key(terms=terms))
    payer = keyring.payer(keyring.find(HEADER, NOW))
    assert (payer.rates, payer.allowance) == (terms.rates, terms.allowance)
    plain = ring().payer(key())
    assert (plain.rates, plain.allowance) == (None, None)
    with pytest.raises(NotAllowed):
        keyring.payer(key(funds=None, role=Role.PROVIDER))


def test_calls_are_counted_in_and_out() -> None:
    two = key(terms=KeyTerms(calls_max=2))
    keyring = ring(two)
    keyring.enter(two)
    keyring.enter(two)
    with pytest.raises(TooManyCalls):
        keyring.enter(two)
    keyring.leave(two)
    keyring.enter(two)


async def test_who_made_a_key_waits_until_it_opens_calls_here_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keyring = ring(key(secret_sha256=sha256_of("former")))
    learning = asyncio.create_task(keyring.learn("bk_one_secret", lambda: NOW))
    await asyncio.sleep(0.02)
    assert not learning.done()
    keyring.swap({"one": key()})
    await learning
    assert keyring.find(HEADER, NOW).id == "one"
    monkeypatch.setattr(keyrings, "LEARNS_WITHIN_S", 0.02)
    await keyring.learn("bk_other_secret", lambda: NOW)
    await Keyring().learn("bk_one_secret", lambda: NOW)
