"""The join race, provoked: an event at every step of a socket's joining. On both backends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from bridgekit.cursors_and_gaps import Cursor
from bridgekit.errors import StoreUnavailable
from bridgekit.events import EventType
from bridgekit.ids import ThreadId
from bridgekit.transport.log import MemoryEventLog, Replay
from bridgekit.transport.outbox import OutboxLimits
from tests.factories import THREAD
from tests.transport.fake_browser import TIMEOUT_SECONDS, Browser, Site


class SlowLog(MemoryEventLog):
    """A log that pauses before and after it reads a replay."""

    def __init__(self) -> None:
        super().__init__()
        self.may_read = anyio.Event()
        self.answers = anyio.Event()
        self.fails = False
        self.joins = 0

    async def join(self, thread_id: ThreadId) -> None:
        self.joins += 1
        await super().join(thread_id)

    def leave(self, thread_id: ThreadId) -> None:
        self.joins -= 1
        super().leave(thread_id)

    async def replay(self, thread_id: ThreadId, after: Cursor | None) -> Replay:
        await self.may_read.wait()
        replay = await super().replay(thread_id, after)
        await self.answers.wait()
        if self.fails:
            raise StoreUnavailable("memory", "no answer")
        return replay


class Joining:
    """A socket that has read 3 of 5 events and joins again step by step. It accepts messages only when the test allows
    it."""

    def __init__(self, site: Site, log: SlowLog, browser: Browser) -> None:
        self.site = site
        self.log = log
        self.browser = browser

    async def until_asked(self) -> None:
        """Wait until the log is asked but not read: events now are put to the socket and are in the replay."""
        await anyio.wait_all_tasks_blocked()
        assert len(self.site.hub) == 1

    async def until_read(self) -> None:
        """Wait until the log is read but has not answered: events now are only put to the socket."""
        self.log.may_read.set()
        await anyio.wait_all_tasks_blocked()

    async def until_answered(self) -> None:
        """Wait until the replay is available but the socket is not accepted."""
        self.log.may_read.set()
        self.log.answers.set()
        await anyio.wait_all_tasks_blocked()
        assert self.browser.messages == []

    async def until_one_is_written(self) -> None:
        """Wait until the accept, the confirmation and the first frame of the replay are written."""
        await self.until_answered()
        self.browser.resume_reading(3)
        await anyio.wait_all_tasks_blocked()
        assert self.browser.seqs == [4]

    async def until_subscribed(self) -> None:
        await self.until_answered()
        self.browser.resume_reading()
        await anyio.wait_all_tasks_blocked()


@asynccontextmanager
async def joining(limits: OutboxLimits | None = None) -> AsyncIterator[Joining]:
    log = SlowLog()
    site = Site(log=log)
    if limits is not None:
        site.edge.scheduler.limits = limits
    await site.open_threads()
    [*_, last] = await site.publish(5)
    browser = site.resuming(last, seq=3, slow_at="*")
    browser.stop_reading()
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with site.edge, anyio.create_task_group() as tasks:
            tasks.start_soon(browser.run)
            yield Joining(site, log, browser)
            browser.leave()


async def test_event_before_joining_is_in_the_replay() -> None:
    async with joining() as each:
        await each.site.publish(2)
        await each.until_subscribed()
    assert (each.browser.confirmation["seq"], each.browser.seqs) == (3, [4, 5, 6, 7])


async def test_event_before_the_log_is_read_is_received_once() -> None:
    async with joining() as each:
        await each.until_asked()
        assert [receipt.sockets for receipt in await each.site.publish(2)] == [1, 1]
        await each.until_subscribed()
    assert each.browser.seqs == [4, 5, 6, 7]


async def test_event_after_the_log_is_read_follows_the_replay() -> None:
    async with joining() as each:
        await each.until_read()
        await each.site.publish(2)
        await each.until_subscribed()
    assert each.browser.seqs == [4, 5, 6, 7]


async def test_event_between_replay_and_accept_follows_the_replay() -> None:
    async with joining() as each:
        await each.until_answered()
        await each.site.publish(2)
        await each.until_subscribed()
    assert each.browser.seqs == [4, 5, 6, 7]


async def test_event_while_the_replay_is_written_to_a_slow_socket_follows_it() -> None:
    async with joining() as each:
        await each.until_one_is_written()
        await each.site.publish(2)
        each.browser.resume_reading()
        await anyio.wait_all_tasks_blocked()
    assert each.browser.seqs == [4, 5, 6, 7]


async def test_events_at_every_step_of_joining_are_received_once_and_in_order() -> None:
    async with joining() as each:
        await each.site.publish()
        for moment in (each.until_asked, each.until_read, each.until_answered):
            await moment()
            await each.site.publish()
        each.browser.resume_reading(4)
        await anyio.wait_all_tasks_blocked()
        await each.site.publish()
        each.browser.resume_reading()
        await anyio.wait_all_tasks_blocked()
        await each.site.publish()
        await anyio.wait_all_tasks_blocked()
    assert each.browser.seqs == list(range(4, 12))
    assert each.browser.gaps == []


async def test_outbox_limit_applies_during_joining_and_the_client_may_reconnect() -> None:
    """During the replay, the outbox has the same limit as at other times."""
    async with joining(OutboxLimits(events=64)) as each:
        await each.until_asked()
        receipts = await each.site.publish(65, type=EventType.TOOL_EXECUTING)
        assert [receipt.sockets for receipt in receipts] == [1] * 64 + [0]
        each.browser.resume_reading()
    assert each.browser.close == (4008, "too slow: connect again")
    assert len(each.browser.messages) == 2
    assert len(each.site.hub) == 0


async def test_frame_coalesced_during_joining_is_in_a_gap_unless_it_is_in_the_replay() -> None:
    async with joining(OutboxLimits(events=2)) as each:
        await each.until_asked()
        await each.site.publish(2)
        await each.until_read()
        await each.site.publish(4)
        await each.until_subscribed()
    assert each.browser.seqs == [4, 5, 6, 7, 10, 11]
    assert each.browser.gaps == [(8, 9, "coalesced")]


async def test_client_reconnects_when_a_new_epoch_begins_before_the_log_answers() -> None:
    """The waiting frames belong to the old epoch and the replay to the new one, so neither may be sent."""
    async with joining() as each:
        await each.until_asked()
        await each.site.publish()
        each.site.hub.force_reconnect(THREAD)
        await each.until_answered()
        each.browser.resume_reading()
    assert each.browser.close == (4001, "the thread's log was lost and restarted: connect again")
    assert len(each.browser.messages) == 2
    assert each.site.counters.refused == {4001: 1}


async def test_client_reconnects_when_the_server_drains_before_the_log_answers() -> None:
    async with joining() as each:
        await each.until_asked()
        async with anyio.create_task_group() as tasks:
            each.site.edge.stop_accepting()
            tasks.start_soon(each.site.edge.drain)
            await each.until_answered()
            each.browser.resume_reading()
    assert each.browser.close == (4000, "the server is shutting down: connect again")
    assert len(each.browser.messages) == 2


async def test_client_reconnects_and_is_detached_when_the_log_does_not_answer() -> None:
    async with joining() as each:
        each.log.fails = True
        await each.until_answered()
        each.browser.resume_reading()
    assert each.browser.close == (4009, "the store is unavailable: connect again")
    assert len(each.site.hub) == 0
    assert each.log.joins == 0
    assert each.site.counters.refused == {4009: 1}
    assert each.site.counters.subscriptions == {}


async def test_client_is_detached_when_it_leaves_during_the_replay() -> None:
    async with joining() as each:
        await each.until_one_is_written()
        each.browser.leave()
        await anyio.wait_all_tasks_blocked()
        assert len(each.site.hub) == 0
