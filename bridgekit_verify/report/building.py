"""Builds the report: notebooks -> executed copies -> index.html, results.csv, results.json.

The report's files are written to a temporary folder inside the destination and then moved. A failed or interrupted
report therefore leaves no files behind, and an older report stays complete.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bridgekit.errors import BridgekitError
from bridgekit_verify.report.environment import read_environment
from bridgekit_verify.report.executed_notebooks import collect_folder
from bridgekit_verify.report.execution import CELL_SECONDS, JOBS, execute_folder
from bridgekit_verify.report.grouped_findings import headline
from bridgekit_verify.report.page import index_html
from bridgekit_verify.report.result_files import count_measurements, results_csv, results_json

PAGE: Final = "index.html"
CSV: Final = "results.csv"
JSON: Final = "results.json"


class ReportNotWritten(BridgekitError, OSError):
    """The report could not be written to its folder."""

    def __init__(self, out: Path, reason: str) -> None:
        super().__init__(f"cannot write the report to {out}: {reason}; name another folder with --out")
        self.out = out


@dataclass(frozen=True, slots=True)
class BuiltReport:
    """The paths of the written files, and a summary of the report."""

    page: Path
    csv: Path
    json: Path
    complete: bool
    """Whether every notebook passed. A command should exit with an error if a notebook failed."""
    headline: tuple[str, ...]
    """Summary lines for a terminal, computed from the findings."""
    failures: tuple[str, ...]
    """One line for each failed notebook: the notebook, the cell and the error."""


def build_report(
    notebooks: Path,
    out: Path,
    *,
    jobs: int = JOBS,
    parameters: Mapping[str, Any] | None = None,
    executed: Path | None = None,
    cell_seconds: int = CELL_SECONDS,
    log: Callable[[str], None] = print,
) -> BuiltReport:
    """Execute copies of the notebooks, and write the report to the folder `out`.

    The copies stay in the folder `executed`, if given, and are otherwise temporary. `log` receives one line for each
    notebook. Raises ParameterError, InvalidParameter and the errors of `build_from_executed`. If `out` is not a folder
    that can be written to, ReportNotWritten is raised before any notebook runs.
    """
    with _staging(out) as stage, tempfile.TemporaryDirectory(prefix="bridgekit-report-") as temporary:
        copies = executed or Path(temporary)
        execute_folder(notebooks, copies, jobs=jobs, parameters=parameters, cell_seconds=cell_seconds, log=log)
        return _write(copies, out, stage)


def build_from_executed(executed: Path, out: Path) -> BuiltReport:
    """Write the report to the folder `out`, from notebooks that any runner has executed.

    Raises FileNotFoundError for a folder without notebooks, MalformedNotebook, MalformedOutput, MalformedTable,
    DuplicateFinding for two findings with the same id, and ReportNotWritten.
    """
    with _staging(out) as stage:
        return _write(executed, out, stage)


def _write(executed: Path, out: Path, stage: Path) -> BuiltReport:
    report = collect_folder(executed, read_environment(Path.cwd()))
    contents = {PAGE: index_html(report), CSV: results_csv(report), JSON: results_json(report)}
    try:
        for name, content in contents.items():
            with (stage / name).open("w", encoding="utf-8", newline="") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _publish(stage, out, contents)
    except OSError as error:
        raise ReportNotWritten(out, _reason(error)) from error
    counted = f"measurements: {count_measurements(report):,} rows from {len(report.notebooks)} notebooks"
    lines = (*headline(report).lines, counted)
    return BuiltReport(out / PAGE, out / CSV, out / JSON, report.complete, lines, report.failures)


def _publish(stage: Path, out: Path, names: Mapping[str, str]) -> None:
    """Move the files of a report from `stage` to `out`. A lock prevents concurrent reports from mixing their files."""
    folder = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        for name in names:
            (stage / name).replace(out / name)
    finally:
        os.close(folder)


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Create a temporary folder in `out`, and `out` itself if necessary.

    At the end, remove the temporary folder, and each created folder that is still empty.

    Raises ReportNotWritten if `out` is not a folder or cannot be written to.
    """
    created = _missing_folders(out)
    try:
        stage = _create_stage(out)
        try:
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    finally:
        for folder in created:
            # `rmdir` removes only empty folders, so a finished report stays.
            with suppress(OSError):
                folder.rmdir()


def _create_stage(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in (PAGE, CSV, JSON):
            if (out / name).is_dir():
                raise ReportNotWritten(out, f"{name} is a folder there")
        return Path(tempfile.mkdtemp(prefix=".report-", dir=out))
    except ReportNotWritten:
        raise
    except FileExistsError as error:
        raise ReportNotWritten(out, "it is a file and not a folder") from error
    except (OSError, ValueError) as error:
        raise ReportNotWritten(out, _reason(error)) from error


def _missing_folders(out: Path) -> list[Path]:
    """Return the folders that have to be created for `out`, the innermost first."""
    try:
        return [folder for folder in (out, *out.parents) if not folder.exists()]
    except (OSError, ValueError):
        return []  # `_create_stage` reports why the path cannot be used


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
