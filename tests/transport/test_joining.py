"""The join race, made on purpose: an event at every moment of a socket's joining. On both backends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from bridgekit.errors import StoreUnavailable
from bridgekit.events import EventType
from bridgekit.ids import ThreadId
from bridgekit.signals import Cursor
from bridgekit.transport.log import MemoryEventLog, Replay
from bridgekit.transport.outbox import OUTBOX_LIMITS, OutboxLimits
from tests.factories import THREAD
from tests.transport.fake_browser import TIMEOUT_SECONDS, Browser, Site


class SlowBroker(MemoryEventLog):
    """A log that takes its time to answer: before it has looked, and after."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = anyio.Event()
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
        await self.looks.wait()
        replay = await super().replay(thread_id, after)
        await self.answers.wait()
        if self.fails:
            raise StoreUnavailable("memory", "it thinks no more")
        return replay


class Joining:
    """A socket that has read 3 of 5 events and joins again, step by step. It takes nothing until it is let."""

    def __init__(self, site: Site, broker: SlowBroker, browser: Browser) -> None:
        self.site = site
        self.broker = broker
        self.browser = browser

    async def until_asked(self) -> None:
        """The log was asked, and has not looked yet: what comes now is put to the socket, and in the replay too."""
        await anyio.wait_all_tasks_blocked()
        assert len(self.site.hub) == 1

    async def until_looked(self) -> None:
        """The log has looked, and not answered yet: what comes now is put to the socket alone."""
        self.broker.looks.set()
        await anyio.wait_all_tasks_blocked()

    async def until_answered(self) -> None:
        """The replay is there, and the socket is not accepted yet."""
        self.broker.looks.set()
        self.broker.answers.set()
        await anyio.wait_all_tasks_blocked()
        assert self.browser.messages == []

    async def until_one_was_written(self) -> None:
        """The first frame of the replay was written, after the accept and the confirmation, and no other."""
        await self.until_answered()
        self.browser.read_on(3)
        await anyio.wait_all_tasks_blocked()
        assert self.browser.seqs == [4]

    async def until_subscribed(self) -> None:
        await self.until_answered()
        self.browser.read_on()
        await anyio.wait_all_tasks_blocked()


@asynccontextmanager
async def joining(limits: OutboxLimits | None = None) -> AsyncIterator[Joining]:
    broker = SlowBroker()
    site = Site(broker=broker)
    if limits is not None:
        site.edge.scheduler.limits = limits
    await site.open_threads()
    [*_, last] = await site.publish(5)
    browser = site.resuming(last, seq=3, slow_at="*")
    browser.stop_reading()
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with site.edge, anyio.create_task_group() as tasks:
            tasks.start_soon(browser.stay)
            yield Joining(site, broker, browser)
            browser.leave()


async def test_event_before_it_joins_is_in_the_replay() -> None:
    async with joining() as each:
        await each.site.publish(2)
        await each.until_subscribed()
    assert (each.browser.confirmation["seq"], each.browser.seqs) == (3, [4, 5, 6, 7])


async def test_event_while_the_log_is_asked_is_read_once_though_it_comes_both_ways() -> None:
    async with joining() as each:
        await each.until_asked()
        assert [receipt.sockets for receipt in await each.site.publish(2)] == [1, 1]
        await each.until_subscribed()
    assert each.browser.seqs == [4, 5, 6, 7]


async def test_event_between_the_log_s_look_and_its_answer_follows_the_replay() -> None:
    async with joining() as each:
        await each.until_looked()
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
        await each.until_one_was_written()
        await each.site.publish(2)
        each.browser.read_on()
        await anyio.wait_all_tasks_blocked()
    assert each.browser.seqs == [4, 5, 6, 7]


async def test_events_at_every_moment_of_its_joining_are_read_once_and_in_order() -> None:
    async with joining() as each:
        await each.site.publish()
        for moment in (each.until_asked, each.until_looked, each.until_answered):
            await moment()
            await each.site.publish()
        each.browser.read_on(4)
        await anyio.wait_all_tasks_blocked()
        await each.site.publish()
        each.browser.read_on()
        await anyio.wait_all_tasks_blocked()
        await each.site.publish()
        await anyio.wait_all_tasks_blocked()
    assert each.browser.seqs == list(range(4, 12))
    assert each.browser.gaps == []


async def test_bound_holds_while_it_joins_and_its_client_may_come_again() -> None:
    """What is held for it during the replay is no more than at other times."""
    async with joining() as each:
        await each.until_asked()
        receipts = await each.site.publish(OUTBOX_LIMITS.events + 1, type=EventType.TOOL_EXECUTING)
        assert [receipt.sockets for receipt in receipts] == [1] * OUTBOX_LIMITS.events + [0]
        each.browser.read_on()
    assert each.browser.close == (4008, "too slow: connect again")
    assert len(each.browser.messages) == 2
    assert len(each.site.hub) == 0


async def test_what_made_room_while_it_joined_is_told_unless_the_replay_has_it() -> None:
    async with joining(OutboxLimits(events=2)) as each:
        await each.until_asked()
        await each.site.publish(2)
        await each.until_looked()
        await each.site.publish(4)
        await each.until_subscribed()
    assert each.browser.seqs == [4, 5, 6, 7, 10, 11]
    assert each.browser.gaps == [(8, 9, "coalesced")]


async def test_numbering_that_begins_anew_before_the_log_has_answered_has_the_client_come_again() -> None:
    """What it was put belongs to the old numbering, and the replay to the new one: neither may be sent."""
    async with joining() as each:
        await each.until_asked()
        await each.site.publish()
        each.site.hub.restart(THREAD)
        await each.until_answered()
        each.browser.read_on()
    assert each.browser.close == (4001, "the thread's log was lost and restarted: connect again")
    assert len(each.browser.messages) == 2
    assert each.site.counters.refused == {4001: 1}


async def test_server_that_goes_away_before_the_log_has_answered_has_the_client_come_again() -> None:
    async with joining() as each:
        await each.until_asked()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(each.site.edge.close)
            await each.until_answered()
            each.browser.read_on()
    assert each.browser.close == (4000, "the server is shutting down: connect again")
    assert len(each.browser.messages) == 2


async def test_log_that_does_not_answer_leaves_nothing_behind_and_has_the_client_come_again() -> None:
    async with joining() as each:
        each.broker.fails = True
        await each.until_answered()
        each.browser.read_on()
    assert each.browser.close == (4009, "the store is unavailable: connect again")
    assert len(each.site.hub) == 0
    assert each.broker.joins == 0
    assert each.site.counters.refused == {4009: 1}
    assert each.site.counters.subscriptions == {}


async def test_client_that_leaves_while_the_replay_is_written_is_detached() -> None:
    async with joining() as each:
        await each.until_one_was_written()
        each.browser.leave()
        await anyio.wait_all_tasks_blocked()
        assert len(each.site.hub) == 0
