"""A mark is counted as often as it stands, however long the text."""

from __future__ import annotations

import random

import pytest

from broker.core.wire.counting import count_of


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 262_144, 262_145, 1_000_003])
def test_a_mark_is_counted_as_often_as_it_stands(size: int) -> None:
    text = random.Random(size).randbytes(size)
    for mark in (b":", b"{", b"\x00"):
        assert count_of(mark, text) == text.count(mark)
        assert count_of(mark, memoryview(text)) == text.count(mark)
        assert count_of(mark, mark * size) == size
