"""The writer of the SQLite file: group commit, and a read between two commits.

One task uses the connection. It collects what the sources have, commits that as one transaction in a worker thread, and
then answers one read.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

import anyio
import msgspec
from anyio import to_thread
from anyio.abc import TaskGroup

from bridgekit.errors import StoreUnavailable, unwrap_single_error
from bridgekit.stores.sqlite.file import STORE, Synchronous, close_file, fetch, open_file

__all__ = ["LOAD_TIMEOUT_SECONDS", "Database", "Pending", "PendingRows", "encode_rows", "open_database"]

_log = logging.getLogger(__name__)

ANSWER_TIMEOUT_SECONDS: Final = 2.0
"""How long a caller waits for the file."""
LOAD_TIMEOUT_SECONDS: Final = 60.0
"""The same, for the reads with which an application starts."""
RETRY_SECONDS: Final = 1.0
"""How often a file that could not be written is tried again, where nothing is published meanwhile."""
BACKLOG_ROWS: Final = 10_000
"""How many rows of one table may wait for a commit."""
_PROBE: Final = "UPDATE store SET synchronous = synchronous"

ResultT = TypeVar("ResultT")


class Pending(Generic[ResultT]):
    """Something that waits for the file. It is done in its turn, whether or not a caller still waits for the result."""

    __slots__ = ("_answered", "enqueued_at", "result")

    def __init__(self) -> None:
        self.enqueued_at = time.monotonic()
        self.result: ResultT | None = None
        self._answered: anyio.Event | None = None
        """Created when a caller waits. A timer for each would take longer than all else here: see `Database.watch`."""

    def resolve(self, result: ResultT) -> None:
        """Give the result to the callers that wait, and to later ones."""
        self.result = result
        if self._answered is not None:
            self._answered.set()

    def expire(self) -> None:
        """Let callers go on without the result."""
        self._answered = self._answered or anyio.Event()
        self._answered.set()

    async def wait(self) -> ResultT | None:
        """Return the result, or None where there is none in time."""
        if self.result is None:
            self._answered = self._answered or anyio.Event()
            await self._answered.wait()
        return self.result


class WriteSource(Protocol):
    """Something that has rows to write. Its methods return at once."""

    def next_batch(self) -> Mapping[str, str | bytes]:
        """Return what is to be written next, as columns of the inbox; nothing where nothing waits.

        While the database is not healthy, a batch has something new in it: a failed one is not repeated by itself.
        """

    def complete(self, problem: str) -> None:
        """Handle the end of the batch: it is committed or, where there is a problem, none of it is."""

    def unresolved(self) -> Iterable[Pending[Any]]:
        """Yield all that has no result yet, and perhaps the last batch."""


class Database:
    """An open file. A writer is a WriteSource that calls `notify`; readers call `read`."""

    def __init__(
        self, connection: sqlite3.Connection, clock: Callable[[], float], answer_timeout_seconds: float
    ) -> None:
        self._connection = connection
        self._thread = anyio.CapacityLimiter(1)
        """A thread of its own, so that the application's other worker threads do not delay a commit."""
        self._answer_timeout_seconds = answer_timeout_seconds
        self.clock = clock
        """Seconds since 1970: a time in the file means the same to the next process."""
        self.sources: list[WriteSource] = []
        self.tasks: TaskGroup
        """For tasks of the sources, once there is a batch. `run` ends after them."""
        self._reads: OrderedDict[Pending[list[Any] | StoreUnavailable], tuple[str, tuple[object, ...]]] = OrderedDict()
        """Queries with their parameters. The result is the rows, or why there are none."""
        self._work = anyio.Event()
        self._busy_since: float | None = None
        self._problem = ""
        """Of the last transaction."""
        self._ended = anyio.Event()
        self.closed = False
        """Nothing more is accepted. What was accepted is still written."""

    @property
    def healthy(self) -> bool:
        """Whether the last transaction was committed, and no statement takes too long."""
        return not (self._problem or self._is_late)

    @property
    def _is_late(self) -> bool:
        return self._busy_since is not None and time.monotonic() - self._busy_since > self._answer_timeout_seconds

    def notify(self) -> None:
        """Wake the writer: a source has rows."""
        self._work.set()

    def close(self) -> None:
        """Accept nothing more, and end `run` when all that waits is written."""
        self.closed = True
        self.notify()

    async def read(self, sql: str, *parameters: object, timeout_seconds: float | None = None) -> list[Any]:
        """Return the rows of a query, as committed; StoreUnavailable where they do not come in time, or cannot be read."""
        if self.closed:
            raise StoreUnavailable(STORE, "it is closed")
        request: Pending[list[Any] | StoreUnavailable] = Pending()
        self._reads[request] = (sql, parameters)
        self.notify()
        try:
            with anyio.move_on_after(self._answer_timeout_seconds if timeout_seconds is None else timeout_seconds):
                await request.wait()
        finally:
            self._reads.pop(request, None)
        if isinstance(request.result, list):
            return request.result
        raise request.result or StoreUnavailable(STORE, "it does not answer in time")

    async def run(self) -> None:
        """Write and read by turns, until the database is closed and everything is written."""
        try:
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as self.tasks:
                    while not self.closed:
                        self._work = anyio.Event()
                        if not await self._write_and_read():
                            await self._wait_for_work()
                    if self._problem:
                        await self._commit(_PROBE, ())
                    while await self._write_and_read():
                        pass
        finally:
            # Also after an error in a source: the application ends then, and no caller must wait for it.
            self.closed = True
            self._ended.set()

    async def watch(self) -> None:
        """Answer callers in bounded time while the file takes longer, until `run` has ended."""
        with anyio.CancelScope(shield=True):
            while not self._ended.is_set():
                with anyio.move_on_after(self._answer_timeout_seconds / 4):
                    await self._ended.wait()
                before = time.monotonic()
                if not (self._is_late or self._ended.is_set()):
                    before -= self._answer_timeout_seconds
                for source in self.sources:
                    for pending in source.unresolved():
                        if pending.enqueued_at < before:
                            pending.expire()

    async def _write_and_read(self) -> bool:
        """Commit what waits and answer one read; False where there was nothing to do."""
        wrote = await self._write()
        return await self._answer_read() or wrote

    async def _wait_for_work(self) -> None:
        with anyio.move_on_after(RETRY_SECONDS if self._problem else None):
            await self._work.wait()
        if not self._work.is_set():
            # A server that is not healthy is sent no events, so none would show that the file can be written again.
            await self._commit(_PROBE, ())

    async def _write(self) -> bool:
        """Commit what waits, as one transaction; False where nothing does."""
        batches = [(source, batch) for source in self.sources if (batch := source.next_batch())]
        if not batches:
            return False
        columns: dict[str, object] = {"now": self.clock()}
        for _, batch in batches:
            columns.update(batch)
        problem = await self._commit(
            f"INSERT INTO inbox ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
            tuple(columns.values()),
        )
        for source, _ in batches:
            source.complete(problem)
        return True

    async def _commit(self, sql: str, parameters: tuple[object, ...]) -> str:
        """Execute a statement that writes, and return why that failed, if it did."""
        problem = ""
        try:
            await self._execute(sql, parameters)
        except sqlite3.Error as error:
            problem = str(error)
        if problem and not self._problem:
            _log.warning("the %s store cannot be written: %s", STORE, problem)
        elif self._problem and not problem:
            _log.warning("the %s store can be written again", STORE)
        self._problem = problem
        return problem

    async def _answer_read(self) -> bool:
        """Answer the oldest read; False where there is none."""
        if not self._reads:
            return False
        request, query = self._reads.popitem(last=False)
        try:
            request.resolve(await self._execute(*query))
        except sqlite3.Error as error:
            request.resolve(StoreUnavailable(STORE, str(error)))
        return True

    async def _execute(self, sql: str, parameters: tuple[object, ...]) -> list[Any]:
        """Execute a statement, which is a transaction of its own."""
        self._busy_since = time.monotonic()
        try:
            return await to_thread.run_sync(fetch, self._connection, sql, parameters, limiter=self._thread)
        finally:
            self._busy_since = None


