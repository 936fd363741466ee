"""Assigns tests to the worker processes of pytest-xdist."""

from __future__ import annotations

import re
from typing import Final

from xdist.scheduler import LoadScopeScheduling

__all__ = ["FileScheduling"]

_EXECUTED: Final = re.compile(r"^tests/notebooks/test_executed\.py::.*\[(?P<notebook>.+\.ipynb)\]$")


class FileScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no type hints
    """Runs the tests of a file in one process, in order, so that shared fixtures are created once.

    A notebook and the test of its executed copy count as one file, in this order.
    """

    def _split_scope(self, nodeid: str) -> str:
        return file_of(nodeid)


def file_of(nodeid: str) -> str:
    """Return the file that a test belongs to; for a test of an executed notebook, the notebook."""
    if found := _EXECUTED.match(nodeid):
        return f"build/executed/{found['notebook']}"
    return nodeid.partition("::")[0]
