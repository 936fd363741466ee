"""Functions for notebooks: each shows a result to the reader and stores its data for the report in the same output.

In a kernel, the output is HTML, Markdown or an image. In plain Python, the same content is printed as text.
"""

from __future__ import annotations

import inspect
import io
import logging
import sys
import textwrap
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec

from bridgekit_verify.report.findings import (
    CONTRADICTS,
    FINDING_MIME,
    RESERVED_COLUMNS,
    SOURCE_MIME,
    TABLE_MIME,
    Finding,
    Source,
    Table,
    answers,
    basis_text,
    cell_text,
    delivery_text,
    numeric_columns,
    result_phrase,
)
from bridgekit_verify.report.json_values import json_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

FIGURE_DOTS_PER_INCH = 160
FIGURE_COLOURS = 128

# Okabe-Ito colours, which colour-blind readers can distinguish. The card also states the answer as text.
_GREEN, _VERMILLION, _ORANGE, _GREY = "#009E73", "#D55E00", "#E69F00", "#999999"
_EDGE = {
    "yes": _GREEN,
    "holds": _GREEN,
    "as worded, but insufficient": _ORANGE,
    "no": _VERMILLION,
    "does not hold": _VERMILLION,
    "not examined": _GREY,
    "unknown": _GREY,
}
_CONTRADICTION_EDGE = _EDGE | {"yes": _VERMILLION, "no": _GREY}
"""The colours of the answers to "Contradicts the audit?"."""


def record(finding: Finding) -> None:
    """Show a finding as a card and pass it to the report. Raises TypeError for anything that is not a valid finding."""
    _require_valid(finding)
    data = {"text/html": _card(finding), FINDING_MIME: msgspec.to_builtins(finding)}
    _show({"text/plain": str(finding), **data})


def show_table(frame: DataFrame, caption: str, *, name: str, measurement: bool = True, folded: bool = False) -> None:
    """Show a frame as a table, and pass its rows to results.json and, if they are measurements, to results.csv.

    A `folded` table is shown only when the reader opens it. Raises ValueError like `table_of`.
    """
    table = table_of(frame, caption, name=name, measurement=measurement, folded=folded)
    text = f"{caption}\n{frame.to_string(index=False)}"
    _show({"text/plain": text, "text/html": _grid(table), TABLE_MIME: msgspec.to_builtins(table)})


def show_figure(figure: Figure, *, alt: str, caption: str, name: str) -> None:
    """Show a matplotlib figure with alternative text and a caption, and close it."""
    from PIL import Image  # Imported here, because notebooks without figures do not need PIL.

    drawn, image = io.BytesIO(), io.BytesIO()
    options: dict[str, Any] = {"dpi": FIGURE_DOTS_PER_INCH, "bbox_inches": "tight", "facecolor": "white"}
    figure.savefig(drawn, format="png", pil_kwargs={"compress_level": 0}, **options)
    # The figures have few colours, so a palette reduces each file to a third, which matters in a report sent by email.
    few = Image.open(drawn).convert("RGB").quantize(FIGURE_COLOURS, dither=Image.Dither.NONE)
    few.save(image, "png", optimize=True)
    # Only pyplot keeps figures open. If pyplot is not imported, there is nothing to close.
    if "matplotlib.pyplot" in sys.modules:
        import matplotlib.pyplot as plt

        plt.close(figure)
    data = {"text/plain": f"{caption} [{alt}]", "image/png": b64encode(image.getvalue()).decode()}
    _show(data, {"image/png": {"alt": alt, "caption": caption, "name": name}})


def show_text(*paragraphs: str) -> None:
    """Show long sentences as paragraphs. JupyterLab breaks the lines of `print` in the middle of words."""
    _show({"text/plain": "\n".join(paragraphs), "text/html": _paragraphs(paragraphs)})


def source_of(thing: type | Callable[..., Any] | ModuleType) -> None:
    """Show the source of a class, function or module, with its location in the package."""
    source = read_source(thing)
    text = f"# {source.reference}\n{source.code}"
    # Every front end highlights code in markdown, in the reader's theme.
    markdown = f"`{source.reference}`\n\n```python\n{source.code}\n```"
    _show({"text/plain": text, "text/markdown": markdown, SOURCE_MIME: msgspec.to_builtins(source)})


