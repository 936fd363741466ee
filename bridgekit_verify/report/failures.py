"""Detects whether an executed notebook failed, also where a runner such as nbmake reports it as passed.

A failing assertion in a task group ends a notebook without an `error` output, but some runners check only `error`
outputs. A notebook therefore passes only if every code cell ran and its last output is the line that `checked` prints.
"""

from __future__ import annotations

import re
from typing import Any

from bridgekit_verify.report.notebook_outputs import sentinel

# The frame that a printed exception group draws around its exceptions.
_GROUP_FRAME = re.compile(r"^[\s|+-]*")
# The last line of a traceback starts with a dotted name, alone or before a colon.
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(?::|$)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def failure_of(name: str, cells: list[Any]) -> str | None:
    """Return one line with the notebook, the cell and the error, or None if the notebook passed.

    `name` is the file's name without its suffix. `cells` are the cells as nbformat stores them.
    """
    code = list(enumerate(filter(runs, cells), 1))
    for number, cell in code:
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                return _line(name, number, f"{output['ename']}: {output['evalue']}")
    for number, cell in code:
        if cell["execution_count"] is None:
            # If a cell never ran and there is no error output, the cause is in the previous cell.
            before = max(1, number - 1)
            reason = _printed_exception(code[before - 1][1]) or f"code cell {number} never ran"
            return _line(name, before, reason)
    return _unchecked(name, code)


def runs(cell: Any) -> bool:
    """Return whether a runner executes this cell: a code cell that is not blank."""
    return bool(cell["cell_type"] == "code" and "".join(cell["source"]).strip())


def strip_colours(text: str) -> str:
    """Return the text without terminal colour codes."""
    return _COLOUR.sub("", text)


def _unchecked(name: str, code: list[tuple[int, Any]]) -> str | None:
    wanted = sentinel(name)
    if not code:
        return f"{name}: it has no code cell, so nothing printed {wanted!r}"
    number, cell = code[-1]
    last = cell["outputs"][-1] if cell["outputs"] else {}
    if last.get("name") == "stdout" and _text(last).rstrip().splitlines()[-1:] == [wanted]:
        return None
    return _line(name, number, _printed_exception(cell) or f"the notebook did not end on {wanted!r}")


def _printed_exception(cell: Any) -> str | None:
    """Return the last line of a traceback on the cell's stderr, without the frame of an exception group."""
    text = "".join(_text(output) for output in cell["outputs"] if output.get("name") == "stderr")
    lines = [_GROUP_FRAME.sub("", line).rstrip() for line in strip_colours(text).splitlines()]
    return next((line for line in reversed(lines) if _EXCEPTION.match(line)), None)


def _line(name: str, number: int, reason: str) -> str:
    lines = [line.strip() for line in strip_colours(reason).splitlines() if line.strip()]
    # The message of an assertion can have several lines. The first line states what failed.
    return f"{name}: code cell {number}: {lines[0] if lines else 'failed without an error message'}"


def _text(output: Any) -> str:
    return "".join(output.get("text", ""))
