"""Workers that share a Redis store, with sinks that note what they are given."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest

from bridgekit.events import AgentEvent, Draft, EventType, Frame, Receipt, draft
from bridgekit.ids import RunId, ThreadId
from bridgekit.storage.redis import Servers
from bridgekit.transport.broker.redis import ANSWER_SECONDS, RedisBroker
from bridgekit.transport.log import HISTORY, Keep, redis
from bridgekit_verify.faults.proxy import Proxy, proxy
from bridgekit_verify.faults.redis_servers import RedisServer
from tests.patience import PATIENCE_SECONDS
from tests.samples import RUN, THREAD

SOON_SECONDS = PATIENCE_SECONDS


class Noting:
    """A sink that keeps what it is given, and can be waited for."""

    def __init__(self) -> None:
        self.frames: dict[ThreadId, list[Frame]] = defaultdict(list)
        self.restarts: list[ThreadId] = []
        self._news = anyio.Event()

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        self.frames[thread_id].append(frame)
        self._ring()
        return 1

    def restart(self, thread_id: ThreadId) -> None:
        self.restarts.append(thread_id)
        self._ring()

    def numbers(self, thread_id: ThreadId = THREAD) -> list[int]:
        return [frame.seq for frame in self.frames[thread_id]]

    def texts(self, thread_id: ThreadId = THREAD) -> list[object]:
        return [frame.event.payload["text"] for frame in self.frames[thread_id]]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something is so, looking whenever there is news. TimeoutError where it does not come to be."""
        with anyio.fail_after(SOON_SECONDS):
            while not holds():
                self._news = anyio.Event()
                await self._news.wait()

    async def until_delivered(self, count: int, thread_id: ThreadId = THREAD) -> None:
        await self.until(lambda: len(self.frames[thread_id]) >= count)

    def _ring(self) -> None:
        self._news.set()


class RedisWorker:
    """A broker, what it is connected by, and its sink."""

    def __init__(self, servers: Servers, broker: RedisBroker) -> None:
        self.servers = servers
        self.broker = broker
        self.sink = Noting()
        broker.bind(self.sink)

    async def until_healthy(self, *, healthy: bool = True) -> None:
        with anyio.fail_after(SOON_SECONDS):
            while self.broker.healthy is not healthy:  # noqa: ASYNC110  # health is a question, not an event
                await anyio.sleep(0.005)


@asynccontextmanager
async def redis_worker(
    url: str, prefix: str = "test", *, keep: Keep = HISTORY, backlog_events: int = 10_000, backlog_bytes: int = 1 << 25
) -> AsyncIterator[RedisWorker]:
    async with (
        Servers(url, prefix=prefix) as servers,
        RedisBroker(servers, keep, backlog_events=backlog_events, backlog_bytes=backlog_bytes) as broker,
    ):
        worker = RedisWorker(servers, broker)
        await worker.until_healthy()
        yield worker


def said(
    text: object = "hm",
    *,
    thread_id: ThreadId = THREAD,
    run_id: RunId = RUN,
    type: EventType = EventType.AGENT_THINKING,  # noqa: A002  # the wire's own word
) -> Draft:
    """An event with a text to know it by."""
    return draft(AgentEvent(type=type, run_id=run_id, agent_name="researcher", payload={"text": text}), thread_id)


async def publish(worker: RedisWorker, *texts: object, thread_id: ThreadId = THREAD) -> list[Receipt]:
    """Publish one after the other to a server that is well: its answers are waited for, however busy the machine is.

    TimeoutError where somebody waits for a server that does not answer.
    """
    return await _publish(worker, texts, thread_id, 2 * SOON_SECONDS)


async def publish_and_wait(worker: RedisWorker, *texts: object, thread_id: ThreadId = THREAD) -> list[Receipt]:
    """Publish one after the other, and wait as long as the broker does. TimeoutError where that does not end."""
    return await _publish(worker, texts, thread_id, ANSWER_SECONDS)


async def _publish(
    worker: RedisWorker, texts: tuple[object, ...], thread_id: ThreadId, answer_seconds: float
) -> list[Receipt]:
    with pytest.MonkeyPatch.context() as patch, anyio.fail_after(SOON_SECONDS):
        patch.setattr(redis, "ANSWER_SECONDS", answer_seconds)
        return [await worker.broker.publish(said(text, thread_id=thread_id)) for text in texts]


@asynccontextmanager
async def through_proxy(server: RedisServer) -> AsyncIterator[tuple[Proxy, RedisWorker]]:
    """A worker whose way to the server can be spoilt."""
    async with proxy("127.0.0.1", server.port) as through, redis_worker(through.url("redis")) as worker:
        yield through, worker


async def until_it_says(server: RedisServer, question: tuple[str, ...], answer: str) -> None:
    """Wait until the server, asked by another way, says so."""
    with anyio.fail_after(SOON_SECONDS):
        while await server.ask(*question) != answer:  # noqa: ASYNC110  # a server rings nobody
            await anyio.sleep(0.005)
