"""Which tests go to the same process, where several processes run them side by side."""

from __future__ import annotations

import re
from typing import Final

from xdist.scheduler import LoadScopeScheduling

__all__ = ["ByFile"]

_EXECUTED: Final = re.compile(r"^tests/notebooks/test_executed\.py::.*\[(?P<notebook>.+\.ipynb)\]$")


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types
    """A file's tests go to one process, one after the other: what they share is made once.

    A notebook and the test that looks at its executed copy are of one file in this sense, in that order.
    """

    def _split_scope(self, nodeid: str) -> str:
        return file_of(nodeid)


def file_of(nodeid: str) -> str:
    """The file that a test belongs to."""
    if found := _EXECUTED.match(nodeid):
        return f"build/executed/{found['notebook']}"
    return nodeid.partition("::")[0]
