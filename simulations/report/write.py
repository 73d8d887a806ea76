"""Writes the report of a study into its folder."""

from __future__ import annotations

from pathlib import Path

from simulations.report.study_page import study_page
from simulations.report.sweep_page import sweep_page
from simulations.studies.results import Results

NAME = "report.html"


def page_of(results: Results, command: str = "") -> str:
    """Return the page of a study. There is at least one outcome."""
    points = results.plan.points
    if len(points) > 1:
        return sweep_page(results, command)
    return study_page(results, points[0], command)


def write_report(results: Results, folder: Path, command: str = "") -> Path:
    """Write the page; return its path. There is at least one outcome."""
    path = folder / NAME
    path.write_text(page_of(results, command), encoding="utf-8")
    return path
