"""Events that are to leave the SQLite file: a few with every group, so that no agent waits for many."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

__all__ = ["TRIM_ROWS", "Trim", "Trims"]

TRIM_ROWS: Final = 1_024
"""Rows that are deleted in one group."""


class Trim(NamedTuple):
    """Events of one thread: the numbers, and in how many rows they are."""

    number: int
    first: int
    last: int
    rows: int


class Trims:
    """What is to leave, in the order in which that was found."""

    def __init__(self) -> None:
        self._due: deque[Trim] = deque()

    def add(self, trim: Trim) -> None:
        if trim.rows:
            self._due.append(trim)

    def take(self) -> list[Trim]:
        """As much as is deleted in one group."""
        taken, rows = [], 0
        while self._due and rows < TRIM_ROWS:
            trim = self._due.popleft()
            if trim.rows > TRIM_ROWS:
                trim, rest = _parted(trim)
                self._due.appendleft(rest)
            taken.append(trim)
            rows += trim.rows
        return taken

    def put_back(self, taken: list[Trim]) -> None:
        """It was not deleted after all."""
        self._due.extendleft(reversed(taken))


def _parted(trim: Trim) -> tuple[Trim, Trim]:
    number, first, last, rows = trim
    middle = first + TRIM_ROWS
    return Trim(number, first, middle - 1, TRIM_ROWS), Trim(number, middle, last, rows - TRIM_ROWS)
