"""Report -> results.json and results.csv, the data of the page."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC
from typing import Any

import msgspec

from bridgekit_verify.measure.statistics import Rate
from bridgekit_verify.report.findings import RESERVED_COLUMNS
from bridgekit_verify.report.judging import headline
from bridgekit_verify.report.structure import Report

# Increase it when a program that reads the old format would misread the new one.
SCHEMA_VERSION = 1


def results_json(report: Report) -> str:
    """Return the report as JSON, without prose and images."""
    return json.dumps(_report_data(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def results_csv(report: Report) -> str:
    """Return all rows of all measurement tables as one CSV table. Columns that a table lacks stay empty."""
    rows: list[dict[str, Any]] = []
    columns = dict.fromkeys(RESERVED_COLUMNS)
    for notebook in report.notebooks:
        for table in notebook.tables:
            if table.measurement:
                columns |= dict.fromkeys(table.columns)
                origin = {"notebook": notebook.name, "table": table.name}
                rows += ({**origin, **{name: _plain(v) for name, v in record.items()}} for record in table.records)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def count_measurements(report: Report) -> int:
    """Return the number of rows of results.csv."""
    return sum(len(t.records) for notebook in report.notebooks for t in notebook.tables if t.measurement)


def _report_data(report: Report) -> dict[str, Any]:
    return {
        "schema": SCHEMA_VERSION,
        "complete": report.complete,
        "failures": list(report.failures),
        "environment": _environment(report),
        "headline": headline(report).sentence,
        "findings": [
            {
                "notebook": notebook.name,
                **msgspec.to_builtins(finding),
                "before_interval": _interval(finding.before),
                "after_interval": _interval(finding.after),
            }
            for finding, notebook in report.findings.values()
        ],
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


def _interval(counts: tuple[int, int] | None) -> tuple[float, float] | None:
    rate = Rate.of(counts)
    return rate.interval if rate.n else None


def _plain(value: object) -> object:
    """Return a value for a CSV cell; lists and objects become JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
