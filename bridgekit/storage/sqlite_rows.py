"""Rows of one kind on their way into the file, each with somebody who waits until it is there."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import msgspec

from bridgekit.errors import StoreAway
from bridgekit.storage.sqlite import ANSWER_SECONDS, Database
from bridgekit.storage.sqlite_file import STORE

__all__ = ["Rows"]


class _Parcel:
    """Rows that are committed together."""

    __slots__ = ("problem", "rows", "settled")

    def __init__(self) -> None:
        self.rows: list[tuple[object, ...]] = []
        self.settled = anyio.Event()
        self.problem = ""


class Rows:
    """A Source of rows for one column of the inbox."""

    def __init__(self, database: Database, column: str) -> None:
        self._database = database
        self._column = column
        self._waiting = _Parcel()
        self._taken = self._waiting
        database.add(self)

    async def put(self, row: tuple[object, ...]) -> None:
        """Return when the row is committed. StoreAway where it is not, or not in time: then it may still be."""
        parcel = self._waiting
        if self._database.closed:
            raise StoreAway(STORE, "it is closed")
        parcel.rows.append(row)
        self._database.ring()
        with anyio.move_on_after(ANSWER_SECONDS):
            await parcel.settled.wait()
        if parcel.problem or not parcel.settled.is_set():
            raise StoreAway(STORE, parcel.problem or f"no answer within {ANSWER_SECONDS:g} s")

    def take(self) -> Mapping[str, str | bytes]:
        if not self._waiting.rows:
            return {}
        self._taken, self._waiting = self._waiting, _Parcel()
        return {self._column: msgspec.json.encode(self._taken.rows).decode()}

    def settle(self, problem: str) -> None:
        self._taken.problem = problem
        self._taken.settled.set()
