"""The broker's side of a run: its decisions, its books, its price tick."""
