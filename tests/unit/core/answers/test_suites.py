"""Suites are read row by row: broken rows are named by line, and the good ones run."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import msgspec
import pytest

from broker.core.answers.suites import (
    SUITE_PARTS_MAX,
    Form,
    Item,
    Metric,
    Suite,
    parse_suite,
    sample,
)
from broker.errors import RequestMalformed

ROWS = (
    '{"prompt": "2+2?", "reference": 4, "metric": "numeric"}',
    "",
    "no json",
    '{"prompt": "2+2?", "reference": "four", "metric": "numeric"}',
    '{"prompt": "Pick", "reference": "B", "metric": "choice", "choices": ["A", "B"], "id": 7}',
    '{"prompt": "Pick", "reference": "C", "metric": "choice", "choices": ["A", "B"]}',
    '{"prompt": "x", "reference": "(a+)\\\\1", "metric": "regex"}',
    '{"prompt": "x", "reference": {"type": "text"}, "metric": "json_schema"}',
    '{"prompt": "x", "metric": "judge"}',
    '{"prompt": "x", "metric": "vibes", "reference": "y"}',
    '{"prompt": "x", "metric": "exact"}',
    '{"prompt": " ", "metric": "exact", "reference": "y"}',
    '{"prompt": "x", "metric": "exact", "reference": "y", "tolerence": 1}',
    '{"prompt": "x", "metric": "numeric", "reference": "nan"}',
)


def test_broken_rows_are_named_by_line_and_the_good_ones_run() -> None:
    items, broken = parse_suite("\n".join(ROWS).encode())
    assert [each.metric for each in items] == [Metric.NUMERIC, Metric.CHOICE]
    assert [each.line for each in broken] == [3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14]
    assert "tolerence" in broken[9].reason
    assert "four" in broken[1].reason


def test_rows_without_a_judge_of_their_own_have_that_of_the_suite() -> None:
    items, broken = parse_suite(ROWS[8].encode(), "acme/judge")
    assert (items[0].judge, broken) == ("acme/judge", [])


def test_bytes_that_are_no_text_break_their_row_alone() -> None:
    items, broken = parse_suite(b'{"prompt": "\xff"}\n' + ROWS[0].encode())
    assert (len(items), [each.line for each in broken]) == (1, [1])


@pytest.mark.parametrize("lines", [b"", b"\n\n", b"no json"])
def test_a_suite_without_a_good_row_is_refused(lines: bytes) -> None:
    with pytest.raises(RequestMalformed) as refused:
        parse_suite(lines)
    assert refused.value.code == "suite_empty"


def test_too_many_rows_are_refused() -> None:
    with pytest.raises(RequestMalformed, match="at most"):
        parse_suite(b"\n".join([ROWS[0].encode()] * 2_001))


def asked(count: int, **more: int) -> tuple[Item, ...]:
    return parse_suite(
        b"\n".join(
            msgspec.json.encode(
                {"prompt": f"{number}?", "reference": "x", "metric": "exact", **more}
            )
            for number in range(count)
        )
    )[0]


def suite_of(items: tuple[Item, ...]) -> Suite:
    return Suite("law", None, items, "ops", datetime(2026, 3, 1, tzinfo=UTC))


def test_what_canaries_put_is_in_no_examination() -> None:
    suite = suite_of(asked(60))
    examined, held_back = suite.split()
    assert (len(examined), len(held_back)) == (45, 15)
    drawn = {each.prompt for seed in range(20) for each in suite.draw(Random(seed))}
    assert not drawn & {each.prompt for each in held_back}
    more = suite_of((*suite.items, *asked(64)[60:])).split()[1]
    assert len(set(held_back) & set(more)) > 10, "rows that are added change little"
    few = suite_of(asked(3))
    assert few.split() == (few.items, few.items)


def test_an_examination_takes_only_so_many_tokens() -> None:
    drawn = suite_of(asked(60, max_tokens=16_000)).draw(Random(1))
    assert len(drawn) == 6


def test_a_sample_is_the_same_for_the_same_seed() -> None:
    items = asked(100)

    def drawn(seed: int) -> tuple[Item, ...]:
        return sample(items, 40, Random(seed))

    assert drawn(1) == drawn(1) != drawn(2)
    assert len({each.prompt for each in drawn(1)}) == 40
    assert sample(items[:3], 40, Random(1)) == items[:3]


def test_rows_for_vectors_are_told_from_rows_for_words() -> None:
    lines = [
        {"prompt": "a", "metric": "closer", "reference": ["b", "c"]},
        {"prompt": "a", "metric": "exact", "reference": "b"},
        {"prompt": "a", "metric": "closer", "reference": ["b", "b"]},
        {"prompt": "a", "metric": "closer", "reference": "b"},
        {"prompt": "a", "metric": "closer", "reference": ["b", " "]},
    ]
    items, broken = parse_suite(b"\n".join(map(msgspec.json.encode, lines)))
    assert [each.line for each in broken] == [3, 4, 5]
    suite = Suite("law", None, items, "ops", datetime(2026, 1, 1, tzinfo=UTC))
    assert [each.metric for each in suite.part(Form.VECTORS).items] == [Metric.CLOSER]
    assert [each.metric for each in suite.part(Form.WORDS).items] == [Metric.EXACT]


CLASSES = {"name": "label", "parameters": {"classification": 1}}
TENSOR = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a lease"]}


def test_rows_of_tensors_are_told_from_others_and_broken_ones_are_named() -> None:
    lines: list[dict[str, object]] = [
        {"inputs": [TENSOR], "output": "label", "metric": "choice", "reference": "A"},
        {"prompt": "a", "metric": "exact", "reference": "b"},
        {"inputs": [], "metric": "exact", "reference": "b"},
        {"inputs": [TENSOR], "metric": "f1", "reference": "b"},
        {"inputs": [TENSOR | {"parameters": {}}], "metric": "exact", "reference": "b"},
        {"inputs": [TENSOR], "metric": "exact"},
        # Classes of texts, for one, at which Triton ends.
        {"inputs": [TENSOR], "output": CLASSES, "metric": "exact", "reference": "b"},
        {"inputs": [TENSOR], "outputs": [CLASSES], "metric": "exact", "reference": "b"},
        {"prompt": "a", "output": "label", "metric": "exact", "reference": "b"},
        {"metric": "exact", "reference": "b"},
    ]
    items, broken = parse_suite(b"\n".join(map(msgspec.json.encode, lines)))
    assert [each.line for each in broken] == [3, 4, 5, 6, 7, 8, 9, 10]
    suite = Suite("law", None, items, "ops", datetime(2026, 1, 1, tzinfo=UTC))
    assert suite.part(Form.TENSORS).items == items[:1]
    assert suite.part(Form.WORDS).items == items[1:]
    assert suite.part(Form.VECTORS).items == ()


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"metric": "exact", "reference": ["a"] * 101}, "at most 100 references"),
        ({"metric": "f1", "reference": ["a"] * 50_000}, "at most 100 references"),
        ({"metric": "regex", "reference": ["a+"] * 21}, "at most 20 references"),
        ({"metric": "choice", "reference": "A", "choices": ["A", "A"]}, "each another"),
        ({"metric": "choice", "reference": "A", "choices": ["A", ""]}, "none empty"),
        ({"metric": "choice", "reference": "0", "choices": list(map(str, range(1_001)))}, "1000"),
    ],
)
def test_rows_that_would_be_much_work_for_each_answer_are_broken(
    row: dict[str, object], why: str
) -> None:
    sound = msgspec.json.encode({"prompt": "2+2?", "reference": 4, "metric": "numeric"})
    _, broken = parse_suite(sound + b"\n" + msgspec.json.encode({"prompt": "x", **row}))
    assert [each.line for each in broken] == [2]
    assert why in broken[0].reason


def test_the_elements_of_a_tensor_are_kept_as_they_are_written_but_for_blanks() -> None:
    row = """{"metric": "exact", "reference": 1, "output": "label", "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [2], "data": [[1, 2.50], ["a \\u00e4 b"]]}]}"""
    items, _ = parse_suite(row.replace("\n", "").encode())
    assert items[0].inputs is not None
    assert items[0].inputs[0].data == msgspec.Raw(b'[[1,2.50],["a \\u00e4 b"]]')


def test_the_references_of_a_suite_have_only_so_many_parts_together() -> None:
    def rows(parts: int) -> bytes:
        zeros = ",".join(["0"] * (parts - 1))
        row = f'{{"prompt": "x", "metric": "judge", "judge": "a/b", "reference": [{zeros}]}}'
        return (row + "\n").encode()

    most = rows(SUITE_PARTS_MAX // 3) * 3
    assert len(parse_suite(most)[0]) == 3
    with pytest.raises(RequestMalformed) as refused:
        parse_suite(most + ROWS[0].encode())
    assert refused.value.code == "suite_too_long"
