"""One SQLite file and the one task that has it: what waits to be written is committed as a group, then one is read for.

Through sqlite-anyio, which runs on asyncio and trio alike (aiosqlite on asyncio only) and hands each call to a worker
thread. It interrupts what SQLite is doing when a caller is cancelled; here no caller calls, but only the task, which
nothing cancels.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import anyio
import sqlite_anyio

from bridgekit.errors import StoreAway, first_error
from bridgekit.storage.sqlite_file import STORE, Synchronous, connected, let_go

__all__ = ["ANSWER_SECONDS", "LOAD_SECONDS", "Database", "Source", "opened"]

_log = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 2.0
"""How long, about, anybody waits for an answer."""
LOAD_SECONDS: Final = 60.0
"""How long an application that starts waits for what a file holds."""
RETRY_SECONDS: Final = 1.0
"""How often a file that could not be written is tried again, where nobody else does."""

_COLUMNS: Final = ("forgotten", "heads", "events", "data", "trims", "routes", "spent")
_NOTHING: Final = {name: b"" if name == "data" else "[]" for name in _COLUMNS}
_PUT: Final = f"INSERT INTO inbox (now, {', '.join(_COLUMNS)}) VALUES (?{', ?' * len(_COLUMNS)})"
_TRY: Final = "UPDATE store SET synchronous = synchronous"


class Source(Protocol):
    """Has things to write. Its methods return at once."""

    def take(self) -> Mapping[str, str | bytes]:
        """What is to be written now, as columns of the inbox; nothing where nothing waits.

        While the database is not healthy, nothing that was taken before, and was not written, is taken again.
        """

    def settle(self, problem: str) -> None:
        """What was taken is committed; or, where there was a problem, nothing of it is. Called once for each `take`."""

    def late(self, before: float) -> None:
        """Whoever waits since before that time, of `time.monotonic()`, is to wait no longer.

        What he waits for is done all the same when its turn comes.
        """


class _Question:
    """Something to be read, and the answer."""

    __slots__ = ("answered", "given_up", "parameters", "problem", "rows", "sql")

    def __init__(self, sql: str, parameters: tuple[object, ...]) -> None:
        self.sql = sql
        self.parameters = parameters
        self.answered = anyio.Event()
        self.rows: list[Any] = []
        self.problem = ""
        self.given_up = False
        """Nobody waits for it any more."""


class Database:
    """A file that is open. Whoever writes is a Source and rings; whoever reads asks by `read`."""

    def __init__(
        self,
        cursor: sqlite_anyio.Cursor,
        clock: Callable[[], float] = time.time,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._cursor = cursor
        self._answer_seconds = answer_seconds
        self.clock = clock
        """Seconds since 1970: what is in the file is to mean the same to another process."""
        self._sources: list[Source] = []
        self._questions: deque[_Question] = deque()
        self._bell = anyio.Event()
        self._busy_since: float | None = None
        self._problem = ""
        """Of the last group."""
        self._ended = anyio.Event()
        self.closed = False
        """Nothing is taken any more."""

    @property
    def healthy(self) -> bool:
        """Whether the last group was committed, and nothing takes too long."""
        return not (self._problem or self._is_late)

    @property
    def _is_late(self) -> bool:
        return self._busy_since is not None and time.monotonic() - self._busy_since > self._answer_seconds

    def add(self, source: Source) -> None:
        """From now on this source is asked for what it has."""
        self._sources.append(source)

    def ring(self) -> None:
        """A source has something."""
        self._bell.set()

    async def read(self, sql: str, *parameters: object, seconds: float | None = None) -> list[Any]:
        """The rows of a query, as committed. StoreAway where they do not come in time, or cannot be read."""
        seconds = self._answer_seconds if seconds is None else seconds
        if self.closed:
            raise StoreAway(STORE, "it is closed")
        question = _Question(sql, parameters)
        self._drop_given_up()
        self._questions.append(question)
        self.ring()
        try:
            with anyio.move_on_after(seconds):
                await question.answered.wait()
        finally:
            question.given_up = True
        if question.problem or not question.answered.is_set():
            raise StoreAway(STORE, question.problem or f"no answer within {seconds:g} s")
        return question.rows

    async def run(self) -> None:
        """Write and read by turns, until closed and done."""
        try:
            with anyio.CancelScope(shield=True):
                while not self.closed:
                    self._bell = anyio.Event()
                    wrote, read = await self._write(), await self._read()
                    if not (wrote or read):
                        await self._rung()
                if self._problem:
                    await self._try()
                while await self._write() or await self._read():
                    pass
        finally:
            # Also where a source broke its word: then the application ends, and nobody is to hang in it.
            self.closed = True
            self._ended.set()

    async def watch(self) -> None:
        """Answer who waits when the file does not, until `run` has ended."""
        with anyio.CancelScope(shield=True):
            while not self._ended.is_set():
                with anyio.move_on_after(self._answer_seconds / 4):
                    await self._ended.wait()
                now = time.monotonic()
                nobody_comes = self._is_late or self._ended.is_set()
                for source in self._sources:
                    source.late(now if nobody_comes else now - self._answer_seconds)

    async def _rung(self) -> None:
        """Wait until a source has something; where the last group failed, not longer than until the next trial."""
        with anyio.move_on_after(RETRY_SECONDS if self._problem else None):
            await self._bell.wait()
        if not self._bell.is_set():
            # The disk may be well again, and a server that calls itself ill is sent nothing to find out by.
            await self._try()

    async def _try(self) -> None:
        """See whether the file can be written again."""
        self._found(await self._executed(_TRY, ()))

    async def _write(self) -> bool:
        taken = [(source, columns) for source in self._sources if (columns := source.take())]
        if not taken:
            return False
        group: dict[str, str | bytes] = dict(_NOTHING)
        for _, columns in taken:
            group.update(columns)
        problem = await self._executed(_PUT, (self.clock(), *group.values()))
        self._found(problem)
        for source, _ in taken:
            source.settle(problem)
        return True

    async def _read(self) -> bool:
        self._drop_given_up()
        if not self._questions:
            return False
        question = self._questions.popleft()
        question.problem = await self._executed(question.sql, question.parameters)
        if not question.problem:
            try:
                question.rows = await self._cursor.fetchall()
            except sqlite3.Error as error:
                question.problem = str(error)
        question.answered.set()
        return True

    def _drop_given_up(self) -> None:
        # Those who asked first give up first: while the file does not answer, no more wait than are asked for.
        while self._questions and self._questions[0].given_up:
            self._questions.popleft()

    async def _executed(self, sql: str, parameters: tuple[object, ...]) -> str:
        """Answer what the problem was, if there was any. Each statement is a transaction, and atomic."""
        self._busy_since = time.monotonic()
        try:
            await self._cursor.execute(sql, parameters)
        except sqlite3.Error as error:
            return str(error)
        finally:
            self._busy_since = None
        return ""

    def _found(self, problem: str) -> None:
        if problem and not self._problem:
            _log.warning("the %s store cannot be written: %s", STORE, problem)
        elif self._problem and not problem:
            _log.warning("the %s store can be written again", STORE)
        self._problem = problem


@asynccontextmanager
async def opened(
    path: Path,
    setting: Synchronous,
    clock: Callable[[], float] = time.time,
    answer_seconds: float = ANSWER_SECONDS,
) -> AsyncIterator[Database]:
    """The file, open for the length of a block, and for nobody else; StoreInUse or StoreUnusable where it cannot be.

    At the end what waits is still written.
    """
    connection, cursor = await connected(path, setting, clock())
    try:
        database = Database(cursor, clock, answer_seconds)
        with first_error():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(database.run)
                tasks.start_soon(database.watch)
                try:
                    yield database
                finally:
                    database.closed = True
                    database.ring()
    finally:
        await let_go(connection, cursor)
