"""What a caller can name as `model`, told of markets large and small."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from broker.core.wire.signature import Signature, Tensor
from broker.errors import ModelUnknown
from broker.gateway.models import entries_of, tell_all, tell_one
from tests.fakes import endpoint, market


class Counted(str):
    """Text that counts how often it was compared."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_the_list_of_a_market_of_many_families_compares_each_with_a_few_at_most() -> None:
    listed = [endpoint(at, f"p/e{at}", model=Counted(f"family-{at}")) for at in range(300)]
    where = market(listed)
    Counted.compared = 0
    told = entries_of(where, listed)
    assert Counted.compared <= 10 * len(listed)
    assert list(told)[:2] == ["auto", "family-0"]
    assert len(told) == 1 + 2 * len(listed)


def test_one_that_is_named_is_told_as_in_the_list_and_its_tensors_beside() -> None:
    tensors = (Tensor("x", "FP32", (-1, 3)),)
    plain, declared = endpoint(0, "p/plain", model="m"), endpoint(1, "p/declared", model="m")
    listed = [plain, replace(declared, signature=Signature(tensors, tensors))]
    where = market(listed)
    told = {each["id"]: each for each in json.loads(tell_all(where, listed))["data"]}
    assert told["m"]["endpoints"] == ["p/plain", "p/declared"]
    for name in ("auto", "m", "p/plain"):
        assert json.loads(tell_one(where, listed, name)) == told[name]
    one = json.loads(tell_one(where, listed, "p/declared"))
    shape = [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert one == told["p/declared"] | {"inputs": shape, "outputs": shape}
    with pytest.raises(ModelUnknown):
        tell_one(where, listed, "p/other")