class PendingRows:
    """A WriteSource of rows for one column of the inbox."""

    def __init__(self, database: Database, column: str, *, limit: int = BACKLOG_ROWS) -> None:
        self._database = database
        self._column = column
        self._limit = limit
        self._waiting: dict[Pending[str], tuple[object, ...]] = {}
        """The result is why a row is not committed, or nothing."""
        self._in_flight: dict[Pending[str], tuple[object, ...]] = {}
        database.sources.append(self)

    async def put(self, row: tuple[object, ...]) -> None:
        """Return when the row is committed; StoreUnavailable where it is not, or may be only later."""
        if self._database.closed:
            raise StoreUnavailable(STORE, "it is closed")
        # Callers that were cancelled have left their rows here.
        if len(self._waiting) >= self._limit:
            raise StoreUnavailable(STORE, "too much waits to be written")
        pending: Pending[str] = Pending()
        self._waiting[pending] = row
        self._database.notify()
        problem = await pending.wait()
        if problem is None:
            raise StoreUnavailable(STORE, "it does not answer in time")
        if problem:
            raise StoreUnavailable(STORE, problem)

    def next_batch(self) -> Mapping[str, str | bytes]:
        self._in_flight, self._waiting = self._waiting, {}
        return {self._column: encode_rows(list(self._in_flight.values()))} if self._in_flight else {}

    def complete(self, problem: str) -> None:
        for pending in self._in_flight:
            pending.resolve(problem)

    def unresolved(self) -> Iterable[Pending[str]]:
        return chain(self._in_flight, self._waiting)


def encode_rows(rows: list[Any]) -> str:
    """Encode rows for a column of the inbox."""
    return msgspec.json.encode(rows).decode()


@asynccontextmanager
async def open_database(
    path: Path,
    synchronous: Synchronous,
    clock: Callable[[], float] = time.time,
    answer_timeout_seconds: float = ANSWER_TIMEOUT_SECONDS,
) -> AsyncIterator[Database]:
    """Open the file for this process alone, for the length of a block; it is created if there is none.

    StoreInUse or StoreUnusable where that is not possible. At the end of the block, what waits is still written.
    """
    connection = await to_thread.run_sync(open_file, path, synchronous, clock())
    try:
        database = Database(connection, clock, answer_timeout_seconds)
        with unwrap_single_error():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(database.run)
                tasks.start_soon(database.watch)
                try:
                    yield database
                finally:
                    database.close()
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(close_file, connection)
