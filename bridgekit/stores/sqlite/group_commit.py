"""Writes to the SQLite file by group commit, and reads between two commits.

One task repeatedly collects the waiting rows of all sources, commits them as one transaction in a worker thread, and
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
from bridgekit.stores.sqlite.file import STORE, StoreFile, Synchronous, error_code
from bridgekit.transport.cancellation import current_loop, require_loop

__all__ = ["LOAD_TIMEOUT_SECONDS", "Database", "Pending", "PendingRows", "RowsDamaged", "encode_rows", "open_database"]

_log = logging.getLogger(__name__)

ANSWER_TIMEOUT_SECONDS: Final = 2.0
"""How long a caller waits for the file."""
LOAD_TIMEOUT_SECONDS: Final = 60.0
"""How long a read during application startup waits for the file."""
RETRY_SECONDS: Final = 1.0
"""Time between checks of an idle file, and between attempts to write to the file after a failure."""
BACKLOG_ROWS: Final = 10_000
"""Limit on the rows of one table that wait for a commit."""
_PROBE: Final = "UPDATE store SET synchronous = synchronous"
_CHECK: Final = "SELECT 1"

ResultT = TypeVar("ResultT")


class RowsDamaged(StoreUnavailable):
    """SQLite cannot read some rows, because the file is damaged."""


class Pending(Generic[ResultT]):
    """A request that waits for the file.

    A write is executed even if no caller waits for its result any more.
    """

    __slots__ = ("_answered", "enqueued_at", "result")

    def __init__(self) -> None:
        self.enqueued_at = time.monotonic()
        self.result: ResultT | None = None
        self._answered: anyio.Event | None = None
        """Created when a caller waits. `Database.watch` limits the wait, because a timer for each caller would cost
        more than the request itself."""

    def resolve(self, result: ResultT) -> None:
        """Set the result, and wake the callers that wait for it."""
        self.result = result
        if self._answered is not None:
            self._answered.set()

    def expire(self) -> None:
        """Wake the waiting callers without a result."""
        self._answered = self._answered or anyio.Event()
        self._answered.set()

    async def wait(self) -> ResultT | None:
        """Return the result, or None if it does not arrive in time."""
        if self.result is None:
            self._answered = self._answered or anyio.Event()
            await self._answered.wait()
        return self.result


class WriteSource(Protocol):
    """Provides rows to the writer, and gets the result of their commit. Its methods return immediately."""

    def next_batch(self) -> Mapping[str, str | bytes]:
        """Return the rows to write next, as columns of the inbox. The mapping is empty if no row waits.

        While the database is unhealthy, return a batch only if it contains new rows.
        """

    def complete(self, problem: str) -> None:
        """Handle the result of the batch.

        If `problem` is empty, the whole batch is committed. Otherwise, no row of the batch is written.
        """

    def unresolved(self) -> Iterable[Pending[Any]]:
        """Yield every request that has no result, and perhaps some that have one."""


class Database:
    """An open file.

    A component that writes is a WriteSource and calls `notify`. A component that reads calls `read`.
    """

    def __init__(
        self,
        file: StoreFile,
        thread: anyio.CapacityLimiter,
        clock: Callable[[], float],
        answer_timeout_seconds: float,
    ) -> None:
        self.path = file.path
        self.loop = current_loop()
        """The event loop or OS thread of the callers."""
        self._file = file
        self._thread = thread
        self._answer_timeout_seconds = answer_timeout_seconds
        self.clock = clock
        """Returns seconds since 1970, because times in the file must have the same meaning in the next process."""
        self.sources: list[WriteSource] = []
        self.tasks: TaskGroup
        """A task group for the sources, available once there is a batch. `run` waits for the group's tasks."""
        self._reads: OrderedDict[Pending[list[Any] | StoreUnavailable], tuple[str, tuple[object, ...]]] = OrderedDict()
        """Queries with their parameters. The result is the rows, or an error."""
        self._work = anyio.Event()
        self._busy_since: float | None = None
        self._now = 0.0
        """The time of the last transaction, which never decreases, so that it identifies the latest commit."""
        self._problem = ""
        """The error of the last transaction, or an empty string."""
        self._ended = anyio.Event()
        self.closed = False
        """True if new requests are refused. The writer still writes accepted requests."""

    @property
    def problem(self) -> str:
        """The reason why the last transaction was not committed or a statement is overdue.

        An empty string if the database is healthy.
        """
        return self._problem or ("the disk does not answer in time" if self._is_late else "")

    @property
    def _is_late(self) -> bool:
        return self._busy_since is not None and time.monotonic() - self._busy_since > self._answer_timeout_seconds

    def notify(self) -> None:
        """Wake the writer, because a source has rows or a read waits."""
        self._work.set()

    def close(self) -> None:
        """Refuse new requests, and end `run` when all accepted requests are written."""
        self.closed = True
        self.notify()

    async def read(self, sql: str, *parameters: object, timeout_seconds: float | None = None) -> list[Any]:
        """Return the rows of a query, as committed. Raises StoreUnavailable if the rows cannot be read in time."""
        require_loop(self.loop, STORE)
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
        raise request.result or StoreUnavailable(STORE, "no answer in time")

    async def run(self) -> None:
        """Alternate between a commit and a read, until the database is closed and all rows are written."""
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
            # After an error in a source, the application ends, so callers must not wait any longer.
            self.closed = True
            self._ended.set()

    async def watch(self) -> None:
        """Answer callers within a limited time while the file is slow, until `run` has ended."""
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
        """Commit the waiting rows and answer one read. Return False if no row and no read waited."""
        wrote = await self._write()
        return await self._answer_read() or wrote

    async def _wait_for_work(self) -> None:
        with anyio.move_on_after(RETRY_SECONDS):
            await self._work.wait()
        if not self._work.is_set():
            # An unhealthy server receives no events, so only this probe can show that the file is writable again.
            await self._commit(_PROBE if self._problem else _CHECK, ())

    async def _write(self) -> bool:
        """Commit the waiting rows as one transaction. Return False if no row waits."""
        batches = [(source, batch) for source in self.sources if (batch := source.next_batch())]
        if not batches:
            return False
        self._now = max(self._now, self.clock())
        columns: dict[str, object] = {"now": self._now}
        for _, batch in batches:
            columns.update(batch)
        problem = await self._commit(
            f"INSERT INTO inbox ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
            tuple(columns.values()),
            self._now if "heads" in columns else 0.0,
        )
        for source, _ in batches:
            source.complete(problem)
        return True

    async def _commit(self, sql: str, parameters: tuple[object, ...], position: float = 0.0) -> str:
        """Execute a statement that writes, and return its error message, or an empty string."""
        problem = ""
        try:
            await self._execute(self._file.commit, sql, parameters, position)
        except (sqlite3.Error, OSError) as error:
            problem = str(error)
        if problem and not self._problem:
            _log.warning("the %s store cannot be written: %s", STORE, problem)
        elif self._problem and not problem:
            _log.warning("the %s store can be written again", STORE)
        self._problem = problem
        return problem

    async def _answer_read(self) -> bool:
        """Answer the oldest read. Return False if no read waits."""
        if not self._reads:
            return False
        request, query = self._reads.popitem(last=False)
        try:
            request.resolve(await self._execute(self._file.fetch, *query))
        except sqlite3.Error as error:
            is_damaged = error_code(error) == sqlite3.SQLITE_CORRUPT
            request.resolve((RowsDamaged if is_damaged else StoreUnavailable)(STORE, str(error)))
        return True

    async def _execute(self, execute: Callable[..., list[Any]], *arguments: object) -> list[Any]:
        """Execute a statement as its own transaction."""
        self._busy_since = time.monotonic()
        try:
            return await to_thread.run_sync(execute, *arguments, limiter=self._thread)
        finally:
            self._busy_since = None


