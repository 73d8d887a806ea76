"""Prints tables: in a terminal as wide as that, into a pipe or a file whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.table import Table

_WHOLE_COLUMNS: Final = 10_000


def print_table(table: Table, *, if_empty: str = "") -> None:
    """Print a table that cuts nothing: what is too long for the terminal goes on in the next line,
    for ids and names are there to be copied and told apart. Without rows, `if_empty` is said."""
    from rich.console import Console

    if if_empty and not table.rows:
        print(if_empty)
        return
    for column in table.columns:
        column.overflow = "fold"
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WHOLE_COLUMNS)
    console.print(table)
