"""What is made up for a KServe model is what the client of consumers would send."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import triton_to_np_dtype

from broker.core.signature import Tensor
from broker.core.tensor_form import BYTES_OF
from broker.upstream.made_up import ELEMENTS_MAX, TEXTS_MAX, NotMadeUp, made_up

DATATYPES = [*BYTES_OF, "BYTES"]


def as_the_client_writes_it(inputs: list[Tensor], *, binary: bool) -> tuple[bytes, int | None]:
    made = []
    for each in inputs:
        shape = [max(size, 1) for size in each.shape]
        numbers: Any = np.zeros(shape, triton_to_np_dtype(each.datatype))
        if each.datatype == "BYTES":
            numbers = np.full(shape, b"probe", dtype=np.object_)
        tensor = triton.InferInput(each.name, shape, each.datatype)
        made.append(tensor.set_data_from_numpy(numbers, binary_data=binary))
    written: tuple[bytes, int | None] = triton.InferenceServerClient.generate_request_body(made)
    return written


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("datatype", DATATYPES)
def test_what_is_made_up_is_what_the_client_would_send(datatype: str, binary: bool) -> None:
    inputs = [Tensor("x", datatype, (-1, 3)), Tensor("y", "FP32", ()), Tensor("z", "INT64", (2,))]
    if datatype == "BF16" and not binary:
        with pytest.raises(NotMadeUp, match=r"BF16 \[-1, 3\]"):
            made_up(inputs, binary=False)
        return
    ours, json_bytes = made_up(inputs, binary=binary)
    theirs, their_bytes = as_the_client_writes_it(inputs, binary=binary)
    assert json.loads(ours[:json_bytes])["inputs"] == json.loads(theirs[:their_bytes])["inputs"]
    assert (json_bytes is None) == (their_bytes is None) == (not binary)
    if binary:
        assert ours[json_bytes:] == theirs[their_bytes:]
        assert json.loads(ours[:json_bytes])["parameters"] == {"binary_data_output": True}


@pytest.mark.parametrize(
    "inputs",
    [
        [Tensor("x", "FP7", (1,))],
        [Tensor("x", "INT8", (ELEMENTS_MAX, 1, 2))],
        [Tensor("x", "INT8", (ELEMENTS_MAX,)), Tensor("y", "INT8", (1,))],
        [Tensor("x", "BYTES", (TEXTS_MAX + 1,))],
    ],
)
def test_what_is_not_known_or_too_much_is_not_made_up(inputs: list[Tensor]) -> None:
    with pytest.raises(NotMadeUp) as refused:
        made_up(inputs, binary=True)
    assert str(refused.value) == f"{inputs[-1].datatype} {list(inputs[-1].shape)}"
