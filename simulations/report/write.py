"""Writes the report of a study into its folder."""

from __future__ import annotations

from pathlib import Path

from simulations.report.study_page import study_page
from simulations.report.sweep_page import sweep_page
from simulations.studies.results import Results

NAME = "report.html"


def write_report(results: Results, folder: Path, command: str = "") -> Path:
    """Write the page; return its path. There is at least one outcome."""
    points = results.plan.points
    is_sweep = len(points) > 1
    text = sweep_page(results, command) if is_sweep else study_page(results, points[0], command)
    path = folder / NAME
    path.write_text(text, encoding="utf-8")
    return path
