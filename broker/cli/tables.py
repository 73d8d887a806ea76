"""Prints tables: in a terminal as wide as that, into a pipe or a file whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.table import Table

_WHOLE_COLUMNS: Final = 10_000


def print_table(table: Table) -> None:
    """Print a table that cuts nothing: what is too long for the terminal goes on in the next line,
    for ids and names are there to be copied and told apart."""
    from rich.console import Console

    for column in table.columns:
        column.overflow = "fold"
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WHOLE_COLUMNS)
    console.print(table)