@contextmanager
def printed_log() -> Iterator[None]:
    """Print each line that bridgekit and bridgekit_verify log within the block, such as "DEBUG no route"."""
    handler = _Printing()
    loggers = [logging.getLogger(name) for name in ("bridgekit", "bridgekit_verify")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


class _Printing(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _print(f"{record.levelname} {record.getMessage()}")


def checked(name: str) -> None:
    """Print the line with which a notebook must end. A notebook that does not print this line counts as failed."""
    _print(sentinel(name))


def sentinel(name: str) -> str:
    """Return the line that `checked` prints for a notebook. `name` is the file's name without its suffix."""
    return f"checked: {name}"


def table_of(frame: DataFrame, caption: str, *, name: str, measurement: bool, folded: bool = False) -> Table:
    """Return a frame as plain data.

    A named index becomes a column. An index without a name is dropped. Raises ValueError for a column name that occurs
    twice or that results.csv reserves, and for a value that cannot be stored as JSON.
    """
    plain = frame.reset_index() if any(label is not None for label in frame.index.names) else frame
    columns = tuple(_label(column) for column in plain.columns)
    for column in columns:
        if columns.count(column) > 1:
            raise ValueError(f"table {name}: two columns have the name {column!r}; rename one")
        if measurement and column in RESERVED_COLUMNS:
            raise ValueError(f"table {name}: results.csv reserves the column name {column!r}; rename the column")
    values = [
        [json_value(value, f"table {name}, column {column!r}") for value in plain.iloc[:, index]]
        for index, column in enumerate(columns)
    ]
    records = tuple(dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True))
    return Table(name=name, caption=caption, columns=columns, records=records, measurement=measurement, folded=folded)


def _require_valid(finding: object) -> None:
    if not isinstance(finding, Finding):
        raise TypeError(f"record takes a Finding, not a {type(finding).__name__}")
    try:
        msgspec.convert(msgspec.to_builtins(finding), Finding)
    except msgspec.ValidationError as error:
        raise TypeError(f"the finding {finding.id} is not valid: {error}") from None


def read_source(thing: type | Callable[..., Any] | ModuleType) -> Source:
    """Return the source of a class, function or module, and its location relative to its package.

    Raises OSError if the source is not available.
    """
    lines, first = inspect.getsourcelines(thing)
    module = thing if isinstance(thing, ModuleType) else inspect.getmodule(thing)
    file = inspect.getsourcefile(thing)
    if module is None or file is None:
        raise OSError(f"the source of {thing!r} is not available")
    # The path starts at the package, so that no absolute path of the machine gets into the report.
    depth = module.__name__.count(".") + (1 if Path(file).stem != "__init__" else 2)
    path = "/".join(Path(file).parts[-depth:])
    first = max(first, 1)
    reference = f"{path}, lines {first} to {first + len(lines) - 1}"
    return Source(reference=reference, code=textwrap.dedent("".join(lines)).rstrip())


def _show(data: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
    """Display an output in IPython. Elsewhere, print its text."""
    if "IPython" in sys.modules:
        from IPython.core.getipython import get_ipython

        if (shell := get_ipython()) is not None:
            shell.display_pub.publish(data, metadata or {})
            return
    _print(data["text/plain"])


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _label(column: object) -> str:
    return " ".join(str(part) for part in column) if isinstance(column, tuple) else str(column)


def _paragraphs(texts: Sequence[str]) -> str:
    return "".join(f'<p style="max-width: 60em; margin: 0 0 0.4em">{escape(each)}</p>' for each in texts)


def _card(finding: Finding) -> str:
    lines = [f"<strong>{escape(finding.title)}</strong>: {escape(result_phrase(finding))}"]
    lines.append(escape(finding.answer))
    if finding.before is not None or finding.after is not None:
        lines.append(f"delivered: {delivery_text(finding)}")
    if basis := basis_text(finding):
        lines.append(f"<small>{escape(basis)}</small>")
    body = "".join(f'<p style="margin:.25em 0">{line}</p>' for line in lines)
    if finding.evidence:
        items = "".join(f"<li>{escape(item)}</li>" for item in finding.evidence)
        body += f'<ul style="margin:.25em 0 0;padding-left:1.2em;opacity:.8">{items}</ul>'
    question, answer = next(iter(answers(finding).items()))
    edge = (_CONTRADICTION_EDGE if question == CONTRADICTS else _EDGE)[answer]
    style = f"border-left:5px solid {edge};padding:.4em 1em;margin:.5em 0;max-width:44em"
    return f'<div style="{style}">{body}</div>'


def _grid(table: Table) -> str:
    numeric = numeric_columns(table)
    # Align text to the left, because JupyterLab's default of aligning every cell to the right makes text hard to read.
    left = {column: "" if column in numeric else ' style="text-align:left"' for column in table.columns}
    head = "".join(f'<th scope="col"{left[column]}>{escape(column)}</th>' for column in table.columns)
    rows = (
        "".join(f"<td{left[column]}>{escape(cell_text(row.get(column)))}</td>" for column in table.columns)
        for row in table.records
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    caption = f'<caption style="caption-side:top;text-align:left">{escape(table.caption)}</caption>'
    rows_and_head = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    if table.folded:
        return f"<details><summary>{escape(table.caption)}</summary><table>{rows_and_head}</table></details>"
    return f"<table>{caption}{rows_and_head}</table>"
