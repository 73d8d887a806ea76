"""Cascades are replayed where rows say how sure models were, and save where that is true."""

from __future__ import annotations

import json
from math import log
from pathlib import Path
from random import Random
from typing import Any

from typer.testing import CliRunner

from broker.cli.main import app
from tests.integration.routing.examples import COOKING, LAW


def table(path: Path, count: int = 300, silent: str = "") -> Path:
    """Prompts of two tasks; the small model errs on hard ones, and knows it. Who is `silent` does
    not tell how sure it is."""
    random = Random(5)
    rows = []
    for number in range(count):
        task = ("law", "cooking")[number % 2]
        words = random.choice(LAW if task == "law" else COOKING)
        hard = random.random() < (0.6 if task == "law" else 0.3)
        small = random.random() < (0.2 if hard else 0.95)
        large = random.random() < (0.85 if hard else 0.96)
        sure = random.gauss(0.92 if small else 0.6, 0.05)
        confidence = min(max(sure, 0.05), 0.999)
        told = {
            "small": (small, confidence, 0.0002, 300.0),
            "large": (large, 0.95, 0.004, 1_500.0),
        }
        names = ("correct", "confidence_logp", "cost_usd", "latency_ms")
        models = {
            model: dict(zip(names, (right, log(told_p), *rest), strict=True))
            for model, (right, told_p, *rest) in told.items()
        }
        if silent:
            models[silent]["confidence_logp"] = None
        rows.append({"prompt": f"{words} ({number})", "task": task, "models": models})
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def replayed(path: Path) -> Any:
    ended = CliRunner().invoke(app, ["replay-routing", str(path), "--json"])
    assert ended.exit_code == 0, (ended.output, ended.exception)
    return json.loads(ended.output)


def test_a_model_that_knows_when_it_errs_makes_cascades_pay(tmp_path: Path) -> None:
    told = replayed(table(tmp_path / "informed.jsonl"))
    cascade = told["cascade"]
    assert cascade["measures"]["cost_saved_at_best_single"] > 0.4
    assert cascade["measures"]["cost_saved_at_best_single"] > (
        told["cost_saved_at_best_single"] or 0.0
    )
    assert cascade["gain_at_router_cost"] > 0.03
    assert cascade["measures"]["aiq"] > told["aiq"] + 0.03
    best = cascade["measures"]["accuracy_max_quality"]
    assert best >= told["best_single_accuracy"]
    assert 0.1 < cascade["escalated"] < 0.8
    assert cascade["ece"] < 0.06
    assert 300.0 < cascade["latency_ms"] < 1_800.0
    small = next(each for each in cascade["calibrations"] if each["model"] == "small")
    assert small["ece"] < small["ece_raw"]


def test_what_cascades_come_to_is_printed_beside_routing_alone(tmp_path: Path) -> None:
    path = table(tmp_path / "table.jsonl", count=80)
    printed = CliRunner().invoke(app, ["replay-routing", str(path)])
    assert "with cascades" in printed.output, printed.exception
    assert "ece, small" in printed.output


def test_a_model_that_does_not_say_how_sure_it_is_takes_no_cascade_from_those_that_do(
    tmp_path: Path,
) -> None:
    told = replayed(table(tmp_path / "large_is_silent.jsonl", silent="large"))
    assert [each["model"] for each in told["cascade"]["calibrations"]] == ["small"]
    assert told["cascade"]["gain_at_router_cost"] > 0.03
    silent = replayed(table(tmp_path / "small_is_silent.jsonl", silent="small"))
    assert [each["model"] for each in silent["cascade"]["calibrations"]] == ["large"]
    assert silent["cascade"]["gain_at_router_cost"] > -0.01, "what is not known costs nothing"
