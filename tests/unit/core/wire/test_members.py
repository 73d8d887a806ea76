"""The members of a large body are told apart only where they are few."""

from __future__ import annotations

import pytest

from broker.core.wire.members import LARGE_BYTES, MEMBERS_MAX, read_members
from broker.errors import RequestMalformed

LONG = b'"%b"' % (b"a:b" * LARGE_BYTES)
FEW = b'{"model":"auto","messages":%b,"n":1}' % LONG


class Counted(bytes):
    """A body that knows what was counted in it."""

    counts = 0

    def count(self, *told: object) -> int:  # type: ignore[override]
        self.counts += 1
        return super().count(*told)  # type: ignore[arg-type]


def test_of_a_long_text_with_little_beside_it_nothing_is_counted() -> None:
    body = Counted(FEW)
    assert {*read_members(body)} == {"model", "messages", "n"}
    assert not body.counts


@pytest.mark.parametrize("member", [b'"":0,', b'"messages":0,', b'"x":{"y":0},'])
def test_a_large_body_of_too_many_members_is_refused(member: bytes) -> None:
    with pytest.raises(RequestMalformed, match="10000 members"):
        read_members(b"{%b%b" % (member * (MEMBERS_MAX + 1), FEW[1:]))


def test_a_large_body_of_as_many_members_as_there_may_be_is_read() -> None:
    most = b"{%b%b" % (b'"a":0,' * (MEMBERS_MAX - 3), FEW[1:])
    assert {*read_members(most)} == {"a", "model", "messages", "n"}
