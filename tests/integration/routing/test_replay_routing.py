"""A table of known answers is routed offline; what is wrong with a table is told by its line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner

from broker.cli.main import app
from broker.errors import RequestMalformed
from broker.flows.quality.routing_table import read_table

SPECIALISTS = os.environ.get("ROUTING_TABLES", "")
"""The folder of published tables, which are not part of the project."""
TOPICS = {
    "law": ["lease", "tenant", "landlord", "contract", "clause", "court", "appeal", "statute"],
    "cooking": ["onion", "oven", "butter", "simmer", "flour", "dough", "garlic", "roast"],
    "python": ["list", "loop", "string", "integer", "function", "tuple", "dictionary", "class"],
}
SPECIALIST = {"law": "jurist-7b", "cooking": "chef-7b", "python": "coder-7b"}
PRICES = {
    name: {"input_usd_per_mtok": price, "output_usd_per_mtok": price}
    for name, price in (("large-70b", 0.9), *((each, 0.2) for each in SPECIALIST.values()))
}


def rows(count: int) -> list[dict[str, object]]:
    """Prompts of three topics; a specialist is good at its own, a large model fair at all."""
    random, made = Random(1), []
    for number in range(count):
        topic = random.choice(list(TOPICS))
        words = " ".join(random.choices(TOPICS[topic], k=8))
        chance = {each: 0.9 if SPECIALIST[topic] == each else 0.2 for each in SPECIALIST.values()}
        scores = {
            name: float(random.random() < chance)
            for name, chance in (("large-70b", 0.7), *chance.items())
        }
        split = "train" if number % 2 else "test"
        made.append(
            {"prompt": f"Explain {words}?", "task": topic, "split": split, "scores": scores}
        )
    return made


def write(folder: Path, made: list[dict[str, object]]) -> tuple[str, str]:
    table, prices = folder / "table.jsonl", folder / "prices.json"
    table.write_text("\n".join(json.dumps(each) for each in made))
    prices.write_text(json.dumps(PRICES))
    return str(table), str(prices)


def metered(count: int, dearer: float = 1.0) -> list[dict[str, object]]:
    """The same prompts with what each model's answer has cost: tenths of a cent, times `dearer`."""
    cost = {"large-70b": 1e-3, "jurist-7b": 2e-4, "chef-7b": 1e-4, "coder-7b": 3e-4}
    return [
        {
            "prompt": each["prompt"],
            "task": each["task"],
            "arms": {
                name: {"reward": score, "cost_usd": cost[name] * dearer}
                for name, score in dict(each["scores"]).items()  # type: ignore[call-overload]
            },
        }
        for each in rows(count)
    ]


def replayed(*arguments: str) -> dict[str, object]:
    done = CliRunner().invoke(app, ["replay-routing", *arguments, "--json"])
    assert done.exit_code == 0, done.output or done.exception
    return dict(json.loads(done.stdout))


def test_specialists_together_beat_the_best_single_model_for_less(tmp_path: Path) -> None:
    table, prices = write(tmp_path, rows(600))
    told = replayed(table, "--prices", prices)
    assert told["rows"] == 300
    assert told["best_single"] == "large-70b"
    assert float(told["accuracy_max_quality"]) > float(told["best_single_accuracy"]) + 0.1
    assert float(told["cost_saved_at_best_single"]) > 0.5
    assert float(told["ece"]) < 0.15
    assert {"aiq", "task_oracle_accuracy", "ablations", "intervals"} <= told.keys()
    assert not told.get("feedback"), "nobody asked for it"


def test_feedback_alone_teaches_nearly_as_much_as_all_scores(tmp_path: Path) -> None:
    table, prices = write(tmp_path, rows(600))
    told = replayed(table, "--prices", prices, "--learn-from-feedback", "300")
    first, *_, last = told["feedback"]  # type: ignore[misc]
    assert (first["calls"], last["calls"]) == (60, 300)
    assert last["share"] > 0.9
    assert last["accuracy"] > first["accuracy"]
    assert float(told["best_single_accuracy"]) + 0.05 < last["accuracy"]


