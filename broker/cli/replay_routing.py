"""`broker replay-routing`: what routing would have got over a table of known answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.tables import print_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from broker.flows.quality.replay_cascades import CascadeReport
    from broker.flows.quality.replay_routing import Report

_PLOT_COLUMNS, _PLOT_ROWS = 64, 14
_FLAT = 1e-9
"""What is less apart is the same but for rounding."""


_MEANS = {
    "accuracy_max_quality": "of the routing where money counts nothing",
    "cost_max_quality_usd": "what a call costs then",
    "best_single_accuracy": "of the model that is best alone",
    "best_single_cost_usd": "what a call costs with it",
    "cheapest_accuracy": "of the cheapest model alone",
    "oracle_accuracy": "of who answers best, prompt by prompt",
    "gap_to_oracle": "so much the routing lacks to that",
    "cost_saved_at_best_single": "share of the best single's cost, at its accuracy",
    "random_at_equal_cost": "of a random mix of cheapest and best single",
    "aiq": "mean accuracy over budgets from the least cost to the most",
    "apgr": "share of the way from cheapest to best single, mean over budgets",
    "cpt_50": "share of the best single's further cost that goes half of that way",
    "cpt_80": "and four fifths of it",
    "routerarena": "accuracy and cost in one, as RouterArena weighs them",
    "task_oracle_accuracy": "of the model that is best for the task",
    "ece": "so far expected scores are off",
    "ece_by_chance": "so far they would seem off if they were right",
    "ece_domain": "so far the confidence in domains is off",
    "domain_accuracy": "domains that were recognised",
}
"""What a measure says, in words."""

_WHY_NONE = {
    "cost_saved_at_best_single": "none: it never gets as much right as the best single",
    "apgr": "none: the best single is no better than the cheapest",
    "cpt_50": "none: it never goes half of that way",
    "cpt_80": "none: it never goes four fifths of it",
}
"""Why there is no such measure, where there is none."""


def replay_routing(
    table: Annotated[Path, typer.Argument(help="JSON lines, as above.")],
    prices: Annotated[
        Path | None, typer.Option(help="JSON, as above; rows of scores need it.")
    ] = None,
    train: Annotated[
        Path | None, typer.Option(help="A table to learn from, instead of a split of this one.")
    ] = None,
    train_split: Annotated[str, typer.Option(help="The split to learn from.")] = "train",
    tokens_out: Annotated[int, typer.Option(min=1, help="Assumed length of an answer.")] = 150,
    learn_from_feedback: Annotated[
        int, typer.Option(min=0, help="Learn from the feedback on so many calls alone, too.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead.")] = False,
) -> None:
    """Replay routing offline: accuracy, cost and what each part adds.

    A row is {"prompt": "...", "task": "law", "split": "train", "scores": {"MODEL": 1.0}}, or has
    "arms": {"MODEL": {"reward": 1.0, "cost_usd": 0.001}} in place of scores. Some rows are of the
    split to learn from, the others are routed. Prices are
    {"MODEL": {"input_usd_per_mtok": 0.1, "output_usd_per_mtok": 0.3}}.

    With --json, cost_saved_at_best_single is null where the routing never gets as much right as
    the best single model, apgr where that is no better than the cheapest, and cpt_50 and cpt_80
    where the routing never comes so far.
    """
    import msgspec
    import numpy as np

    from broker.encoding.words import load_encoder
    from broker.errors import RequestMalformed
    from broker.flows.quality.replay_routing import replay_routing as replay
    from broker.flows.quality.routing_table import read_table

    rows = read_table(table, prices, tokens_out)
    if train is not None:
        seen, routed = read_table(train, prices, tokens_out), rows
    else:
        learns = np.array([each == train_split for each in rows.splits])
        if not learns.any() or learns.all():
            raise RequestMalformed(f"'{train_split}' is the split of no row, or of all of them.")
        seen, routed = rows.rows(learns), rows.rows(~learns)
    report = replay(seen, routed, load_encoder(), feedback_calls=learn_from_feedback)
    if as_json:
        typer.echo(msgspec.json.encode(report).decode())
    else:
        _show(report)


def _show(report: Report) -> None:
    import msgspec
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(
        f"{report.rows} prompts routed among {len(report.models)} models, "
        f"{report.rows_train} learned from."
    )
    if report.rows_left_out:
        console.print(f"{report.rows_left_out} prompts lack a model's score, and are not routed.")
    table = Table("measure", "value", "95 %", "", box=None)
    for name, value in msgspec.structs.asdict(report.measures).items():
        table.add_row(name, *_told(name, value, report.intervals))
    names = ("task_oracle_accuracy", "ece", "ece_by_chance", "ece_domain", "domain_accuracy")
    for name in names:
        table.add_row(name, f"{getattr(report, name):.4g}", "", _MEANS[name])
    for name, value in report.ablations.items():
        table.add_row(f"accuracy, {name}", f"{value:.4g}", "")
    print_table(table)
    if report.budgets:
        print_table(_budgets(report))
    for each in report.feedback or ():
        console.print(
            f"From the feedback on {each.calls} calls alone: {each.accuracy:.4f} "
            f"({each.lowest:.4f} … {each.highest:.4f}), {each.share:.1%} of all scores' accuracy."
        )
    alone = list(report.singles.values())
    console.print(_plot(report.points, alone), highlight=False)
    if report.cascade is not None:
        _show_cascade(report.cascade, alone, console)


def _told(
    name: str, value: float | None, intervals: Mapping[str, tuple[float, float]]
) -> tuple[str, str, str]:
    """Return a measure, its interval, and what it says, or why there is none."""
    if value is None:
        # Of some draws of calls there may be one; they are not what was asked about.
        return "-", "", _WHY_NONE[name]
    span = "{:.4g} … {:.4g}".format(*intervals[name]) if name in intervals else ""
    return f"{value:.4g}", span, _MEANS[name]


def _show_cascade(
    cascade: CascadeReport, alone: list[tuple[float, float]], console: Console
) -> None:
    import msgspec
    from rich.table import Table

    table = Table("with cascades", "value", "95 %", "", box=None)
    for name, value in msgspec.structs.asdict(cascade.measures).items():
        told, span, says = _told(name, value, cascade.intervals)
        table.add_row(name, told, span, says if value is None else "")
    for name in ("gain_at_router_cost", "escalated", "random_accuracy", "latency_ms", "ece"):
        value = getattr(cascade, name)
        table.add_row(name, "unknown" if value is None else f"{value:.4g}", "")
    for each in cascade.calibrations:
        table.add_row(f"ece, {each.model}", f"{each.ece:.4g}", f"as told {each.ece_raw:.4g}")
    print_table(table)
    console.print(_plot(cascade.points, alone), highlight=False)


def _budgets(report: Report) -> Table:
    from rich.table import Table

    headings = ("budget (USD a call)", "price x5 of", "spent", "reward", "best fixed mix")
    table = Table(*headings, box=None)
    for each in report.budgets:
        table.add_row(
            f"{each.budget_usd:.3g}",
            each.shifted or "",
            f"{each.spent_over_budget:+.2%}",
            f"{each.reward:.4f}",
            f"{each.best_fixed_mix:.4f}"
            if each.possible
            else f"impossible: below {each.least_usd:.3g}, the cheapest model's cost",
        )
    return table


def _plot(points: list[tuple[float, float]], alone: list[tuple[float, float]]) -> str:
    """Return accuracy over the logarithm of cost, as text: of a router, and of models alone.

    What is free stands at the left edge, at half of the least cost that there is.
    """
    import math

    both = points + alone
    least = min((cost for cost, _ in both if cost > 0.0), default=1.0) / 2.0
    places = [(math.log(max(cost, least)), gain) for cost, gain in both]
    (left, right), (low, high) = ((min(each), max(each)) for each in zip(*places, strict=True))
    width, height = (each if each > _FLAT else 1.0 for each in (right - left, high - low))
    lines = [[" "] * _PLOT_COLUMNS for _ in range(_PLOT_ROWS)]
    for at, (cost, gain) in enumerate(places):
        column = round((cost - left) / width * (_PLOT_COLUMNS - 1))
        row = round((high - gain) / height * (_PLOT_ROWS - 1))
        lines[row][column] = "•" if at < len(points) else "o"
    free = min(cost for cost, _ in both) <= 0.0
    first, last = "0" if free else f"{math.exp(left):.3g}", f"{math.exp(right):.3g} USD a call"
    body = "\n".join("  │" + "".join(line) for line in lines)
    gap = " " * max(_PLOT_COLUMNS - len(first) - len(last), 1)
    legend = "   • the router, by what money counts   o a model alone"
    return f"{high:.4f}\n{body}\n{low:.4f}\n   {first}{gap}{last}\n{legend}"
