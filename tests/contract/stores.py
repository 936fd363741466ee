"""The table of stores that the contract holds for, and what stands in for sockets."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio

from bridgekit.events import AgentEvent, EventType, Frame, Receipt
from bridgekit.ids import RunId, ThreadId, new_id
from bridgekit.signals import Cursor
from bridgekit.stores import Stores, stores_from
from bridgekit.transport.log import DEFAULT_RETENTION, EventLog, Replay, Retention
from tests.factories import RUN, emitted
from tests.timeouts import TIMEOUT_SECONDS

WAIT_SECONDS: Final = TIMEOUT_SECONDS
"""How long a test waits for what must come. A store in another process brings it when it can."""
LOOK_SECONDS: Final = 0.01
"""Between two looks at what only the clock brings about."""

Placing = Callable[[Path, str], AbstractAsyncContextManager[str]]
"""Makes room for one test's stores in a folder or on a server, and gives the URL."""


@asynccontextmanager
async def memory(folder: Path, server: str) -> AsyncIterator[str]:
    yield "memory:"


def sqlite(synchronous: str) -> Placing:
    @asynccontextmanager
    async def place(folder: Path, server: str) -> AsyncIterator[str]:
        yield f"sqlite:///{folder / 'store.db'}?synchronous={synchronous}"

    return place


@asynccontextmanager
async def redis(folder: Path, server: str) -> AsyncIterator[str]:
    # Others are on the same server, each under a name of its own.
    yield f"{server}?prefix=test-{new_id()}"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of store, as a row."""

    name: str
    place: Placing
    """Where a test's stores are; empty at first. The folder is the test's own."""
    server: str = ""
    """The fixture that is the server's URL, where there is one. It lasts longer than a test."""
    survives: bool = True
    """Whether what was acknowledged is still known when all who had it open have ended."""
    workers: int = 1
    """How many have it open at the same time, where a test asks for all that may."""
    forgets_threads: bool = True
    """Whether it counts the threads that it remembers."""
    trio: bool = True
    """Whether it also runs on trio."""


KINDS: Final = (
    Kind(name="memory", place=memory, survives=False),
    Kind(name="sqlite", place=sqlite("normal")),
    Kind(name="redis", place=redis, server="redis_url", workers=2, forgets_threads=False, trio=False),
    Kind(name="cluster", place=redis, server="redis_cluster_url", workers=2, forgets_threads=False, trio=False),
)
KILLED: Final = tuple(Kind(name=f"sqlite-{name}", place=sqlite(name)) for name in ("off", "normal", "full"))
"""Those of whose process nothing is lost when it is killed."""


class Place:
    """Where one test's stores are."""

    def __init__(self, kind: Kind, url: str) -> None:
        self.kind = kind
        self.url = url

    def opened(self, retention: Retention = DEFAULT_RETENTION) -> AbstractAsyncContextManager[Stores]:
        """The stores, as one worker has them."""
        return stores_from(self.url, retention=retention)()

    @asynccontextmanager
    async def worker(self, retention: Retention = DEFAULT_RETENTION) -> AsyncIterator[Worker]:
        """One worker."""
        async with self.opened(retention) as stores:
            yield Worker(stores.log)

    @asynccontextmanager
    async def workers(self, retention: Retention = DEFAULT_RETENTION) -> AsyncIterator[tuple[Worker, Worker]]:
        """Who publishes, and who holds the sockets: two workers, or one twice where there can be only one."""
        async with AsyncExitStack() as stack:
            made = [await stack.enter_async_context(self.worker(retention)) for _ in range(self.kind.workers)]
            yield made[0], made[-1]


class Worker:
    """A worker's log, and a Sink that keeps all it is given."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.sockets: Counter[ThreadId] = Counter()
        self.heard: defaultdict[ThreadId, list[Frame]] = defaultdict(list)
        self.restarted: list[ThreadId] = []
        self._changed = anyio.Event()
        log.bind(self)

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        if self.sockets[thread_id]:
            self.heard[thread_id].append(frame)
            self._changed.set()
            self._changed = anyio.Event()
        return self.sockets[thread_id]

    def restart(self, thread_id: ThreadId) -> None:
        self.restarted.append(thread_id)

    async def wait_for_room(self, thread_id: ThreadId) -> None:
        """There is always room."""

    async def join(self, thread_id: ThreadId, after: Cursor | None = None) -> Replay:
        """One socket more, as the hub does it."""
        await self.log.join(thread_id)
        self.sockets[thread_id] += 1
        return await self.log.replay(thread_id, after)

    def leave(self, thread_id: ThreadId) -> None:
        self.sockets[thread_id] -= 1
        self.log.leave(thread_id)

    async def publish(self, thread_id: ThreadId, number: int = 0, *, run_id: RunId = RUN) -> Receipt:
        return await self.log.publish(drafted(thread_id, number, run_id=run_id))

    async def hears(self, thread_id: ThreadId, count: int) -> list[Frame]:
        """Wait until so many frames of the thread have come."""
        with anyio.fail_after(WAIT_SECONDS):
            while len(self.heard[thread_id]) < count:
                await self._changed.wait()
        return self.heard[thread_id]


def drafted(thread_id: ThreadId, number: int = 0, *, run_id: RunId = RUN, padding: int = 0) -> AgentEvent:
    """An event that says which one it is."""
    payload = {"number": number, "padding": "x" * padding}
    return emitted(EventType.TOOL_EXECUTING, run_id=run_id, payload=payload, thread_id=thread_id)


def number_in(frame: Frame) -> object:
    """Which one it is."""
    return frame.event.payload["number"]


def numbers(frames: list[Frame] | tuple[Frame, ...]) -> list[int]:
    return [frame.seq for frame in frames]


def merged(replay: Replay, heard: list[Frame]) -> list[Frame]:
    """What a socket reads: the replay, and what was delivered since, each event once."""
    last = replay.frames[-1].seq if replay.frames else replay.cursor.seq
    return [*replay.frames, *(frame for frame in heard if frame.seq > last)]
