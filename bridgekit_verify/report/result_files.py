"""Writes a Report as results.json and results.csv, the data of the page."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from datetime import UTC
from typing import Any, Final

import msgspec

from bridgekit_verify.report.findings import RESERVED_COLUMNS, Finding
from bridgekit_verify.report.glossary import COLUMNS, OTHER_COLUMNS
from bridgekit_verify.report.grouped_findings import all_findings, headline, link_statuses
from bridgekit_verify.report.report_data import Notebook, Report

# Increase this number when a program that reads the old format would misread the new format.
SCHEMA_VERSION: Final = 3

MAX_COLUMNS: Final = 25
"""Maximum number of columns of results.csv. Further columns are only in results.json."""

# Characters that a spreadsheet program treats as the start of a formula, including full-width forms.
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def results_json(report: Report) -> str:
    """Return the report as JSON, without the cells of the notebooks and without images."""
    return json.dumps(_report_data(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def results_csv(report: Report) -> str:
    """Return the rows of all measurement tables as one CSV table with the columns of `csv_columns`.

    Cells of a column that a table lacks stay empty. A string that a spreadsheet program would run as a formula gets
    a leading apostrophe. Numbers stay numbers.
    """
    columns = list(csv_columns(report))
    text = io.StringIO()
    # With the line ends of RFC 4180, the writer also quotes a cell with a carriage return.
    writer = csv.DictWriter(text, columns, lineterminator="\r\n", extrasaction="ignore")
    writer.writerow({name: _csv_cell(name) for name in columns})
    for notebook in report.notebooks:
        for table in notebook.tables:
            if table.measurement:
                for record in table.records:
                    row = {"notebook": notebook.name, "table": table.name, **record}
                    writer.writerow({name: _csv_cell(value) for name, value in row.items()})
    return text.getvalue()


def csv_columns(report: Report) -> dict[str, str]:
    """Return the columns of results.csv with their meanings: `COLUMNS`, then the most frequent other columns."""
    tables = [table for notebook in report.notebooks for table in notebook.tables if table.measurement]
    uses = Counter(column for table in tables for column in table.columns)
    known = {name: text for name, text in COLUMNS.items() if name in RESERVED_COLUMNS or uses[name]}
    # Counter.most_common keeps the order of first occurrence for equal counts, which is the notebooks' order.
    others = [name for name, _ in uses.most_common() if name not in known][: MAX_COLUMNS - len(known)]
    return known | {
        name: OTHER_COLUMNS.get(name)
        or "column of " + ", ".join(sorted({table.name for table in tables if name in table.columns}))
        for name in others
    }


def count_measurements(report: Report) -> int:
    """Return the number of rows of results.csv."""
    return sum(len(t.records) for notebook in report.notebooks for t in notebook.tables if t.measurement)


def _report_data(report: Report) -> dict[str, Any]:
    result = headline(report)
    return {
        "schema": SCHEMA_VERSION,
        "complete": report.complete,
        "failures": list(report.failures),
        "environment": _environment(report),
        "answer": {"verdict": result.answer.verdict, "text": str(result.answer)},
        "headline": result.sentence,
        "links": [
            {
                "link": link.number,
                "name": link.name,
                "reported": link.reported,
                "audit_right": link.right,
                "works": link.works,
                "sound": link.sound,
            }
            for link in link_statuses(report)
        ],
        "findings": [_finding(finding, notebook) for finding, notebook in all_findings(report).values()],
        "csv_columns": csv_columns(report),
        "tables": [
            {"notebook": notebook.name, **msgspec.to_builtins(table)}
            for notebook in report.notebooks
            for table in notebook.tables
        ],
        "notebooks": [
            {
                "name": notebook.name,
                "title": notebook.title,
                "seconds": notebook.seconds,
                "failure": notebook.failure,
                "parameters": notebook.parameters,
                "figures": [{"name": f.name, "caption": f.caption, "alt": f.alt} for f in notebook.figures],
            }
            for notebook in report.notebooks
        ],
    }


def _finding(finding: Finding, notebook: Notebook) -> dict[str, Any]:
    return {
        "notebook": notebook.name,
        **msgspec.to_builtins(finding),
        "audit_right": finding.right,
        "works": finding.works if finding.runs else None,
    }


def _environment(report: Report) -> dict[str, Any]:
    environment = report.environment
    return {
        "bridgekit": environment.bridgekit,
        "python": environment.python,
        "packages": environment.packages,
        "seeds": list(report.seeds),
        "commit": environment.commit,
        "uncommitted_changes": environment.changed,
        "started": report.started.astimezone(UTC).isoformat() if report.started else None,
        "seconds": report.seconds,
    }


def _csv_cell(value: object) -> object:
    """Return a value for a CSV cell. Lists and objects become JSON."""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value