def test_feedback_counts_a_scales_zero_among_its_other_scores(tmp_path: Path) -> None:
    """Apart, as wrong answers, the zeros of who fails often would hardly count against it."""
    made = rows(600)
    for at, each in enumerate(made):
        moody = dict.fromkeys(SPECIALIST.values(), 0.6 if at // 2 % 5 < 3 else 0.0)
        each["scores"] = moody | {"large-70b": 0.45}
    table, prices = write(tmp_path, made)
    *_, last = replayed(table, "--prices", prices, "--learn-from-feedback", "300")["feedback"]  # type: ignore[misc]
    assert last["lowest"] == pytest.approx(0.45)


def test_feedback_without_a_whole_row_is_refused_and_where_nothing_is_right_all_is_reached(
    tmp_path: Path,
) -> None:
    made = rows(40)
    for at, each in enumerate(made):
        told = dict.fromkeys(each["scores"], 0)  # type: ignore[call-overload]
        each["scores"] = told
        each["split"] = "test" if at % 2 else "train"
    table, prices = write(tmp_path, made)
    words = ("--prices", prices, "--learn-from-feedback", "5")
    *_, last = replayed(table, *words)["feedback"]  # type: ignore[misc]
    assert (last["accuracy"], last["share"]) == (0.0, 1.0)
    for at, each in enumerate(made[::2]):
        told = dict(each["scores"])  # type: ignore[call-overload]
        each["scores"] = told | {list(told)[at % len(told)]: None}
    table, prices = write(tmp_path, made)
    done = CliRunner().invoke(app, ["replay-routing", table, *words])
    assert isinstance(done.exception, RequestMalformed)
    assert "No row to learn from" in str(done.exception)


@pytest.mark.skipif(not SPECIALISTS, reason="the published table is not here")
def test_a_thousand_calls_of_feedback_reach_the_published_tables_best() -> None:
    folder = Path(SPECIALISTS)
    files = str(folder / "specialists.jsonl"), str(folder / "specialists_prices.json")
    told = replayed(files[0], "--prices", files[1], "--learn-from-feedback", "1000")
    assert told["feedback"][-1]["share"] >= 0.95  # type: ignore[index]


def test_metered_rows_show_how_budgets_are_spent(tmp_path: Path) -> None:
    table, _ = write(tmp_path, metered(500))
    told = replayed(table)
    steady = [each for each in told["budgets"] if each["shifted"] is None]
    assert len(steady) == 5
    assert all(abs(each["spent_over_budget"]) < 0.02 for each in steady)
    assert all(each["reward"] >= each["best_fixed_mix"] for each in steady)
    assert all(each["possible"] for each in steady)
    # When the cheapest is five times as dear for the second half, little money does not reach.
    risen = [each for each in told["budgets"] if each["shifted"] == "chef-7b"]
    assert [each["possible"] for each in risen] == sorted(each["possible"] for each in risen)
    assert not risen[0]["possible"]
    assert risen[0]["budget_usd"] < risen[0]["least_usd"]


def test_who_is_routed_where_is_the_same_whatever_a_dollar_is_worth(tmp_path: Path) -> None:
    courses = []
    for dearer in (1.0, 1e5):
        table, _ = write(tmp_path, metered(400, dearer))
        points = replayed(table)["points"]
        courses.append([each for cost, got in points for each in (cost / dearer, got)])  # type: ignore[attr-defined]
    assert max(courses[0][1::2]) > min(courses[0][1::2]) + 0.3, "from best to cheapest"
    assert courses[1] == pytest.approx(courses[0])


def test_a_table_is_shown_with_a_plot(tmp_path: Path) -> None:
    table, prices = write(tmp_path, rows(200))
    done = CliRunner().invoke(app, ["replay-routing", table, "--prices", prices])
    assert done.exit_code == 0
    assert "accuracy_max_quality" in done.stdout
    assert "USD a call" in done.stdout
    plot = done.stdout[done.stdout.index("│") : done.stdout.index("USD a call")]
    assert 1 <= plot.count("o") <= len(PRICES), "each model alone"
    assert "•" in plot


def test_why_there_is_no_such_measure_is_said_in_the_table_and_it_is_null_in_json(
    tmp_path: Path,
) -> None:
    made = rows(200)
    for each in made:
        law = each["task"] == "law"
        # What was learned is of no use any more: the specialist is asked, and answers nothing.
        right = "large-70b" if each["split"] == "test" or not law else "jurist-7b"
        each["scores"] = {name: float(name == right) for name in PRICES}
    table, prices = write(tmp_path, made)
    words = (table, "--prices", prices)
    told = replayed(*words)
    assert told["cost_saved_at_best_single"] is None
    assert lines_of(*words)["cost_saved_at_best_single"].split(maxsplit=1) == [
        *("-", "none: it never gets as much right as the best single"),
    ]
    alone = [each | {"scores": {"chef-7b": each["scores"]["chef-7b"]}} for each in rows(200)]  # type: ignore[index]
    write(tmp_path, alone)
    assert dict(replayed(*words)["measures"])["apgr"] is None  # type: ignore[call-overload]
    assert lines_of(*words)["apgr"].endswith(
        "- none: the best single is no better than the cheapest"
    )


def lines_of(*arguments: str) -> dict[str, str]:
    """Return what is told of each measure, blanks between columns as one."""
    done = CliRunner().invoke(app, ["replay-routing", *arguments], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output or done.exception
    told = (line.split() for line in done.stdout.splitlines() if line.strip())
    return {first: " ".join(rest) for first, *rest in told}


def test_what_is_free_stands_at_the_left_edge_and_a_single_model_is_one_point(
    tmp_path: Path,
) -> None:
    table, prices = write(tmp_path, rows(200))
    free = dict.fromkeys(("input_usd_per_mtok", "output_usd_per_mtok"), 0)
    Path(prices).write_text(json.dumps(PRICES | {"chef-7b": free}))
    printed = CliRunner().invoke(app, ["replay-routing", table, "--prices", prices]).stdout
    axis = next(each for each in printed.splitlines() if "USD a call" in each)
    assert axis.split()[0] == "0"
    plot = [line for line in printed.splitlines() if line.startswith("  │")]
    assert len({line.find("•") for line in plot}) > 4, "the others are not crowded at the right"
    alone = [each | {"scores": {"chef-7b": each["scores"]["chef-7b"]}} for each in rows(200)]  # type: ignore[index]
    table, _ = write(tmp_path, alone)
    printed = CliRunner().invoke(app, ["replay-routing", table, "--prices", prices]).stdout
    plot = [line for line in printed.splitlines() if line.startswith("  │")]
    assert "".join(plot).replace(" ", "").replace("│", "") == "o", "however sums are rounded"


def test_rows_in_which_a_model_has_no_score_are_learned_from_and_not_routed(tmp_path: Path) -> None:
    made = rows(200)
    for each, scores in zip(made[:4], ({}, {"large-70b": None}) * 2, strict=True):
        told: dict[str, object] = dict(each["scores"])  # type: ignore[call-overload]
        del told["large-70b"]
        each["scores"] = told | scores
    table, prices = write(tmp_path, made)
    report = replayed(table, "--prices", prices)
    assert (report["rows"], report["rows_left_out"], report["rows_train"]) == (98, 2, 100)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (['{"prompt": "a"'], "line 1"),
        (['{"prompt": "a", "scores": {"m": 1}}', '{"prompt": "b"}'], "line 2: it has no scores"),
        (
            [
                '{"prompt": "a", "arms": {"m": {"cost_usd": 1, "reward": 1}}}',
                '{"prompt": "b", "scores": {"m": 1}}',
            ],
            "line 2: a table has either scores",
        ),
        ([], "has no rows"),
        (['{"prompt": "a", "split": "train", "scores": {"m": 1}}'], "no price of m"),
        (
            ['{"prompt": "a", "scores": {"coder-7b": 1, "half-priced": 1}}'],
            "prices.json, price of half-priced: Object missing required field `output_",
        ),
    ],
)
def test_what_is_wrong_with_a_table_is_told(tmp_path: Path, lines: list[str], said: str) -> None:
    table, prices = write(tmp_path, [])
    priced = PRICES | {"half-priced": {"input_usd_per_mtok": 0.2}}
    Path(prices).write_text(json.dumps(priced))
    Path(table).write_text("\n".join(lines))
    done = CliRunner().invoke(app, ["replay-routing", table, "--prices", prices])
    assert done.exit_code == 1
    assert said in str(done.exception)


