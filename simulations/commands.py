"""The commands `broker simulate` and `broker sweep`; heavy parts are imported when they run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulations.studies.stopping import Stop

if TYPE_CHECKING:
    from simulations.console import Hire
    from simulations.studies.plan import Plan

DEFAULT_OUT = Path("simulated")

_SOURCE = "The name of a scenario, or the path of a .toml"
Source = Annotated[str, typer.Argument(help=f"{_SOURCE}.")]
SourceOrNone = Annotated[str, typer.Argument(help=f"{_SOURCE}; all names if empty.")]
Controllers = Annotated[
    str,
    typer.Option(
        "--controller", "-c", help="Policies to compare, such as excess,posted; else its own."
    ),
]
Seeds = Annotated[int, typer.Option(min=1, help="How many seeds each policy is run with.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE, such as controller.k_s=30; again for more."),
]
Out = Annotated[
    Path | None, typer.Option(help="Where report and tables go; below simulated/ by default.")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; one for each core.")]
State = Annotated[
    Path, typer.Option(envvar="BROKER_STATE", help="The state folder of the broker here.")
]
DEFAULT_STATE = Path(".broker")
Static = Annotated[
    bool, typer.Option("--static/--no-static", help="Also search the best static price.")
]


def simulate(
    context: typer.Context,
    scenario: SourceOrNone = "",
    controller: Controllers = "",
    seeds: Seeds = 5,
    set_: Settings = None,
    out: Out = None,
    workers: Workers = None,
    static: Static = True,
    from_broker: Annotated[
        bool,
        typer.Option("--from-broker", help="Play the market and the calls of the broker here."),
    ] = False,
    days: Annotated[
        float, typer.Option(min=0.001, max=366.0, help="How many days of calls to play.")
    ] = 7.0,
    elasticity: Annotated[
        float,
        typer.Option(min=0.1, max=20.0, help="Of the demand behind those calls, for who knows."),
    ] = 1.5,
    state: State = DEFAULT_STATE,
    distributed: Annotated[bool, typer.Option("--distributed", hidden=True)] = False,
) -> None:
    """Run a scenario under several policies; report, tables and the same numbers each time."""
    if distributed:
        raise typer.BadParameter("'broker sweep' takes --distributed, with --grid demand.scale=1")
    stop = context.with_resource(Stop().heard())
    from simulations.console import list_scenarios
    from simulations.files.load import load, parse_settings
    from simulations.studies.local import LocalRunner
    from simulations.studies.plan import make_plan

    if from_broker:
        if scenario:
            raise typer.BadParameter("name a scenario or --from-broker, not both")
        out = out or DEFAULT_OUT / "market"
        scenario = _take_down(state, days, elasticity, out)
    if not scenario:
        list_scenarios()
        return
    plan = make_plan(
        load(scenario),
        _words(controller),
        seeds,
        settings=parse_settings(set_ or ()),
        static=static,
    )
    _carry_out(plan, partial(LocalRunner, workers), out, stop)


def sweep(
    context: typer.Context,
    scenario: Source,
    grid: Annotated[
        list[str], typer.Option(help="NAME=a,b,c or NAME=FROM:TO:COUNT, with :log by a factor.")
    ],
    controller: Controllers = "",
    seeds: Seeds = 5,
    set_: Settings = None,
    out: Out = None,
    workers: Workers = None,
    static: Static = False,
    distributed: Annotated[
        bool, typer.Option("--distributed", help="On the Celery workers of a broker, on all hosts.")
    ] = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Run a scenario on every point of a grid; finished cells are kept, so it goes on after any
    crash."""
    if distributed and workers is not None:
        raise typer.BadParameter("--workers are processes here: say --distributed or that")
    stop = context.with_resource(Stop().heard())
    from simulations.files.load import load, parse_settings
    from simulations.studies.local import LocalRunner
    from simulations.studies.plan import make_plan, parse_axis

    plan = make_plan(
        load(scenario),
        _words(controller),
        seeds,
        settings=parse_settings(set_ or ()),
        grid=[parse_axis(each) for each in grid],
        static=static,
    )
    hire: Hire = partial(LocalRunner, workers)
    if distributed:
        from simulations.studies.distributed import connected_runner

        hire = partial(connected_runner, state)
    _carry_out(plan, hire, out, stop)


def _take_down(state: Path, days: float, elasticity: float, out: Path) -> str:
    """Write the broker's market down as a scenario; return its path."""
    from simulations.doors import open_door
    from simulations.replay.market import write_market

    path = write_market(open_door("market")(state, days), out, elasticity)
    typer.echo(f"The market is written down in {path}; change it there, and simulate that file.")
    return str(path)


def _words(told: str) -> list[str]:
    return [each.strip() for each in told.split(",") if each.strip()]


def _carry_out(plan: Plan, hire: Hire, out: Path | None, stop: Stop) -> None:
    from simulations.console import carry_out

    is_whole = carry_out(plan, hire, out or DEFAULT_OUT / plan.label, stop)
    if not is_whole:
        raise typer.Exit(stop.exit_status)
