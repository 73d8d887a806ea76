"""Puts a study on one page that opens without a network: text, tables, plots, nothing fetched."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from simulations.measures import MEASURES
from simulations.report.courses import Plot
from simulations.report.palette import css_of
from simulations.studies.results import Results

_PARTS = ("report.css", "report.js")


def render(template: str, results: Results, **context: object) -> str:
    """Return the whole page of a template of this package."""
    folder = files("simulations") / "report"
    css, script = (folder.joinpath(each).read_text(encoding="utf-8") for each in _PARTS)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["css_of"] = css_of
    page = environment.from_string(folder.joinpath(template).read_text(encoding="utf-8"))
    return page.render(
        css=Markup(css),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        results=results,
        plan=results.plan,
        measures=MEASURES,
        **context,
    )


def drawn(svg: str) -> Markup:
    """Mark a plot as what it is: the drawing has escaped every word in it."""
    return Markup(svg)  # noqa: S704 - escaped where it was drawn


def drawn_all(plots: Sequence[Plot]) -> list[tuple[str, Markup, str]]:
    """Plots as (title, drawing, note)."""
    return [(each.title, drawn(each.svg), each.note) for each in plots]
