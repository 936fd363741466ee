"""Assigns tests to the worker processes of pytest-xdist."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

from tests.file_order import file_of

__all__ = ["FileScheduling"]


class FileScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no type hints
    """Runs the tests of a file in one process, in order, so that shared fixtures are created once.

    A notebook and the test of its executed copy count as one file, in this order.
    """

    def _split_scope(self, nodeid: str) -> str:
        return file_of(nodeid)
