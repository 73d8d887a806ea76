"""Renders templates, escaping everything, and knows where the static files are."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import MediaType, Response

from broker.errors import BrokerError
from web import board, sparkline, words

STATIC = Path(str(resources.files("web") / "static"))
_TEMPLATES = Path(str(resources.files("web") / "templates"))
_DIGEST_CHARACTERS = 10

Page = Response[str]


class Painter:
    """Makes HTML of templates."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= words.filters()
        self._environment.filters |= {"change": board.change_text, "under": sparkline.under}
        self._environment.globals["asset"] = {
            path.relative_to(STATIC).as_posix(): _address(path)
            for path in STATIC.rglob("*")
            if path.is_file()
        }

    def html(self, template: str, **context: Any) -> str:
        """Return a rendered template."""
        return self._environment.get_template(template).render(context)

    def page(self, template: str, *, status: int = 200, **context: Any) -> Page:
        """Return a rendered template as an answer."""
        return Response(
            self.html(template, **context), status_code=status, media_type=MediaType.HTML
        )

    def trouble(self, error: BrokerError, *, fragment: bool) -> Page:
        """Return a page, or for htmx a line, that says what is wrong."""
        template = "_trouble.html" if fragment else "trouble.html"
        return self.page(template, status=error.status, status_shown=error.status, error=error)


def _address(path: Path) -> str:
    # The digest lets browsers keep a file for ever and still fetch a new one at once.
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:_DIGEST_CHARACTERS]
    return f"/console/static/{path.relative_to(STATIC).as_posix()}?v={digest}"
