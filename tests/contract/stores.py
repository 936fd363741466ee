"""The table of stores that the contract suite covers, and a sink that stands for sockets."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio

from bridgekit.cursors_and_gaps import Cursor
from bridgekit.events import AgentEvent, EventType, Frame, Receipt
from bridgekit.ids import RunId, ThreadId, new_id
from bridgekit.stores import Stores, stores_from
from bridgekit.transport.log import DEFAULT_RETENTION, EventLog, Replay, Retention
from tests.factories import RUN, emitted
from tests.timeouts import TIMEOUT_SECONDS

WAIT_SECONDS: Final = TIMEOUT_SECONDS
"""Timeout for expected events. A store in another process may deliver them later."""
POLL_INTERVAL_SECONDS: Final = 0.01
"""Poll interval for conditions that depend on time."""

CreateLocation = Callable[[Path, str], AbstractAsyncContextManager[str]]
"""Creates the location of one test's stores in a folder or on a server, and returns the URL."""


@asynccontextmanager
async def memory(folder: Path, server: str) -> AsyncIterator[str]:
    yield "memory:"


def sqlite(synchronous: str) -> CreateLocation:
    @asynccontextmanager
    async def location(folder: Path, server: str) -> AsyncIterator[str]:
        yield f"sqlite:///{folder / 'store.db'}?synchronous={synchronous}"

    return location


@asynccontextmanager
async def redis(folder: Path, server: str) -> AsyncIterator[str]:
    # Other tests use the same server, each with its own prefix.
    yield f"{server}?prefix=test-{new_id()}"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A row of the table: one kind of store."""

    name: str
    create: CreateLocation
    """Creates the location of a test's stores, which is empty at first. The folder belongs to the test."""
    server: str = ""
    """The fixture with the server's URL, if there is a server. It outlives a test."""
    survives: bool = True
    """Whether acknowledged data survives when all processes that opened the stores have ended."""
    workers: int = 1
    """How many workers have the stores open at the same time in tests with several workers."""
    forgets_threads: bool = True
    """Whether the number of remembered threads is limited."""
    trio: bool = True
    """Whether the store also runs on trio."""


KINDS: Final = (
    Kind(name="memory", create=memory, survives=False),
    Kind(name="sqlite", create=sqlite("normal")),
    Kind(name="redis", create=redis, server="redis_url", workers=2, forgets_threads=False, trio=False),
    Kind(name="cluster", create=redis, server="redis_cluster_url", workers=2, forgets_threads=False, trio=False),
)
KILLED: Final = tuple(Kind(name=f"sqlite-{name}", create=sqlite(name)) for name in ("off", "normal", "full"))
"""Stores that lose nothing when their process is killed."""


class StoreLocation:
    """The location of one test's stores."""

    def __init__(self, kind: Kind, url: str) -> None:
        self.kind = kind
        self.url = url

    def opened(self, retention: Retention = DEFAULT_RETENTION) -> AbstractAsyncContextManager[Stores]:
        """Open the stores as one worker."""
        return stores_from(self.url, retention=retention)()

    @asynccontextmanager
    async def worker(self, retention: Retention = DEFAULT_RETENTION) -> AsyncIterator[Worker]:
        """Open the stores as one Worker."""
        async with self.opened(retention) as stores:
            yield Worker(stores.log)

    @asynccontextmanager
    async def workers(self, retention: Retention = DEFAULT_RETENTION) -> AsyncIterator[tuple[Worker, Worker]]:
        """A publishing worker and a worker with sockets. They are the same if the store supports only one."""
        async with AsyncExitStack() as stack:
            made = [await stack.enter_async_context(self.worker(retention)) for _ in range(self.kind.workers)]
            yield made[0], made[-1]


class Worker:
    """A worker's log, with a sink that records every delivered frame."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.sockets: Counter[ThreadId] = Counter()
        self.received: defaultdict[ThreadId, list[Frame]] = defaultdict(list)
        self.restarted: list[ThreadId] = []
        self._changed = anyio.Event()
        log.bind(self)

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        if self.sockets[thread_id]:
            self.received[thread_id].append(frame)
            self._changed.set()
            self._changed = anyio.Event()
        return self.sockets[thread_id]

    def force_reconnect(self, thread_id: ThreadId) -> None:
        self.restarted.append(thread_id)

    async def wait_for_room(self, thread_id: ThreadId) -> None:
        """Return immediately: this sink is never full."""

    async def join(self, thread_id: ThreadId, after: Cursor | None = None) -> Replay:
        """Join as the hub does for one more socket."""
        await self.log.join(thread_id)
        self.sockets[thread_id] += 1
        return await self.log.replay(thread_id, after)

    def leave(self, thread_id: ThreadId) -> None:
        self.sockets[thread_id] -= 1
        self.log.leave(thread_id)

    async def publish(self, thread_id: ThreadId, number: int = 0, *, run_id: RunId = RUN) -> Receipt:
        return await self.log.publish(event_with_number(thread_id, number, run_id=run_id))

    async def wait_for_frames(self, thread_id: ThreadId, count: int) -> list[Frame]:
        """Wait until this many frames of the thread were delivered."""
        with anyio.fail_after(WAIT_SECONDS):
            while len(self.received[thread_id]) < count:
                await self._changed.wait()
        return self.received[thread_id]


def event_with_number(thread_id: ThreadId, number: int = 0, *, run_id: RunId = RUN, padding: int = 0) -> AgentEvent:
    """Return an event with its number in the payload."""
    payload = {"number": number, "padding": "x" * padding}
    return emitted(EventType.TOOL_EXECUTING, run_id=run_id, payload=payload, thread_id=thread_id)


def number_in(frame: Frame) -> object:
    """Return the number in the event's payload."""
    return frame.event.payload["number"]


def numbers(frames: list[Frame] | tuple[Frame, ...]) -> list[int]:
    return [frame.seq for frame in frames]


def merged(replay: Replay, received: list[Frame]) -> list[Frame]:
    """Return what a socket receives: the replay and the delivered frames, without duplicates."""
    last = replay.frames[-1].seq if replay.frames else replay.cursor.seq
    return [*replay.frames, *(frame for frame in received if frame.seq > last)]
