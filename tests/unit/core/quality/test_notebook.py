"""A notebook that is full keeps of every voice as much as of every other."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from uuid import UUID, uuid5

import pytest

from broker.core.quality.evidence import Piece, Source
from broker.core.quality.notebook import PIECES_MAX, Notebook, share_of
from tests.fakes import ACCOUNT
from tests.unit.core.quality.test_learning import ENDPOINTS, learned, of, piece

RUN = UUID(int=7)
CHECK, FEEDBACK = Source.CHECK, Source.FEEDBACK
MANY = PIECES_MAX * 5 // 4 + 100


def test_examinations_outlast_any_number_of_passed_checks() -> None:
    examined = [piece(0, float(at < 12)) for at in range(40)]
    before = of(learned(examined), "law")[0]
    passed = [piece(2, 1.0, source=CHECK)] * MANY
    assert of(learned(examined + passed), "law")[0] == pytest.approx(before)
    assert before < 0.5


def test_words_on_one_call_drive_out_nothing_and_only_the_last_is_kept() -> None:
    notes = Notebook()
    for _ in range(1_000):
        notes.take(piece(0, 1.0))
    call = uuid5(ACCOUNT, "call")
    words = [piece(0, score, source=FEEDBACK, call_id=call) for score in (0.0, 1.0)]
    for at in range(MANY):
        notes.take(words[at % 2])
    assert len(notes) == 1_001
    heard = notes.read({}, {})
    assert heard.scores[-1] == float((MANY - 1) % 2)
    assert heard.weights.sum() == 1_001


def test_a_later_examination_takes_the_place_of_an_earlier_one_and_of_no_other_evidence() -> None:
    notes = Notebook()
    first, second = UUID(int=1), UUID(int=2)
    notes.take(piece(0, 1.0))
    for run_id, score in ((first, 0.0), (first, 0.0), (second, 1.0), (second, 1.0), (first, 0.0)):
        notes.take(replace(piece(0, score), run_id=run_id))
    notes.take(replace(piece(2, 0.0), run_id=first))
    assert notes.read({}, {}).scores.tolist() == [1.0, 1.0, 1.0, 0.0]


def test_of_a_flood_the_newest_is_kept_and_room_is_shared_evenly() -> None:
    notes = Notebook()
    calls = [uuid5(ACCOUNT, str(at)) for at in range(5)]
    for call in calls:
        notes.take(piece(0, 1.0, source=FEEDBACK, call_id=call))
    passed, failed = (piece(2, score, source=CHECK) for score in (1.0, 0.0))
    for at in range(MANY - 5):
        notes.take(passed if at < MANY - 100 else failed)
    heard = notes.read({}, {})
    assert len(heard.scores) == len(notes) == PIECES_MAX
    assert not heard.checks[:5].any()
    assert heard.checks[5:].all()
    assert (heard.scores == 0.0).sum() == 95
    notes.take(piece(0, 0.0, source=FEEDBACK, call_id=calls[0]))
    assert len(notes.read({}, {}).scores) == len(heard.scores), "in place of the former"


def test_what_nobody_reads_is_bounded_too() -> None:
    notes, passed = Notebook(), piece(2, 1.0, source=CHECK)
    for _ in range(2 * PIECES_MAX + 1):
        notes.take(passed)
    assert len(notes) == PIECES_MAX


def test_what_pieces_have_alike_is_held_once() -> None:
    def read() -> Piece:
        answerer = UUID(int=ENDPOINTS[0].id.int)
        vector, encoder = bytes(bytearray(600)), "".join(["a long", " name"])
        told = piece(0, 1.0, "".join(["la", "w"]), encoder=encoder, vector=vector, run_id=RUN)
        return replace(told, endpoint_id=answerer)

    notes = Notebook()
    notes.take(read())
    tracemalloc.start()
    try:
        for _ in range(1_000):
            notes.take(read())
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held / 1_000 < 400, "of 1,000 bytes"
    assert len(notes) == 1_001


def test_nobody_has_more_than_a_share_where_there_is_too_much() -> None:
    assert share_of([], 10) == 0
    assert share_of([1, 2, 3], 10) == 3
    assert share_of([1, 9, 9], 10) == 4
    assert share_of([9, 9, 9], 2) == 1
