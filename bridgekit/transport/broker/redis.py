"""Logs in a Redis-protocol server, or a Cluster: any number of workers share them, and each hears of all events."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import anyio
from anyio import AsyncContextManagerMixin
from anyio.abc import TaskGroup

from bridgekit.errors import StoreAway, first_error
from bridgekit.events import Draft, Outcome, Receipt
from bridgekit.ids import ThreadId, new_id
from bridgekit.signals import Cursor
from bridgekit.storage.redis import STORE, Server, Servers
from bridgekit.transport.broker.redis_backlog import BACKLOG_BYTES, BACKLOG_EVENTS, Backlog, Lane
from bridgekit.transport.broker.redis_order import Joined
from bridgekit.transport.broker.redis_post import Post, Worker
from bridgekit.transport.broker.redis_reading import Logs
from bridgekit.transport.log import HISTORY, LINK, Keep, Replay, Sink

__all__ = ["ANSWER_SECONDS", "CLOSE_SECONDS", "RedisBroker"]

ANSWER_SECONDS: Final = 0.25
"""How long a publisher waits for a store that was well a moment ago. For one that is away nobody waits."""
LOOK_SECONDS: Final = 0.05
"""Between two looks at who waits too long."""
OPEN_SECONDS: Final = 1.0
"""How long a worker that begins waits until it hears what it tells itself. It begins without, if it has to."""
JOIN_SECONDS: Final = 5.0
"""How long a socket that joins waits for a store that is well: it may stand in line with thousands of others."""
CLOSE_SECONDS: Final = 2.0
"""How long a worker that ends waits for what is on its way."""

AWAITED: Final = "the store did not answer in time; the event waits until it does"
"""The reason of a PENDING event."""
ENDED: Final = "this worker is shutting down"


_log = logging.getLogger(__name__)


class RedisBroker(AsyncContextManagerMixin):
    """A worker's way to the logs. Open for the length of a block; at its end what is on its way has a moment.

    A publisher never waits long: see ANSWER_SECONDS. What the store has not taken waits here, in order and bounded,
    and is lost with this process. `keep.threads` means nothing here: a thread that nobody uses is forgotten by the
    server, its frames after `keep.seconds` and its numbering after a day.
    """

    def __init__(
        self,
        servers: Servers,
        keep: Keep = HISTORY,
        *,
        backlog_events: int = BACKLOG_EVENTS,
        backlog_bytes: int = BACKLOG_BYTES,
    ) -> None:
        name = new_id()
        self._servers = servers
        self._backlog = Backlog(events=backlog_events, size_bytes=backlog_bytes)
        self._logs = Logs(servers, keep, name.encode())
        self._worker = Worker(name, servers, keep, self._backlog, self._logs, self._route)
        self._posts: dict[Server, Post] = {}
        self._joined: dict[ThreadId, Joined] = {}
        self._nowhere: list[Lane] = []
        """Lanes of slots that no server has."""
        self._closed = False

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[RedisBroker]:
        with first_error():
            async with anyio.create_task_group() as tasks:
                self._arrange(tasks)
                self._servers.watch(partial(self._arrange, tasks))
                tasks.start_soon(self._mind_the_time)
                with anyio.move_on_after(OPEN_SECONDS):
                    for post in self._posts.values():
                        await post.listener.proven()
                try:
                    yield self
                finally:
                    await self._close()
                    tasks.cancel_scope.cancel()

    @property
    def healthy(self) -> bool:
        return bool(self._posts) and all(post.healthy for post in self._posts.values())

    def bind(self, sink: Sink) -> None:
        self._worker.outlet.sink = sink

    async def publish(self, draft: Draft) -> Receipt:
        thread_id = draft.thread_id
        if self._closed:
            return _refused(thread_id, ENDED)
        lane = self._backlog.lane(thread_id, self._servers.names.thread(thread_id))
        entry = self._backlog.add(lane, draft, time.monotonic())
        post = self._post(lane.keys.slot)
        if lane.waiting and not lane.queued:
            self._hand(lane, post)
        away = post is None or post.away
        if entry is None:
            return _refused(thread_id, f"{'the store is away and ' if away else ''}the backlog is full")
        if away:
            entry.answer(_pending(thread_id))
        return await entry.answered() if entry.receipt is None else entry.receipt

    async def join(self, thread_id: ThreadId) -> None:
        joined = self._joined.get(thread_id)
        if joined is None:
            joined = self._joined[thread_id] = Joined(thread_id, self._servers.names.thread(thread_id))
            self._listen_to(joined)
        joined.sockets += 1
        if not joined.ready.is_set():
            try:
                await self._ready(joined)
            except BaseException:
                self.leave(thread_id)
                raise

    def leave(self, thread_id: ThreadId) -> None:
        joined = self._joined[thread_id]
        joined.sockets -= 1
        if not joined.sockets:
            del self._joined[thread_id]
            for post in self._posts.values():
                post.listener.remove(joined)

    async def replay(self, thread_id: ThreadId, after: Cursor | None) -> Replay:
        log = await self._logs.read(self._servers.names.thread(thread_id), after)
        return Replay(log.head) if after is None else log.replay(thread_id, after)

    async def _close(self) -> None:
        self._closed = True
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            await self._backlog.empty()
        if len(self._backlog):
            _log.warning("%d events did not reach the store and are lost", len(self._backlog))
        for lane in self._backlog:
            for entry in lane.entries():
                entry.answer(_refused(lane.thread_id, ENDED))

    async def _ready(self, joined: Joined) -> None:
        deadline = anyio.current_time() + JOIN_SECONDS
        while (post := self._post(joined.keys.slot)) is not None and not post.away:
            left = deadline - anyio.current_time()
            if left <= 0:
                break
            with anyio.move_on_after(min(left, ANSWER_SECONDS)):
                await joined.ready.wait()
                return
        raise StoreAway(STORE, "no server has the slot" if post is None else post.problem)

    def _post(self, slot: int) -> Post | None:
        server = self._servers.of(slot)
        return None if server is None else self._posts.get(server)

    def _route(self, lane: Lane) -> None:
        """Have what is in the lane sent by whoever is to send it now."""
        self._hand(lane, self._post(lane.keys.slot))

    def _hand(self, lane: Lane, post: Post | None) -> None:
        if post is None:
            lane.queued = True
            self._nowhere.append(lane)
        else:
            post.sender.push(lane)

    def _listen_to(self, joined: Joined) -> None:
        own = self._post(joined.keys.slot)
        for post in self._posts.values():
            if post is not own:
                post.listener.remove(joined)
            elif not post.listener.hears(joined):
                post.listener.add(joined)

    def _arrange(self, tasks: TaskGroup) -> None:
        """Have a post with every server, and each thread's business with the server that has it."""
        if self._closed:
            return
        servers = set(self._servers)
        for server in servers - self._posts.keys():
            post = self._posts[server] = Post(server, self._worker)
            tasks.start_soon(post.run)
        lanes, self._nowhere = self._nowhere, []
        for server, post in list(self._posts.items()):
            lanes += post.sender.clear()
            if server not in servers:
                del self._posts[server]
                post.scope.cancel()
        for lane in lanes:
            self._route(lane)
        for joined in self._joined.values():
            self._listen_to(joined)

    async def _mind_the_time(self) -> None:
        """Let nobody wait too long."""
        while True:
            await self._backlog.some()
            await anyio.sleep(LOOK_SECONDS)
            for post in self._posts.values():
                post.sender.give_up_if_silent()
            late = time.monotonic() - ANSWER_SECONDS
            for lane in self._backlog:
                since = next((entry.since for entry in lane.entries() if entry.receipt is None), None)
                if since is not None and since <= late:
                    self._lose_patience(lane, since)

    def _lose_patience(self, lane: Lane, since: float) -> None:
        post = self._post(lane.keys.slot)
        lanes = [lane]
        if post is None or post.sender.answered_at < since:
            # Nobody was answered since. Where others were, it is this thread's trouble alone.
            lanes = [each for each in self._backlog if self._post(each.keys.slot) is post]
            if post is not None:
                post.sender.away = True
        for each in lanes:
            for entry in each.entries():
                entry.answer(_pending(each.thread_id))


def _pending(thread_id: ThreadId) -> Receipt:
    return Receipt(outcome=Outcome.PENDING, thread_id=thread_id, link=LINK, reason=AWAITED)


def _refused(thread_id: ThreadId, reason: str) -> Receipt:
    return Receipt(outcome=Outcome.REFUSED, thread_id=thread_id, link=LINK, reason=reason)