class PendingRows:
    """A WriteSource of rows for one column of the inbox."""

    def __init__(self, database: Database, column: str, *, limit: int = BACKLOG_ROWS) -> None:
        self._database = database
        self._column = column
        self._limit = limit
        self._waiting: dict[Pending[str], tuple[object, ...]] = {}
        """Waiting rows. The result of a row is the error message, or an empty string."""
        self._in_flight: dict[Pending[str], tuple[object, ...]] = {}
        database.sources.append(self)

    async def put(self, row: tuple[object, ...]) -> None:
        """Write a row, and return when it is committed.

        Raises StoreUnavailable if the row is not committed in time. The store may still commit the row later.
        """
        require_loop(self._database.loop, STORE)
        if self._database.closed:
            raise StoreUnavailable(STORE, "it is closed")
        # The limit applies to rows and not to callers, because the rows of cancelled callers also wait.
        if len(self._waiting) >= self._limit:
            raise StoreUnavailable(STORE, "its queue of unwritten rows is full; try again later")
        pending: Pending[str] = Pending()
        self._waiting[pending] = row
        self._database.notify()
        problem = await pending.wait()
        if problem is None:
            raise StoreUnavailable(STORE, "no answer in time")
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
    clock: Callable[[], float] | None = None,
    answer_timeout_seconds: float = ANSWER_TIMEOUT_SECONDS,
) -> AsyncIterator[Database]:
    """Open the file in this process only, while the block runs. Create the file if necessary.

    Raises StoreInUse or StoreUnusable if the file cannot be opened. At the end of the block, the writer still writes
    waiting rows. By default, a step of the machine's clock has no effect while the file is open.
    """
    # A separate limiter, so that the application's other worker threads delay neither the commits nor the shutdown.
    thread = anyio.CapacityLimiter(1)
    begun = time.monotonic()
    file = await to_thread.run_sync(StoreFile, path, synchronous, (clock or time.time)(), limiter=thread)
    try:
        steady = clock or (lambda: file.begun_at + time.monotonic() - begun)
        database = Database(file, thread, steady, answer_timeout_seconds)
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
            await to_thread.run_sync(file.close, limiter=thread)
