"""Answers as tables of comma-separated values, for who asks for them by `format` or `Accept`."""

from __future__ import annotations

import csv
import enum
import io
from collections.abc import Iterable
from typing import Annotated

from litestar import Response
from litestar.params import QueryParameter

from broker.api.parts import CallerRequest

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would run."""


class Form(enum.StrEnum):
    """How an answer is written."""

    JSON = "json"
    CSV = "csv"
    HTML = "html"


_MEDIA = {"text/csv": Form.CSV, "text/html": Form.HTML, "application/json": Form.JSON}

AskedForm = Annotated[
    Form | None,
    QueryParameter(name="format", description="Instead of the Accept header: json, csv or html."),
]


def form_of(request: CallerRequest, asked: Form | None) -> Form:
    """Return the form that was asked for; JSON when none was."""
    if asked is not None:
        return asked
    accepted = request.headers.get("accept", "").partition(",")[0].partition(";")[0].strip()
    return _MEDIA.get(accepted.lower(), Form.JSON)


def line(cells: Iterable[object]) -> str:
    """Write one line; None is an empty cell."""
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue()


def words(text: str | None) -> str | None:
    """Return a text of somebody's own that no spreadsheet takes for a formula."""
    return f"'{text}" if text is not None and text.startswith(_FORMULA) else text


def answer(lines: Iterable[str], name: str) -> Response[str]:
    """Answer with a file of this name."""
    return Response(
        "".join(lines),
        media_type="text/csv; charset=utf-8",
        headers={"content-disposition": f'attachment; filename="{name}"'},
    )
