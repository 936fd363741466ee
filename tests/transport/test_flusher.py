"""The task that writes to the sockets: each in its turn, and nobody waits for one that has to. On both backends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from bridgekit.transport.flusher import COMPANY_EVENTS, COMPANY_FRAMES, COMPANY_TURNS, SPARE_TASKS, Flusher

from tests.samples import ALICE, BOB, OTHER, THREAD
from tests.transport.browser import PATIENCE_SECONDS, Browser, Site

MINE = ContextVar("MINE", default="nobody's")


class Written:
    """A socket that keeps a book of when it was flushed, and waits when it is told to."""

    def __init__(self, book: list[str], name: str, waits: Callable[[], Awaitable[None]] | None = None) -> None:
        self.scope: anyio.CancelScope | None = None
        self.failure: Exception | None = None
        self.frames = 1
        self._book = book
        self._name = name
        self._waits = waits

    def flush(self) -> Awaitable[None] | None:
        self._book.append(self._name)
        return None if self._waits is None else self._waits()

    @property
    def waiting(self) -> int:
        return self.frames

    def begin_waiting(self, scope: anyio.CancelScope) -> None:
        self.scope = scope

    def end_waiting(self) -> None:
        self._book.append(f"{self._name} over")

    def fail(self, error: Exception) -> None:
        self.failure = error


@asynccontextmanager
async def flushing() -> AsyncIterator[tuple[Flusher, list[str]]]:
    with anyio.fail_after(PATIENCE_SECONDS):
        async with Flusher() as flusher:
            yield flusher, []


async def test_sockets_are_flushed_when_the_task_that_marked_them_lets_others_run_and_in_that_order() -> None:
    async with flushing() as (flusher, book):
        for name in "abc":
            flusher.mark(Written(book, name))
        assert book == []
        await anyio.wait_all_tasks_blocked()
        flusher.mark(Written(book, "d"))
        await anyio.wait_all_tasks_blocked()
    assert book == ["a", "b", "c", "d"]


async def turns_until_written(events: int, *, turns: int, frames: int = 1) -> int:
    """How many turns pass before a socket is flushed while so many events are put in each of so many turns."""
    async with flushing() as (flusher, book):
        await anyio.wait_all_tasks_blocked()
        socket = Written(book, "a")
        socket.frames = frames
        for turn in range(10):
            if turn < turns:
                flusher.puts += events
                if not turn:
                    flusher.mark(socket)
            if book:
                return turn
            await checkpoint()
    raise AssertionError("it was not flushed")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("events", "turns", "frames", "passed"),
    [
        (1, 1, 1, 1),
        (COMPANY_EVENTS - 1, 9, 1, 1),
        (COMPANY_EVENTS, 1, 1, 2),
        (COMPANY_EVENTS, 2, 1, 3),
        (COMPANY_EVENTS, 9, 1, 1 + COMPANY_TURNS),
        (COMPANY_EVENTS, 9, COMPANY_FRAMES, 1),
    ],
)
async def test_written_at_the_end_of_a_turn_unless_agents_go_on_and_then_a_few_turns_later_at_most(
    monkeypatch: pytest.MonkeyPatch, events: int, turns: int, frames: int, passed: int
) -> None:
    monkeypatch.setattr("bridgekit.transport.flusher.COMPANY_SECONDS", PATIENCE_SECONDS)
    assert await turns_until_written(events, turns=turns, frames=frames) == passed


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_nobody_waits_for_company_longer_than_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridgekit.transport.flusher.COMPANY_SECONDS", -1.0)
    assert await turns_until_written(COMPANY_EVENTS, turns=9) == 2


async def test_socket_that_has_to_wait_holds_up_neither_those_behind_it_nor_those_that_come_later() -> None:
    async with flushing() as (flusher, book):
        free = anyio.Event()
        for socket in (Written(book, "slow", free.wait), Written(book, "slower", free.wait), Written(book, "quick")):
            flusher.mark(socket)
        await anyio.wait_all_tasks_blocked()
        flusher.mark(Written(book, "late"))
        await anyio.wait_all_tasks_blocked()
        assert book == ["slow", "slower", "quick", "late"]
        free.set()
        await anyio.wait_all_tasks_blocked()
    assert sorted(book[4:]) == ["slow over", "slower over"]


async def test_socket_that_is_cut_off_while_it_waits_is_awaited_no_more_and_the_others_go_on() -> None:
    async with flushing() as (flusher, book):
        stuck = Written(book, "stuck", anyio.sleep_forever)
        flusher.mark(stuck)
        await anyio.wait_all_tasks_blocked()
        assert stuck.scope is not None
        stuck.scope.cancel()
        await anyio.wait_all_tasks_blocked()
        flusher.mark(Written(book, "late"))
        await anyio.wait_all_tasks_blocked()
    assert book == ["stuck", "stuck over", "late"]


async def test_what_one_socket_raises_is_its_own_and_the_others_go_on() -> None:
    class Broken(Written):
        def flush(self) -> Awaitable[None] | None:
            super().flush()
            raise ValueError("at once")

    async def late() -> None:
        await checkpoint()
        raise ValueError("late")

    async with flushing() as (flusher, book):
        sockets = Broken(book, "a"), Written(book, "b", late), Written(book, "c")
        for socket in sockets:
            flusher.mark(socket)
        await anyio.wait_all_tasks_blocked()
        flusher.mark(Written(book, "d"))
        await anyio.wait_all_tasks_blocked()
    assert [str(socket.failure) for socket in sockets] == ["at once", "late", "None"]
    assert sorted(book) == ["a", "b", "b over", "c", "d"]


async def test_crowd_that_had_to_wait_leaves_only_so_many_tasks_behind() -> None:
    tasks = len(anyio.get_running_tasks())
    async with flushing() as (flusher, book):
        free = anyio.Event()
        for _ in range(2 * SPARE_TASKS):
            flusher.mark(Written(book, "slow", free.wait))
        await anyio.wait_all_tasks_blocked()
        assert len(anyio.get_running_tasks()) > tasks + 2 * SPARE_TASKS
        free.set()
        await anyio.wait_all_tasks_blocked()
        assert len(anyio.get_running_tasks()) <= tasks + SPARE_TASKS
        flusher.mark(Written(book, "late"))
        await anyio.wait_all_tasks_blocked()
    assert book[-1] == "late"
    assert len(anyio.get_running_tasks()) == tasks


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_cancellation_that_nobody_asked_for_ends_one_socket_and_not_the_writing() -> None:
    """As of a future that somebody else has cancelled."""

    class Cancelled(Written):
        def flush(self) -> Awaitable[None] | None:
            super().flush()
            raise anyio.get_cancelled_exc_class()

    async with flushing() as (flusher, book):
        for name, kind in (("a", Cancelled), ("b", Written)):
            flusher.mark(kind(book, name))
        await anyio.wait_all_tasks_blocked()
    assert book == ["a", "b"]


class Around:
    """Middleware around an application's `send`: in a scope and a context of its own, and slow when it is told to."""

    def __init__(self, app: Any, waits: Callable[[], Awaitable[None]] | None = None) -> None:
        self.seen: list[tuple[str, bool]] = []
        """Whose context each frame was sent in, and whether it was one task that began and ended it."""
        self._app = app
        self._waits = waits

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        MINE.set(scope["query_string"].decode().partition("&")[0])

        async def timed(message: Any) -> None:
            with anyio.fail_after(PATIENCE_SECONDS):
                begun_by = anyio.get_current_task().id
                if self._waits is not None and message["type"] == "websocket.send":
                    await self._waits()
                await send(message)
            if message["type"] == "websocket.send":
                self.seen.append((MINE.get(), begun_by == anyio.get_current_task().id))

        await self._app(scope, receive, timed)


