"""Draining an edge: waiting frames are delivered, and every client is asked to reconnect. On both backends."""

from __future__ import annotations

import anyio

from bridgekit.events import Outcome
from tests.factories import ALICE, BOB, OTHER, THREAD
from tests.transport.fake_browser import TIMEOUT_SECONDS, Browser, Site


async def test_drain_delivers_waiting_frames_and_then_asks_clients_to_reconnect(site: Site) -> None:
    async with site.visited((ALICE, THREAD), (BOB, OTHER)) as browsers:
        await site.publish(20)
        await site.publish(10, OTHER)
        await site.edge.drain()
        assert len(site.hub) == 0
    assert [browser.seqs for browser in browsers] == [list(range(1, 21)), list(range(1, 11))]
    assert [browser.close for browser in browsers] == [(4000, "the server is shutting down: connect again")] * 2


async def test_event_during_a_drain_does_not_displace_waiting_frames(site: Site) -> None:
    async with site.visited((ALICE, THREAD)) as [browser], anyio.create_task_group() as tasks:
        browser.stop_reading()
        await site.publish(3)
        tasks.start_soon(site.edge.drain)
        await anyio.wait_all_tasks_blocked()
        [late] = await site.publish()
        assert late.outcome is Outcome.NO_SUBSCRIBER
        browser.resume_reading()
    assert browser.seqs == [1, 2, 3]
    assert browser.close == (4000, "the server is shutting down: connect again")
    assert site.counters.unwritten == {}


async def test_two_concurrent_drains_both_end(site: Site) -> None:
    async with site.visited((ALICE, THREAD)) as [browser], anyio.create_task_group() as tasks:
        browser.stop_reading()
        await site.publish()
        tasks.start_soon(site.edge.drain)
        tasks.start_soon(site.edge.drain)
        await anyio.wait_all_tasks_blocked()
        browser.resume_reading()
    assert browser.seqs == [1]


async def test_drain_does_not_wait_for_a_client_that_reconnects(site: Site) -> None:
    async with site.visited((ALICE, THREAD)) as [browser]:
        browser.stop_reading()
        await site.publish()
        again = Browser(site.app, user_id=ALICE, thread_id=THREAD)
        async with anyio.create_task_group() as tasks:
            drained = anyio.Event()

            async def drain() -> None:
                await site.edge.drain()
                drained.set()

            tasks.start_soon(drain)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(again.run)
            await anyio.wait_all_tasks_blocked()
            browser.resume_reading()
            await drained.wait()
            assert again.close is None
            again.leave()


async def test_drain_without_sockets_returns_at_once(site: Site) -> None:
    with anyio.fail_after(TIMEOUT_SECONDS):
        await site.edge.drain()


async def test_drain_does_not_poll_while_it_waits(site: Site) -> None:
    async with site.visited((BOB, OTHER), (ALICE, THREAD)) as [quick, slow], anyio.create_task_group() as tasks:
        slow.stop_reading()
        await site.publish()
        tasks.start_soon(site.edge.drain)
        # This returns only when every task is blocked, which a polling drain would prevent.
        await anyio.wait_all_tasks_blocked()
        assert (quick.close is None, slow.close is None) == (False, True)
        slow.resume_reading()


async def test_socket_that_does_not_read_is_aborted_in_time_and_asked_to_reconnect(site: Site) -> None:
    async with site.visited((ALICE, THREAD), (BOB, OTHER)) as [deaf, quick]:
        deaf.stop_reading()
        [seen] = await site.publish()
        await anyio.wait_all_tasks_blocked()
        await site.publish(2)
        await site.edge.drain(seconds=0.05)
        await anyio.wait_all_tasks_blocked()
        assert len(site.hub) == 0
    # 4000 would tell the client that it has every event.
    assert (deaf.seqs, deaf.close) == ([], (4008, "too slow: connect again"))
    assert quick.close == (4000, "the server is shutting down: connect again")
    assert site.counters.unwritten == {"too slow": 3}
    async with site.open(again := site.resuming(seen, seq=0)):
        pass
    assert again.seqs == [1, 2, 3]


async def test_drain_with_a_timeout_of_zero_still_asks_clients_to_reconnect(site: Site) -> None:
    async with site.visited((ALICE, THREAD)) as [browser]:
        site.edge.stop_accepting()
        await site.edge.drain(seconds=0)
        await anyio.wait_all_tasks_blocked()
    assert browser.close == (4000, "the server is shutting down: connect again")


async def test_health_reports_shutdown_and_an_unavailable_store(site: Site) -> None:
    assert site.edge.health == ("ok", 200)
    site.edge.stop_accepting()
    await site.edge.drain()
    assert site.edge.health == ("shutting down", 503)
