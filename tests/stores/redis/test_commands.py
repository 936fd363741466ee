"""The cost of a burst, as a count of commands at the server."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest

from bridgekit.ids import ThreadId
from bridgekit.stores.redis import subscriptions
from bridgekit_verify.faults.redis_servers import RedisServer, redis_server
from tests.factories import OTHER, THREAD
from tests.stores.redis.workers import RedisWorker, event_with, publish, redis_worker

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def unproven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave only the first heartbeat, because heartbeats are commands as well."""
    monkeypatch.setattr(subscriptions, "HEARTBEAT_INTERVAL_SECONDS", 60.0)


THREADS = [ThreadId(f"thread_{number}") for number in range(100)]


async def commands(server: RedisServer) -> Counter[str]:
    """Return how often each command was executed since the last call, including those that functions execute."""
    stats = Counter[str]()
    for line in (await server.ask("INFO", "commandstats")).splitlines():
        name, _, rest = line.partition(":calls=")
        if rest:
            stats[name.removeprefix("cmdstat_")] = int(rest.partition(",")[0])
    await server.ask("CONFIG", "RESETSTAT")
    return stats


async def burst(worker: RedisWorker, events: int, threads: list[ThreadId]) -> None:
    """Publish this many events of each thread at once."""
    async with anyio.create_task_group() as tasks:
        for number in range(events):
            for thread in threads:
                tasks.start_soon(worker.publish, event_with(number, thread_id=thread))


@pytest.mark.parametrize(
    ("events", "threads", "most"),
    [(1, 1, 1), (20, 1, 2), (128, 1, 2), (1, 100, 2), (2, 100, 3)],
)
async def test_burst_costs_one_command_per_batch(events: int, threads: int, most: int) -> None:
    async with redis_server() as server, redis_worker(server.url) as worker:
        await publish(worker, "the connection is made")
        await commands(server)
        await burst(worker, events, THREADS[:threads])
        done = await commands(server)
        assert 1 <= done["fcall"] <= most
        # A thread has one batch in flight. Events published meanwhile form the next batch.
        assert done["set"] == done["get"] == done["spublish"] <= most * threads
        assert done["xadd"] == events * threads


async def test_agents_that_wait_for_receipts_share_commands() -> None:
    """A hundred agents in step: each emits its next event when the last is confirmed, so events are sent together."""
    async with redis_server() as server, redis_worker(server.url) as worker:

        async def speak(thread: ThreadId) -> None:
            await publish(worker, *range(10), thread_id=thread)

        await publish(worker, "the way is open")
        await commands(server)
        async with anyio.create_task_group() as tasks:
            for thread in THREADS:
                tasks.start_soon(speak, thread)
        done = await commands(server)
        assert done["xadd"] == 1_000
        # Two commands are in flight, so the agents form two groups that alternate.
        assert done["fcall"] <= 4 * 10


async def test_lone_event_costs_the_server_the_same_after_a_long_history() -> None:
    async with redis_server() as server, redis_worker(server.url) as worker, redis_worker(server.url) as reader:
        await reader.log.join(THREAD)
        await publish(worker, *range(3))
        await commands(server)
        await publish(worker, "lone")
        first = await commands(server)
        await publish(worker, *range(300))
        await commands(server)
        await publish(worker, "lone")
        assert await commands(server) == first


async def test_event_is_sent_only_to_workers_that_joined_its_thread() -> None:
    async with redis_server() as server, redis_worker(server.url) as worker, redis_worker(server.url) as other:
        await other.log.join(OTHER)
        [receipt] = await publish(worker, "for no worker")
        assert receipt.workers == 0
        [receipt] = await publish(worker, "for one", thread_id=OTHER)
        assert receipt.workers == 1
        await other.sink.until_delivered(1, OTHER)
        assert list(other.sink.frames) == [OTHER]
