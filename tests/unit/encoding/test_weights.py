"""Words' vectors are read of their file as they are met, and are what its own library reads."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from random import Random

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from broker.encoding.encoder import Vector
from broker.encoding.weights import KeptRows, WeightsFile, open_weights
from broker.encoding.words import WordEncoder, load_encoder

NAME = "embedding.weight"


class Counted(WeightsFile):
    """Counts how often each row is read, of so many rows of four times their number."""

    def __init__(self, rows: int) -> None:
        self.shape = rows, 4
        self.reads = Counter[int]()

    def __getitem__(self, row: int) -> Vector:
        self.reads[row] += 1
        return np.full(4, row, dtype=np.float32)

    def __del__(self) -> None:
        pass


def test_a_row_is_what_the_library_of_the_format_reads() -> None:
    spec = find_spec("wordllama")
    assert spec is not None
    assert spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "weights/l2_supercat_256.safetensors"
    weights = open_weights(path, NAME)
    with safe_open(path, framework="np") as file:
        whole = file.get_slice(NAME)
        assert weights.shape == tuple(whole.get_shape())
        for row in (0, 1, 17_004, weights.shape[0] - 1):
            expected = whole[row : row + 1][0].astype(np.float32)
            np.testing.assert_array_equal(weights[row], expected)


def test_numbers_of_another_precision_are_refused(tmp_path: Path) -> None:
    save_file({NAME: np.ones((2, 2), np.float32)}, tmp_path / "odd")
    with pytest.raises(ValueError, match="F32"):
        open_weights(tmp_path / "odd", NAME)
    with pytest.raises(KeyError):
        open_weights(tmp_path / "odd", "another")


def test_each_row_is_read_once_however_many_threads_ask_for_it() -> None:
    rows = [Random(at).sample(range(400), 300) for at in range(4)]
    weights = Counted(400)
    kept = KeptRows(weights)
    with ThreadPoolExecutor(4) as pool:
        places = list(pool.map(lambda asked: [kept[row] for row in asked], rows))
    for asked, found in zip(rows, places, strict=True):
        np.testing.assert_array_equal(kept.table[found, 0], asked)
    assert set(weights.reads.values()) == {1}
    assert sorted(kept.values()) == list(range(len(weights.reads)))


def test_only_what_is_met_is_held() -> None:
    encoder: WordEncoder = load_encoder()
    before = len(encoder.kept)
    for _ in range(3):
        encoder.encode("May my landlord end the lease?")
    assert before < len(encoder.kept) <= before + 12
