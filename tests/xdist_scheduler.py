"""The pytest-xdist scheduler: it decides which tests run in the same worker process."""

from __future__ import annotations

import re
from typing import Final

from xdist.scheduler import LoadScopeScheduling

__all__ = ["ByFile"]

_EXECUTED: Final = re.compile(r"^tests/notebooks/test_executed\.py::.*\[(?P<notebook>.+\.ipynb)\]$")


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types
    """Runs all tests of a file in one process, in order, so that their shared fixtures are created once.

    A notebook and the test of its executed copy count as one file, in this order.
    """

    def _split_scope(self, nodeid: str) -> str:
        return file_of(nodeid)


def file_of(nodeid: str) -> str:
    """Return the file that groups a test with others."""
    if found := _EXECUTED.match(nodeid):
        return f"build/executed/{found['notebook']}"
    return nodeid.partition("::")[0]
