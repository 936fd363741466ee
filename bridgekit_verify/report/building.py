"""Builds the report: notebooks -> executed copies -> index.html, results.csv, results.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridgekit_verify.report.collecting import collect_folder
from bridgekit_verify.report.environment import read_environment
from bridgekit_verify.report.execution import CELL_SECONDS, JOBS, execute_folder
from bridgekit_verify.report.judging import headline
from bridgekit_verify.report.page import index_html
from bridgekit_verify.report.results import count_measurements, results_csv, results_json

EXECUTED = Path("build/report-executed")


@dataclass(frozen=True, slots=True)
class BuiltReport:
    """The paths of the written files, and a summary of the report."""

    page: Path
    csv: Path
    json: Path
    complete: bool
    """False if a notebook failed. The page states it first, and a command should exit with an error."""
    headline: tuple[str, ...]
    """Summary lines for a terminal, computed from the findings."""
    failures: tuple[str, ...]
    """One line for each failed notebook: notebook, cell, last line of the exception."""


def build_report(
    notebooks: Path,
    out: Path,
    *,
    jobs: int = JOBS,
    parameters: Mapping[str, Any] | None = None,
    executed: Path = EXECUTED,
    cell_seconds: int = CELL_SECONDS,
    log: Callable[[str], None] = print,
) -> BuiltReport:
    """Execute copies of the notebooks in the folder `executed`, and write the report to the folder `out`.

    `log` gets one line for each notebook. Raises FileNotFoundError for a folder without notebooks, and ParameterError
    for a parameter that no notebook has.
    """
    out.mkdir(parents=True, exist_ok=True)  # fails early if the folder cannot be created
    execute_folder(notebooks, executed, jobs=jobs, parameters=parameters, cell_seconds=cell_seconds, log=log)
    return build_from_executed(executed, out)


def build_from_executed(executed: Path, out: Path) -> BuiltReport:
    """Write the report of notebooks that any runner has already executed to the folder `out`.

    Raises FileNotFoundError for a folder without notebooks, and DuplicateFinding for two findings with the same id.
    """
    report = collect_folder(executed, read_environment(Path.cwd()))
    out.mkdir(parents=True, exist_ok=True)
    page, csv, json = out / "index.html", out / "results.csv", out / "results.json"
    page.write_text(index_html(report), encoding="utf-8")
    csv.write_text(results_csv(report), encoding="utf-8")
    json.write_text(results_json(report), encoding="utf-8")
    counted = f"measurements: {count_measurements(report):,} rows from {len(report.notebooks)} notebooks"
    lines = (*headline(report).lines, counted)
    return BuiltReport(page, csv, json, report.complete, lines, report.failures)
