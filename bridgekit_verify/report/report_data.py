"""The report as plain data, read from executed notebooks and not yet rendered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from bridgekit_verify.report.findings import Finding, Source, Table

# Alternative text of a figure that has none.
UNDESCRIBED = "figure without a description"


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its name, alternative text and caption."""

    kind: ClassVar[str] = "figure"
    name: str
    alt: str
    caption: str
    png: str
    """Base64-encoded PNG, as the notebook stores it."""


@dataclass(frozen=True, slots=True)
class Display:
    """An output of one of three kinds: a finding, a table or source code."""

    content: Finding | Table | Source

    @property
    def kind(self) -> str:
        """ "finding", "table" or "source"."""
        return type(self.content).__name__.lower()


@dataclass(frozen=True, slots=True)
class StreamText:
    """An output without structured data: "html", "markdown", "text" (printed), "warning" (stderr) or "error"."""

    kind: str
    text: str


Output = Figure | Display | StreamText


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell, with its outputs if it is code."""

    kind: str
    """"markdown" or "code"."""
    source: str
    outputs: tuple[Output, ...] = ()


@dataclass(frozen=True, slots=True)
class Notebook:
    """One executed notebook."""

    name: str
    """The file's name without its suffix, which is also the notebook's anchor in the page."""
    title: str
    cells: tuple[Cell, ...]
    parameters: dict[str, Any]
    started: datetime | None
    ended: datetime | None
    failure: str | None
    """One line with the failed cell and the error, or None if the notebook passed."""

    @property
    def seconds(self) -> float | None:
        """Seconds from the start of the first cell to the end of the last cell, or None if unknown."""
        return (self.ended - self.started).total_seconds() if self.started and self.ended else None

    @property
    def outputs(self) -> tuple[Output, ...]:
        """All outputs in order."""
        return tuple(output for cell in self.cells for output in cell.outputs)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings that the notebook recorded."""
        return tuple(o.content for o in self._displays if isinstance(o.content, Finding))

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables that the notebook showed."""
        return tuple(o.content for o in self._displays if isinstance(o.content, Table))

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The figures that the notebook showed."""
        return tuple(output for output in self.outputs if isinstance(output, Figure))

    @property
    def _displays(self) -> tuple[Display, ...]:
        return tuple(output for output in self.outputs if isinstance(output, Display))


@dataclass(frozen=True, slots=True)
class Environment:
    """The versions and the commit of the code that produced the numbers."""

    bridgekit: str
    python: str
    packages: dict[str, str]
    commit: str | None
    """The commit's hash, or None outside a git checkout."""
    changed: bool | None
    """Whether the checkout had uncommitted changes, or None outside a checkout."""


@dataclass(frozen=True, slots=True)
class Report:
    """All content of the page, results.json and results.csv."""

    notebooks: tuple[Notebook, ...]
    environment: Environment

    @property
    def complete(self) -> bool:
        """True if there is at least one notebook and all notebooks passed."""
        return bool(self.notebooks) and not self.failures

    @property
    def failures(self) -> tuple[str, ...]:
        """One line for each notebook that failed."""
        return tuple(notebook.failure for notebook in self.notebooks if notebook.failure)

    @property
    def findings(self) -> dict[str, tuple[Finding, Notebook]]:
        """Every finding by its id, with the notebook that recorded it."""
        return {finding.id: (finding, notebook) for notebook in self.notebooks for finding in notebook.findings}

    @property
    def seeds(self) -> tuple[int, ...]:
        """The distinct seeds of the notebooks, sorted."""
        seeds = {notebook.parameters["SEED"] for notebook in self.notebooks if "SEED" in notebook.parameters}
        return tuple(sorted(seeds))

    @property
    def started(self) -> datetime | None:
        """The time when the first notebook started, in UTC, or None if unknown."""
        return min((notebook.started for notebook in self.notebooks if notebook.started), default=None)

    @property
    def seconds(self) -> float | None:
        """Seconds from the start of the first notebook to the end of the last notebook, or None if unknown."""
        ended = max((notebook.ended for notebook in self.notebooks if notebook.ended), default=None)
        return (ended - self.started).total_seconds() if self.started and ended else None

    def figure(self, name: str) -> tuple[Figure, Notebook] | None:
        """Return the first figure with this name and its notebook, or None if no figure has this name."""
        found = ((f, notebook) for notebook in self.notebooks for f in notebook.figures if f.name == name)
        return next(found, None)

    def table(self, name: str) -> tuple[Table, Notebook] | None:
        """Return the first table with this name and its notebook, or None if no table has this name."""
        found = ((t, notebook) for notebook in self.notebooks for t in notebook.tables if t.name == name)
        return next(found, None)
