"""An invoice as a plain page that prints well: no script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from broker.api.money.invoice_messages import InvoiceShown

_STYLE = """
body { font: 11pt/1.5 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto; color: #111 }
h1 { font-size: 1.4rem; margin: 0 } p { margin: 0 0 1.5rem; color: #555 }
table { width: 100%; border-collapse: collapse; margin: 0 0 1.5rem }
th { text-align: left; font-weight: 600 }
th, td { padding: .25rem .5rem; border-bottom: 1px solid #ddd }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
tr.sum td { font-weight: 600; border-top: 2px solid #111 }
@media print { body { margin: 0; max-width: none } }
"""

Row = tuple[object, ...]


def page(shown: InvoiceShown) -> str:
    """Return the whole page."""
    title = shown.number or f"{shown.month} (open)"
    issued = "not issued yet" if shown.issued_at is None else f"issued {shown.issued_at:%Y-%m-%d}"
    balance: list[Row] = [
        ("Opening balance", shown.opening_usd),
        ("Calls" if shown.role == "consumer" else "Earnings", shown.sums.calls_usd),
        ("Refunds and credits", shown.sums.credits_usd),
        ("Top-ups, payouts and adjustments", shown.sums.other_usd),
        ("Closing balance", shown.closing_usd),
    ]
    endpoints: list[Row] = [
        (each.endpoint or "-", each.calls, each.calls_usd, each.credits_usd, each.total_usd)
        for each in shown.endpoints
    ]
    transfers: list[Row] = [
        (each.day, each.kind, each.count, each.amount_usd) for each in shown.transfers
    ]
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(shown.account)} &middot; {shown.month} &middot; {issued} &middot; USD</p>",
        _table(("", "USD"), balance, words=1, sums=True),
        _table(("Endpoint", "Calls", "USD", "Credits", "Together"), endpoints, words=1),
        _table(("Day", "What", "Count", "USD"), transfers, words=2),
        _notes(shown),
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>'


def _notes(shown: InvoiceShown) -> str:
    notes = shown.credit_notes
    if notes is None or not notes.count:
        return ""
    return (
        f"<p>{notes.count} credit notes, numbers {notes.first_number} to {notes.last_number}.</p>"
    )


def _table(heads: Iterable[str], rows: list[Row], words: int, *, sums: bool = False) -> str:
    """The first `words` columns are text, the others amounts; `sums` marks the last row."""
    if not rows:
        return ""
    lines = [_row("th", heads, words)]
    lines += [_row("td", row, words) for row in rows[:-1]]
    lines.append(_row("td", rows[-1], words, "sum" if sums else ""))
    return f"<table>{''.join(lines)}</table>"


def _row(tag: str, cells: Iterable[object], words: int, mark: str = "") -> str:
    written = (
        f"<{tag}{'' if place < words else ' class=n'}>{escape(str(cell))}</{tag}>"
        for place, cell in enumerate(cells)
    )
    return f"<tr{f' class={mark}' if mark else ''}>{''.join(written)}</tr>"
