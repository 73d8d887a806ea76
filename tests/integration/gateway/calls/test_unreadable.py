"""No prompt can be read back from what is kept of calls, not even by who has the encoder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from broker.core.quality.evidence import pack
from broker.encoding.words import WordEncoder, load_encoder
from tests.integration.gateway.house import Consumer, House, Stall
from tests.integration.gateway.quality.test_recognised import PROMPT, ask
from tests.integration.routing.examples import COOKING, LAW
from tests.waiting import until

WORDS = {"landlord", "raise", "rent", "before", "contract", "ends"}
WORDS_MAX = 20


def read_back(numbers: NDArray[np.float64], encoder: WordEncoder) -> set[str]:
    """Guess the words of a vector by orthogonal matching pursuit: Pati, Rezaiifar,
    Krishnaprasad, 1993."""
    known = encoder.kept.weights
    weights = np.array([known[row] for row in range(known.shape[0])], dtype=np.float64)
    steps = weights / np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-9)
    sought = numbers[: encoder.meaning]
    left, chosen = sought, list[int]()
    while len(chosen) < WORDS_MAX and np.linalg.norm(left) > 0.01 * np.linalg.norm(sought):
        chosen.append(int(np.abs(steps @ left).argmax()))
        amounts = np.linalg.lstsq(weights[chosen].T, sought, rcond=None)[0]
        left = sought - amounts @ weights[chosen]
    pieces = {row: piece for piece, row in encoder._pieces._pieces.items()}
    return {pieces[row].strip("\u2581") for row in chosen}


def vectors(kept: Any, length: int) -> Iterator[NDArray[np.float64]]:
    """All in a value that may be a vector, in whatever precision."""
    if isinstance(kept, dict):
        kept = list(kept.values())
    if isinstance(kept, list):
        if len(kept) >= length and all(isinstance(each, int | float) for each in kept):
            yield np.array(kept, np.float64)
        for each in kept:
            yield from vectors(each, length)
    if isinstance(kept, bytes):
        for kind in ("<f2", "<f4", "<f8"):
            whole = len(kept) // int(kind[-1]) * int(kind[-1])
            with np.errstate(invalid="ignore", over="ignore"):
                found = np.frombuffer(kept[:whole], kind).astype(np.float64)
            if found.size >= length and np.isfinite(found).all():
                yield found


async def test_no_prompt_can_be_read_back_from_what_is_kept_of_its_call(
    house: House, shop: Consumer
) -> None:
    await house.enrol(Stall(name="acme/jurist", model="jurist", endpoint={"domains": {"law": 0.9}}))
    for name, examples in (("law", LAW), ("cooking", COOKING)):
        await house.operator.put(f"/api/domains/{name}", json={"examples": examples})

    asked = []

    async def recognised() -> bool:
        asked.append((await ask(shop, PROMPT))[1])
        story = await house.story(shop, asked[-1])
        return "domain_confidence" in story["requirements"]

    await until(recognised)
    said = await shop.http.post(f"/api/calls/{asked[-1]}/feedback", json={"score": 1})
    assert said.status_code == 201, said.text
    rows = await house.database.fetch("SELECT * FROM evidence")
    stories = await house.database.fetch("SELECT story FROM calls")
    assert len(rows) > 0 < len(stories)
    kept = [*(list(row) for row in rows), *(msgspec.msgpack.decode(row[0]) for row in stories)]
    encoder = load_encoder()
    assert len(read_back(next(vectors([pack(encoder.encode(PROMPT))], 256)), encoder) & WORDS) > 4
    for each in vectors(kept, encoder.meaning):
        assert not read_back(each, encoder) & WORDS
