"""Rows of one kind on their way into the file, each with somebody who waits until it is there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

import anyio
import msgspec

from bridgekit.errors import StoreAway
from bridgekit.storage.sqlite import Database
from bridgekit.storage.sqlite_file import STORE

__all__ = ["BACKLOG_ROWS", "Rows"]

BACKLOG_ROWS: Final = 10_000
"""Rows of one kind that may wait to be committed."""


class _Parcel:
    """Rows that are committed together."""

    __slots__ = ("answered", "begun_at", "problem", "rows")

    def __init__(self) -> None:
        self.rows: list[tuple[object, ...]] = []
        self.begun_at = 0.0
        self.answered = anyio.Event()
        self.problem = "it does not answer in time"


class Rows:
    """A Source of rows for one column of the inbox."""

    def __init__(self, database: Database, column: str, *, limit: int = BACKLOG_ROWS) -> None:
        self._database = database
        self._column = column
        self._limit = limit
        self._waiting = _Parcel()
        self._taken = self._waiting
        database.add(self)

    async def put(self, row: tuple[object, ...]) -> None:
        """Return when the row is committed. StoreAway where it is not, or not in time: then it may still be."""
        parcel = self._waiting
        if self._database.closed:
            raise StoreAway(STORE, "it is closed")
        if len(parcel.rows) >= self._limit:
            # Those who waited for them may be gone, but the rows are not.
            raise StoreAway(STORE, "it is behind")
        if not parcel.rows:
            parcel.begun_at = time.monotonic()
        parcel.rows.append(row)
        self._database.ring()
        await parcel.answered.wait()
        if parcel.problem:
            raise StoreAway(STORE, parcel.problem)

    def take(self) -> Mapping[str, str | bytes]:
        if not self._waiting.rows:
            return {}
        self._taken, self._waiting = self._waiting, _Parcel()
        return {self._column: msgspec.json.encode(self._taken.rows).decode()}

    def settle(self, problem: str) -> None:
        self._taken.problem = problem
        self._taken.answered.set()

    def late(self, before: float) -> None:
        for parcel in (self._taken, self._waiting):
            if parcel.rows and parcel.begun_at < before:
                parcel.answered.set()
