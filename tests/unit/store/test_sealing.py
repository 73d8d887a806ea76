"""Sealed secrets open with a known key, in the row they were sealed for, and nowhere else."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from broker.store.market.deployments import opened
from broker.store.sealing import Sealer, SecretUnreadable

OLD, NEW = "ab" * 32, "cd" * 32
PLACE = "deployments/1/credential"


def test_what_was_sealed_opens_in_its_own_row_only():
    sealed = Sealer(NEW).seal(b"s3cret", PLACE)
    assert b"s3cret" not in sealed
    assert Sealer(NEW).open(sealed, PLACE) == b"s3cret"
    with pytest.raises(SecretUnreadable, match="another row"):
        Sealer(NEW).open(sealed, "deployments/2/credential")


def test_the_same_secret_never_looks_the_same_twice():
    sealer = Sealer(NEW)
    assert sealer.seal(b"s3cret", PLACE) != sealer.seal(b"s3cret", PLACE)


def test_a_former_key_still_opens_and_the_new_one_seals():
    sealed = Sealer(OLD).seal(b"s3cret", PLACE)
    rotated = Sealer(NEW, (OLD,))
    assert rotated.open(sealed, PLACE) == b"s3cret"
    assert Sealer(NEW).open(rotated.seal(b"s3cret", PLACE), PLACE) == b"s3cret"


def test_a_key_that_is_gone_is_named_by_its_id_and_never_by_itself():
    sealed = Sealer(OLD).seal(b"s3cret", PLACE)
    with pytest.raises(SecretUnreadable) as refused:
        Sealer(NEW).open(sealed, PLACE)
    assert PLACE in refused.value.detail
    assert OLD not in refused.value.detail


def test_the_log_hears_once_of_what_is_tried_each_second_and_cannot_be_opened():
    sealed, sealer = Sealer(OLD).seal(b"s3cret", PLACE), Sealer(NEW)
    with capture_logs() as logs:
        assert [opened(sealed, PLACE, sealer) for _ in range(3)] == [None] * 3
        opened(sealed, "deployments/2/credential", sealer)
    assert [PLACE in each["reason"] for each in logs] == [True, False]
    assert "BROKER_SECRET_KEYS_OLD must be the same" in logs[0]["advice"]


@pytest.mark.parametrize("place", [0, 1, 7, 20, -1])
def test_every_altered_byte_is_noticed(place):
    sealed = bytearray(Sealer(NEW).seal(b"s3cret", PLACE))
    sealed[place] ^= 1
    with pytest.raises(SecretUnreadable):
        Sealer(NEW).open(bytes(sealed), PLACE)


def test_what_is_too_short_is_no_sealed_secret():
    with pytest.raises(SecretUnreadable):
        Sealer(NEW).open(b"\x01abc", PLACE)
