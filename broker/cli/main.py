"""The `broker` command; further commands are collected from entry points."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import typer
from rich.console import Console

from broker.cli import accounts, demo, keys, operate, serve, up
from broker.errors import BrokerError

app = typer.Typer(
    name="broker",
    help="A brokerage for specialist models. Begin with 'broker demo'.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("demo")(demo.demo)
app.command("up")(up.up)
app.add_typer(accounts.app, name="accounts")
app.add_typer(keys.app, name="keys")
app.command("approve")(operate.approve)
app.command("login")(operate.login)
app.command("check")(operate.check)
app.command("serve")(serve.serve)
app.command("worker")(serve.worker)
app.command("migrate")(serve.migrate)


def main() -> None:
    """Run the command; expected errors are one line on standard error and exit status 1."""
    for point in entry_points(group="broker.commands"):
        app.add_typer(point.load(), name=point.name)
    try:
        app()
    except BrokerError as error:
        Console(stderr=True, highlight=False).print(f"[red]broker:[/red] {error.detail}")
        sys.exit(1)


if __name__ == "__main__":
    main()