@pytest.mark.parametrize("waits", [None, checkpoint])
async def test_middleware_around_send_finds_its_own_context_and_one_task_from_begin_to_end(
    site: Site, waits: Callable[[], Awaitable[None]] | None
) -> None:
    around = Around(site.app, waits)
    alices, bobs = (
        Browser(around, user_id=user, thread_id=thread)  # type: ignore[arg-type]  # any ASGI application will do
        for user, thread in ((ALICE, THREAD), (BOB, OTHER))
    )
    async with site.open(alices, bobs):
        await site.publish(2)
        await site.publish(2, OTHER)
    assert (alices.seqs, bobs.seqs) == ([1, 2], [1, 2])
    assert sorted(around.seen) == sorted([(f"user_id={user}", True) for user in (ALICE, BOB)] * 3)


@pytest.mark.parametrize("waits", [None, checkpoint])
async def test_what_a_send_raises_is_raised_in_the_socket_s_own_task_and_no_neighbour_notices(
    site: Site, waits: Callable[[], Awaitable[None]] | None
) -> None:
    broken = ValueError("no such message")
    browser = Browser(
        Around(site.app, waits),  # type: ignore[arg-type]  # any ASGI application will do
        broken_at="websocket.send",
        broken_by=broken,
        user_id=ALICE,
        thread_id=THREAD,
    )
    async with site.visited((ALICE, THREAD)) as [neighbour]:
        with pytest.raises(ValueError, match="no such message"):
            await browser.stay()
        await site.publish(2)
    assert neighbour.seqs == [1, 2]
    assert len(site.hub) == 0
