"""Turns text into a vector: the mean of its words' vectors, as wordllama has learned them.

Weights and vocabulary are read from the wheel of `wordllama` (MIT), whose own code is not run: its
tokenizer alone takes twice the time that a prompt may take here, and importing it sets up the
logging of the whole process. Words are cut into the longest pieces that the vocabulary has. The cut
is remembered in memory, word by word and without any of what stood around them.
"""

from __future__ import annotations

from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np

from broker.encoding.encoder import Vector
from broker.encoding.sample import sample
from broker.encoding.shape import SHAPE_LENGTH, ShapeReader, count_bytes
from broker.encoding.weights import KeptRows, WeightsFile, open_weights

_WEIGHTS = "weights/l2_supercat_256.safetensors"
_VOCABULARY = "tokenizers/l2_supercat_tokenizer_config.json"
WORDS_KEPT_MAX = 60_000
WORD_CHARACTERS_MAX = 24
"""A longer word is cut each time anew, and so not remembered."""
_PIECE_CHARACTERS_MAX = 10
"""But for whole words, which are known at once."""
_FOREIGN_PIECE_CHARACTERS_MAX = 6
_NO_PIECE = -1
"""Stands for what pieces begin with."""
_START = "\u2581"
"""Stands before a piece that begins a word."""
_MARKS = "0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
"""Stand for themselves wherever they stand, so they are counted instead of cut."""
_SPACED = str.maketrans(_MARKS, " " * len(_MARKS))


class _Pieces(dict[str, tuple[int, ...]]):
    """Words, and the places of their pieces' rows; a new word is cut when it is first met."""

    def __init__(self, vocabulary: dict[str, int], kept: KeptRows) -> None:
        super().__init__()
        self._kept = kept
        # Their beginnings too: where one ends, the longest piece is known, and no longer one tried.
        self._pieces = {
            each[:length]: _NO_PIECE
            for each in vocabulary
            for length in range(1, min(len(each), _PIECE_CHARACTERS_MAX))
        } | vocabulary

    def __missing__(self, word: str) -> tuple[int, ...]:
        marked = _START + word
        whole = self._pieces.get(marked, _NO_PIECE)
        is_whole = whole != _NO_PIECE and word.isalpha()
        rows = (self._kept[whole],) if is_whole else tuple(self._cut(marked))
        if len(self) < WORDS_KEPT_MAX and len(word) <= WORD_CHARACTERS_MAX:
            self[word] = rows
        return rows

    def _cut(self, word: str) -> list[int]:
        rows: list[int] = []
        find, kept, at, size = self._pieces.get, self._kept, 0, len(word)
        longest = _PIECE_CHARACTERS_MAX if word[1:].isascii() else _FOREIGN_PIECE_CHARACTERS_MAX
        while at < size:
            end = behind = at + 1
            most, found = min(at + longest, size), _NO_PIECE
            row = find(word[at:end])
            while row is not None:
                if row != _NO_PIECE:
                    found, behind = row, end
                if end == most:
                    break
                end += 1
                row = find(word[at:end])
            if found != _NO_PIECE:  # a letter that is in no piece is passed over
                rows.append(kept[found])
            at = behind
        return rows


class WordEncoder:
    """An `Encoder`: a unit vector of meaning, then the shape. Build it with `load_encoder`."""

    name = "wordllama-l2-supercat-256/shape-1"

    def __init__(self, weights: WeightsFile | Vector, vocabulary: dict[str, int]) -> None:
        self.kept = KeptRows(weights)
        self._weights = self.kept.table
        self._pieces = _Pieces(vocabulary, self.kept)
        self._marks = np.array([weights[vocabulary[each]] for each in _MARKS])
        self._mark_bytes = np.frombuffer(_MARKS.encode(), dtype=np.uint8)
        self._shapes = ShapeReader()
        self.meaning = weights.shape[1]
        self.length = self.meaning + SHAPE_LENGTH

    def encode(self, prompt: str) -> Vector:
        """Return the vector of a prompt; zeros stand for the meaning of an empty one."""
        read = sample(prompt)
        counts = count_bytes(read)
        words = read.translate(_SPACED).split()
        rows = np.array(list(chain.from_iterable(map(self._pieces.__getitem__, words))), np.int32)
        # A product with ones sums the rows in half the time of `sum`.
        meant = np.ones(rows.size, np.float32) @ self._weights.take(rows, axis=0)
        meant += counts[self._mark_bytes] @ self._marks
        vector = np.empty(self.length, dtype=np.float32)
        np.divide(meant, float(np.sqrt(meant.dot(meant))) or 1.0, out=vector[: meant.size])
        vector[meant.size :] = self._shapes.read(prompt, read, counts)
        return vector


def load_encoder() -> WordEncoder:
    """Load the encoder: 8 MB, and 1 kB for each piece of a word that is met, 41 MB at most. Raises
    ImportError without the package."""
    spec = find_spec("wordllama")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("the package 'wordllama' is not installed")
    folder = Path(spec.submodule_search_locations[0])
    weights = open_weights(folder / _WEIGHTS, "embedding.weight")
    tokenizer = msgspec.json.decode((folder / _VOCABULARY).read_bytes(), type=_Tokenizer)
    return WordEncoder(weights, tokenizer.model.vocab)


class _Vocabulary(msgspec.Struct):
    vocab: dict[str, int]


class _Tokenizer(msgspec.Struct):
    """What is read of the file; all else is passed over, for reading holds up all other threads."""

    model: _Vocabulary
