"""The command `broker calibrate`; heavy parts are imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from simulations.calibration.calibrate import Calibration


def calibrate(
    requests: Annotated[Path, typer.Argument(help="One JSON object a line, such as vLLM's.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the server as TOML, for a scenario's endpoint.")
    ] = None,
) -> None:
    """Fit the model of continuous batching to a real run, and say how well it predicts.

    Each line has input_toks, output_toks, arrival_time, first_token_ts and last_token_ts; queued_ts
    and scheduled_ts help where arrival_time is on another clock. The fit to the first half of the
    run is tried on the second, and where it misses by much, that is said; the numbers told are
    those of a fit to all of it.
    """
    import msgspec

    from simulations.calibration.calibrate import calibrate as fit
    from simulations.calibration.observed import read_observed

    with requests.open("rb") as lines:
        found = fit(read_observed(lines))
    if out is not None:
        out.write_text(_toml(found), encoding="utf-8")
    if json:
        typer.echo(msgspec.json.encode(_told(found)).decode())
    else:
        _print(found)
    if found.doubt is not None:
        typer.echo(found.doubt, err=True)


def _told(found: Calibration) -> dict[str, Any]:
    import msgspec

    return {
        "requests": found.requests,
        "skipped": found.skipped,
        "server": msgspec.to_builtins(found.server),
        "fitted": msgspec.to_builtins(found.fitted),
        "predicted": msgspec.to_builtins(found.predicted),
        "doubt": found.doubt,
    }


def _toml(found: Calibration) -> str:
    server, errors = found.server, found.predicted
    doubt = "# That is too much to rely on.\n" if found.doubt else ""
    return (
        f"# Fitted to {found.requests} requests. Fitted to the first half alone it misses those of "
        f"the second\n# by {errors.e2e_median:.1%} (end to end) and {errors.ttft_median:.1%} "
        f"(first token) in the median.\n{doubt}"
        "[server]\n"
        'kind = "batching_server"\n'
        f"c0_s = {server.c0_s:.4g}\n"
        f"c1_s = {server.c1_s:.4g}\n"
        f"c2_s = {server.c2_s:.4g}\n"
        f"c3_s = {server.c3_s:.4g}\n"
        f"kv_tokens_max = {server.kv_tokens_max}\n"
        f"batch_max = {server.batch_max}\n"
        f"step_tokens_max = {server.step_tokens_max}\n"
        f"steps_ahead = {server.steps_ahead}\n"
    )


def _print(found: Calibration) -> None:
    from rich.console import Console
    from rich.table import Table

    server, console = found.server, Console()
    numbers = Table("", "fitted", "", box=None, title_justify="left")
    numbers.add_row("c0", f"{server.c0_s * 1e3:.3f} ms", "a step")
    numbers.add_row("c1", f"{server.c1_s * 1e6:.2f} µs", "and for each sequence in it")
    numbers.add_row("c2", f"{server.c2_s * 1e9:.2f} ns", "and for each token in the KV cache")
    numbers.add_row("c3", f"{server.c3_s * 1e6:.2f} µs", "and for each prompt token read")
    numbers.add_row("kv_tokens_max", _limit(found, "kv"), "tokens in the cache")
    numbers.add_row("batch_max", _limit(found, "batch"), "sequences together")
    numbers.add_row("step_tokens_max", f"{server.step_tokens_max:,}", "tokens in a step")
    numbers.add_row("steps_ahead", f"{server.steps_ahead}", "steps made up while one runs")
    console.print(numbers)
    misses = Table("", "end to end", "p90", "first token", "p90", box=None)
    for name, each in (("fit, first half", found.fitted), ("predicted, second", found.predicted)):
        figures = (each.e2e_median, each.e2e_p90, each.ttft_median, each.ttft_p90)
        misses.add_row(name, *(f"{figure:.1%}" for figure in figures))
    console.print()
    console.print(f"Misses of {found.requests} requests, medians and nine out of ten:")
    console.print(misses)
    if found.skipped:
        console.print(f"{found.skipped} requests were not served and are left out.")


def _limit(found: Calibration, name: str) -> str:
    from simulations.calibration.calibrate import UNBOUND_BATCH

    server = found.server
    if name == "batch":
        return "no limit seen" if server.batch_max >= UNBOUND_BATCH else f"{server.batch_max:,}"
    return "no limit seen" if not found.is_cache_bound else f"{server.kv_tokens_max:,}"