@pytest.mark.parametrize(
    ("learned", "routed", "said"),
    [
        ("ab", "abc", "they lack c."),
        ("abc", "a", "they have beside those b, c."),
        ("abz", "abcdefghi", "they lack c, d, e, f, g and 2 more and have beside those z."),
    ],
)
def test_tables_of_other_models_are_refused_by_the_names_of_those_that_differ(
    tmp_path: Path, learned: str, routed: str, said: str
) -> None:
    files = tmp_path / "learned.jsonl", tmp_path / "routed.jsonl"
    for file, models in zip(files, (learned, routed), strict=True):
        arms = {each: {"cost_usd": 0.1, "reward": 1} for each in models}
        file.write_text(json.dumps({"prompt": "a", "arms": arms}))
    words = ["replay-routing", str(files[1]), "--train", str(files[0])]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, RequestMalformed)
    assert str(done.exception).endswith(said)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"scores": {"m": 1.5}}, "scores['m'] is 1.5, and not within 0..1"),
        ({"scores": {"m": -0.1}}, "scores['m'] is -0.1"),
        ({"scores": {"m": float("nan")}}, "scores['m'] is nan"),
        ({"arms": {"m": {"cost_usd": 0, "reward": 95}}}, "arms['m'].reward is 95"),
        ({"arms": {"m": {"cost_usd": -0.01, "reward": 1}}}, "arms['m'].cost_usd is -0.01, and"),
        ({"arms": {"m": {"cost_usd": float("inf"), "reward": 1}}}, "arms['m'].cost_usd is inf"),
        ({"arms": {"m": {"cost_usd": 1e300, "reward": 1}}}, "arms['m'].cost_usd is 1e+300, and"),
        ({"models": {"m": {"cost_usd": 0, "correct": 2}}}, "models['m'].correct is 2"),
        (
            {"models": {"m": {"cost_usd": 0, "correct": True, "confidence_logp": 0.7}}},
            "models['m'].confidence_logp is 0.7, and not within -inf..0",
        ),
    ],
)
def test_a_number_outside_its_range_is_refused_by_line_and_field(
    tmp_path: Path, told: dict[str, object], said: str
) -> None:
    table = tmp_path / "odd.jsonl"
    sound = {"models": {"m": {"cost_usd": 0, "correct": 1, "confidence_logp": -0.5}}}
    table.write_text("\n".join(json.dumps({"prompt": "a"} | each) for each in (sound, told)))
    done = CliRunner().invoke(app, ["replay-routing", str(table)])
    assert isinstance(done.exception, RequestMalformed)
    assert str(done.exception).startswith(f"odd.jsonl, line 2: {said}")


