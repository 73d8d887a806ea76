"""The `broker` command; further commands are collected from entry points."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points, version
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from broker.cli import (
    accounts,
    audit,
    cases,
    demo,
    deployments,
    disputes,
    domains,
    history,
    keys,
    ledger,
    operate,
    payouts,
    plans,
    policy,
    pricing,
    refunds,
    replay_routing,
    serve,
    suites,
    up,
    webhooks,
)
from broker.cli.complaints import reword
from broker.cli.lean import spin_not
from broker.errors import BrokerError
from pricing.money import MoneyError


class _Commands(TyperGroup):
    """The commands; who leaves out the group of one is told it, and what is wrong in our words."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            reword(error)
            raise

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        wanted = args[0] if args else ""
        if wanted not in self.commands:
            full = [
                f"'{name} {wanted}'"
                for name, group in self.commands.items()
                if isinstance(group, TyperGroup) and wanted in group.commands
            ]
            if full:
                ctx.fail(f"No such command '{wanted}'. Did you mean {' or '.join(full)}?")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="broker",
    cls=_Commands,
    help="A brokerage for specialist models. Begin with 'broker demo'.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",  # the others keep a docstring's line ends, for another width
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"model-broker {version('model-broker')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    """A brokerage for specialist models. Begin with 'broker demo'."""


app.command("demo")(demo.demo)
app.command("up")(up.up)
app.add_typer(accounts.app, name="accounts")
app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")
app.add_typer(plans.app, name="plans")
app.add_typer(policy.app, name="policy")
app.add_typer(domains.app, name="domains")
app.add_typer(suites.app, name="suites")
app.add_typer(pricing.app, name="pricing")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(payouts.app, name="payouts")
app.add_typer(refunds.app, name="refunds")
app.add_typer(disputes.app, name="disputes")
app.add_typer(cases.app, name="cases")
app.add_typer(deployments.app, name="deployments")
app.command("approve")(operate.approve)
app.command("login")(operate.login)
app.add_typer(ledger.app, name="ledger")
app.command("history")(history.history)
app.command("check", hidden=True)(ledger.check)  # as it was called first
app.command("replay-routing")(replay_routing.replay_routing)
app.command("serve")(serve.serve)
app.command("worker")(serve.worker)
app.command("migrate")(serve.migrate)


def main() -> None:
    """Run the command; expected errors are one line on standard error and exit status 1."""
    spin_not()
    for point in entry_points(group="broker.commands"):
        command = point.load()
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=point.name)
        else:
            app.command(point.name)(command)
    try:
        app()
    except (BrokerError, MoneyError, OSError) as error:
        # An OSError is a server that cannot be reached, or a file that cannot be written.
        line = Text("broker: ", style="red").append(_detail(error), style="default")
        Console(stderr=True, soft_wrap=True, highlight=False).print(line)
        sys.exit(1)


def _detail(error: Exception) -> str:
    if isinstance(error, BrokerError):
        return error.detail
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"  # without Python's number of the error
    return str(error)


if __name__ == "__main__":
    main()
