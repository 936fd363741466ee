"""Workers that share a Redis store, with sinks that record what is delivered to them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest

from bridgekit.events import AgentEvent, EventType, Frame, Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit.stores.redis import log
from bridgekit.stores.redis.log import ANSWER_TIMEOUT_SECONDS, RedisEventLog
from bridgekit.stores.redis.topology import ClusterTopology
from bridgekit.transport.log import DEFAULT_RETENTION, Retention
from bridgekit_verify.faults.proxy import Proxy, proxy
from bridgekit_verify.faults.redis_servers import RedisServer
from tests.factories import RUN, THREAD, emitted
from tests.timeouts import TIMEOUT_SECONDS

SOON_SECONDS = TIMEOUT_SECONDS
POLL_SECONDS = 0.005
"""Poll interval for states that set no event."""


class RecordingSink:
    """A sink that records delivered frames, and lets a test wait for them."""

    def __init__(self) -> None:
        self.frames: dict[ThreadId, list[Frame]] = defaultdict(list)
        self.restarts: list[ThreadId] = []
        self._changed = anyio.Event()

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        self.frames[thread_id].append(frame)
        self._changed.set()
        return 1

    def force_reconnect(self, thread_id: ThreadId) -> None:
        self.restarts.append(thread_id)
        self._changed.set()

    async def wait_for_room(self, thread_id: ThreadId) -> None:
        """Return immediately, because this sink has no limit."""

    def numbers(self, thread_id: ThreadId = THREAD) -> list[int]:
        return [frame.seq for frame in self.frames[thread_id]]

    def texts(self, thread_id: ThreadId = THREAD) -> list[object]:
        return [frame.event.payload["text"] for frame in self.frames[thread_id]]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds. It is checked after each delivery. Raises TimeoutError if it never holds."""
        with anyio.fail_after(SOON_SECONDS):
            while not condition():
                self._changed = anyio.Event()
                await self._changed.wait()

    async def until_delivered(self, count: int, thread_id: ThreadId = THREAD) -> None:
        await self.until(lambda: len(self.frames[thread_id]) >= count)


class RedisWorker:
    """A worker: its log, its connections and its sink."""

    def __init__(self, topology: ClusterTopology, log: RedisEventLog) -> None:
        self.topology = topology
        self.log = log
        self.sink = RecordingSink()
        log.bind(self.sink)

    async def publish(self, event: AgentEvent) -> Receipt:
        return await self.log.publish(event)

    async def until_healthy(self, *, healthy: bool = True) -> None:
        with anyio.fail_after(SOON_SECONDS):
            while self.log.healthy is not healthy:  # noqa: ASYNC110  # health sets no event
                await anyio.sleep(POLL_SECONDS)


@asynccontextmanager
async def redis_worker(
    url: str,
    prefix: str = "test",
    *,
    keep: Retention = DEFAULT_RETENTION,
    backlog_events: int = 10_000,
    backlog_bytes: int = 1 << 25,
) -> AsyncIterator[RedisWorker]:
    async with (
        ClusterTopology(url, prefix=prefix) as topology,
        RedisEventLog(topology, keep, backlog_events=backlog_events, backlog_bytes=backlog_bytes) as log,
    ):
        worker = RedisWorker(topology, log)
        await worker.until_healthy()
        yield worker


def event_with(
    text: object = "hm",
    *,
    thread_id: ThreadId = THREAD,
    run_id: RunId = RUN,
    type: EventType = EventType.AGENT_THINKING,  # noqa: A002  # the field's name on the wire
) -> AgentEvent:
    """Build an event that the test identifies by its text."""
    return emitted(type, run_id=run_id, payload={"text": text}, thread_id=thread_id)


async def publish(worker: RedisWorker, *texts: object, thread_id: ThreadId = THREAD) -> list[Receipt]:
    """Publish events one by one to a server that replies, and wait for each receipt, however busy the machine is.

    Raises TimeoutError if the server does not reply.
    """
    return await _publish(worker, texts, thread_id, 2 * SOON_SECONDS)


async def publish_and_wait(worker: RedisWorker, *texts: object, thread_id: ThreadId = THREAD) -> list[Receipt]:
    """Publish events one by one, and wait for each receipt as an agent does.

    Raises TimeoutError if one does not arrive.
    """
    return await _publish(worker, texts, thread_id, ANSWER_TIMEOUT_SECONDS)


async def _publish(
    worker: RedisWorker, texts: tuple[object, ...], thread_id: ThreadId, answer_seconds: float
) -> list[Receipt]:
    with pytest.MonkeyPatch.context() as patch, anyio.fail_after(SOON_SECONDS):
        patch.setattr(log, "ANSWER_TIMEOUT_SECONDS", answer_seconds)
        return [await worker.publish(event_with(text, thread_id=thread_id)) for text in texts]


@asynccontextmanager
async def through_proxy(server: RedisServer) -> AsyncIterator[tuple[Proxy, RedisWorker]]:
    """A worker that connects through a proxy, so that a test can disturb its connections."""
    async with proxy("127.0.0.1", server.port) as through, redis_worker(through.url("redis")) as worker:
        yield through, worker


async def until_server_replies(server: RedisServer, command: tuple[str, ...], reply: str) -> None:
    """Wait until the server gives this reply on a separate connection."""
    with anyio.fail_after(SOON_SECONDS):
        while await server.ask(*command) != reply:  # noqa: ASYNC110  # a server sets no event
            await anyio.sleep(POLL_SECONDS)
