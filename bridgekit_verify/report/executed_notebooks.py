"""Builds a Report from the stored outputs of executed notebooks. Nothing is executed or rendered."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from bridgekit.errors import BridgekitError
from bridgekit_verify.report.failures import failure_of
from bridgekit_verify.report.findings import FINDING_MIME, SOURCE_MIME, TABLE_MIME, Finding, Source, Table
from bridgekit_verify.report.notebook_files import read_notebook
from bridgekit_verify.report.parameters import PARAMETERS_TAG, read_parameters
from bridgekit_verify.report.path_redaction import without_paths
from bridgekit_verify.report.report_data import (
    UNDESCRIBED,
    Cell,
    Display,
    Environment,
    Figure,
    Notebook,
    Output,
    Report,
    StreamText,
)

_STRUCTURED: dict[str, type[Finding | Table | Source]] = {
    FINDING_MIME: Finding,
    TABLE_MIME: Table,
    SOURCE_MIME: Source,
}
# MIME types of an output that can be shown without JavaScript, richest first.
_PLAINER = {"text/html": "html", "text/markdown": "markdown", "text/plain": "text"}


class DuplicateFinding(BridgekitError, ValueError):
    """Two findings have the same id, so the report could show only one of them."""


class MalformedOutput(BridgekitError, ValueError):
    """An output of a notebook does not have the form that the report needs."""


def collect_folder(folder: Path, environment: Environment) -> Report:
    """Read the executed notebooks of a folder.

    Raises FileNotFoundError if the folder contains no notebook, and MalformedNotebook, DuplicateFinding or
    MalformedOutput if the notebooks cannot be used.
    """
    paths = sorted(folder.glob("*.ipynb"))
    if not paths:
        raise FileNotFoundError(f"{folder} contains no executed notebook: name a folder that `--nbmake` wrote")
    return collect(((path.stem, read_notebook(path)) for path in paths), environment)


def collect(notebooks: Iterable[tuple[str, Any]], environment: Environment) -> Report:
    """Build a Report from executed notebooks. `notebooks` are pairs of a name and the notebook that nbformat has read.

    Absolute paths in sources and outputs are shortened. Raises DuplicateFinding and MalformedOutput.
    """
    report = Report(tuple(_notebook(name, content) for name, content in notebooks), environment)
    recorded: dict[str, str] = {}
    for notebook in report.notebooks:
        for finding in notebook.findings:
            if finding.id in recorded:
                places = f"in {recorded[finding.id]} and in {notebook.name}"
                raise DuplicateFinding(f"finding {finding.id} is recorded twice, {places}")
            recorded[finding.id] = notebook.name
    return report


def _notebook(name: str, content: Any) -> Notebook:
    cells = without_paths([cell for cell in content["cells"] if "".join(cell["source"]).strip()])
    started, ended = _times(cells)
    return Notebook(
        name=name,
        title=content["metadata"].get("title") or _heading(cells) or name,
        cells=tuple(_cell(name, number, cell) for number, cell in enumerate(cells, 1) if _is_shown(cell)),
        parameters=_parameters(cells),
        started=started,
        ended=ended,
        failure=without_paths(failure_of(name, content["cells"])),
    )


def _is_shown(cell: Any) -> bool:
    return cell["cell_type"] in ("markdown", "code")


def _cell(name: str, number: int, cell: Any) -> Cell:
    try:
        outputs = [_output(output) for output in cell.get("outputs", ())]
    except msgspec.ValidationError as error:
        raise MalformedOutput(f"{name}: cell {number} shows a finding or table that is not valid: {error}") from error
    return Cell(cell["cell_type"], "".join(cell["source"]), tuple(o for o in outputs if o is not None))


def _output(output: Any) -> Output | None:
    match output["output_type"]:
        case "stream":
            return StreamText("warning" if output["name"] == "stderr" else "text", "".join(output["text"]))
        case "error":
            return StreamText("error", "\n".join(output["traceback"]) or f"{output['ename']}: {output['evalue']}")
        case _:
            return _display(output["data"], output.get("metadata", {}))


def _display(data: Any, metadata: Any) -> Output | None:
    for mime, kind in _STRUCTURED.items():
        if mime in data:
            return Display(msgspec.convert(data[mime], kind))
    if "image/png" in data:
        words = metadata.get("image/png", {})
        alt = words.get("alt") or "".join(data.get("text/plain", "")) or UNDESCRIBED
        return Figure(words.get("name", ""), alt, words.get("caption", ""), "".join(data["image/png"]).strip())
    return next((StreamText(kind, "".join(data[mime])) for mime, kind in _PLAINER.items() if mime in data), None)


def _parameters(cells: list[Any]) -> dict[str, Any]:
    tagged = (cell for cell in cells if PARAMETERS_TAG in cell["metadata"].get("tags", []))
    return {name: value for cell in tagged for name, value in read_parameters("".join(cell["source"])).items()}


def _times(cells: list[Any]) -> tuple[datetime | None, datetime | None]:
    """Return when the first cell started and the last cell ended, from the metadata that the runner stored."""
    stored = [cell["metadata"].get("execution", {}) for cell in cells]
    starts = [times["iopub.execute_input"] for times in stored if "iopub.execute_input" in times]
    ends = [times["shell.execute_reply"] for times in stored if "shell.execute_reply" in times]
    started = min(map(datetime.fromisoformat, starts), default=None)
    return started, max(map(datetime.fromisoformat, ends), default=None)


def _heading(cells: list[Any]) -> str | None:
    lines = (line for cell in cells if cell["cell_type"] == "markdown" for line in cell["source"].splitlines())
    return next((line.removeprefix("# ").strip() for line in lines if line.startswith("# ")), None)