def test_a_number_outside_its_range_by_rounding_is_taken_as_its_end(tmp_path: Path) -> None:
    table = tmp_path / "table.jsonl"
    arm = {"cost_usd": 0.1, "correct": 1 + 1e-12, "confidence_logp": 1e-12}
    table.write_text(json.dumps({"prompt": "a", "models": {"m": arm}}))
    read = read_table(table, None, tokens_out=150)
    assert (read.scores.item(), read.confidences.item()) == (1.0, 1.0)


def test_tables_of_other_hands_are_read_marked_as_utf_8_without_tasks_and_with_prices_as_text(
    tmp_path: Path,
) -> None:
    table, prices = tmp_path / "table.jsonl", tmp_path / "prices.json"
    row = {"prompt": "a", "task": None, "split": None, "scores": {"m": True}}
    table.write_bytes(b"\xef\xbb\xbf" + json.dumps(row).encode())
    priced = {"input_usd_per_mtok": "0.5", "output_usd_per_mtok": "2"}
    prices.write_text(json.dumps({"m": priced, "not in the table": None}), encoding="utf-8-sig")
    read = read_table(table, prices, tokens_out=1_000_000)
    assert (read.tasks, read.scores.item()) == (("",), 1.0)
    assert read.costs_usd.item() == pytest.approx(2.0, rel=1e-4)


def test_prices_that_are_not_in_utf_8_are_refused_with_the_name_of_their_file(
    tmp_path: Path,
) -> None:
    table, prices = tmp_path / "table.jsonl", tmp_path / "prices.json"
    table.write_text(json.dumps({"prompt": "a", "scores": {"m": 1}}))
    prices.write_bytes('{"m\xe9": {}}'.encode("latin-1"))
    with pytest.raises(RequestMalformed, match=r"^prices\.json: 'utf-8' codec"):
        read_table(table, prices, tokens_out=1)
