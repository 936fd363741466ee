"""The ASGI edge, driven by a fake browser that can stop at any message. On both backends."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import anyio
import httpx
import pytest

from bridgekit.errors import SubscriptionRefused
from bridgekit.events import EventType
from bridgekit.transport.authorization import Handshake, Subscription
from bridgekit.transport.outbox import BATCH_FRAMES, OutboxLimits
from tests.factories import ALICE, BOB, OTHER, THREAD
from tests.transport.fake_browser import TIMEOUT_SECONDS, Browser, Site

SMALL_OUTBOX = OutboxLimits(events=512)


async def test_first_frame_confirms_the_subscription_and_its_position(site: Site) -> None:
    await site.publish(3)
    async with site.visited((ALICE, THREAD)) as [browser]:
        await site.publish(2)
        await anyio.wait_all_tasks_blocked()
    assert [message["type"] for message in browser.messages] == ["websocket.accept", *["websocket.send"] * 3]
    assert json.loads(browser.messages[1]["text"]) == {
        "type": "subscribed",
        "thread_id": THREAD,
        "epoch": browser.confirmation["epoch"],
        "seq": 3,
    }
    assert len(browser.confirmation["epoch"]) == 16
    assert browser.seqs == [4, 5]


async def test_socket_gets_only_its_own_thread(site: Site) -> None:
    async with site.visited((ALICE, THREAD), (ALICE, THREAD), (BOB, OTHER)) as browsers:
        assert [receipt.sockets for receipt in await site.publish(2) + await site.publish(1, OTHER)] == [2, 2, 1]
        await anyio.wait_all_tasks_blocked()
    assert [browser.seqs for browser in browsers] == [[1, 2], [1, 2], [1]]
    assert {frame["thread_id"] for frame in browsers[2].frames} == {OTHER}


async def test_event_between_attaching_and_the_first_frame_is_not_lost(site: Site) -> None:
    browser = Browser(site.app, user_id=ALICE, thread_id=THREAD)
    browser.stop_reading()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(browser.run)
        await anyio.wait_all_tasks_blocked()
        assert (await site.publish())[0].sockets == 1
        browser.resume_reading()
        await anyio.wait_all_tasks_blocked()
        browser.leave()
    assert browser.seqs == [1]
    assert (browser.confirmation["type"], browser.confirmation["seq"]) == ("subscribed", 0)


@pytest.mark.parametrize(
    ("query", "code", "reason"),
    [
        ({"user_id": BOB, "thread_id": THREAD}, 4503, "no such thread of this user"),
        ({"user_id": BOB, "thread_id": "thread_nobody"}, 4503, "no such thread of this user"),
        ({}, 4500, "user_id: must be a string, not NoneType"),
        ({"user_id": BOB}, 4500, "thread_id: must be a string, not NoneType"),
        ({"user_id": " ", "thread_id": THREAD}, 4500, "user_id: must not be empty"),
        ({"user_id": BOB, "thread_id": "x" * 1_025}, 4500, "thread_id: must be at most 1,024 bytes, not 1,025"),
    ],
)
async def test_refused_socket_gets_a_terminal_close_code_and_the_reason(
    site: Site, query: dict[str, Any], code: int, reason: str
) -> None:
    browser = Browser(site.app, **query)
    await browser.run()
    assert [message["type"] for message in browser.messages] == ["websocket.accept", "websocket.close"]
    assert browser.close == (code, reason)
    assert len(site.hub) == 0


async def test_slow_socket_is_disconnected_and_others_get_every_frame(site: Site) -> None:
    site.edge.scheduler.limits = SMALL_OUTBOX
    async with site.visited((ALICE, THREAD), (ALICE, THREAD)) as [slow, quick]:
        slow.stop_reading()
        receipts = []
        # One frame is being written, the outbox is at its limit, and the next one exceeds it.
        for count in (1, SMALL_OUTBOX.events // 2, SMALL_OUTBOX.events // 2, 1):
            receipts += await site.publish(count, type=EventType.TOOL_EXECUTING)
            await anyio.wait_all_tasks_blocked()
        assert [receipt.sockets for receipt in receipts] == [2] * (SMALL_OUTBOX.events + 1) + [1]
        assert slow.close == (4008, "too slow: connect again")
        assert slow.seqs == []
        assert len(site.hub) == 1
        await site.publish()
        await anyio.wait_all_tasks_blocked()
    assert quick.seqs == list(range(1, SMALL_OUTBOX.events + 4))
    assert quick.close is None
    assert site.counters.unwritten == {"too slow": SMALL_OUTBOX.events + 1}


async def test_slow_socket_that_cannot_be_closed_delays_no_other(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.edge.scheduler.limits = SMALL_OUTBOX
    monkeypatch.setattr("bridgekit.transport.asgi.CLOSE_TIMEOUT_SECONDS", 0.0)
    slow = site.browser(slow_at="*")
    async with site.open(slow):
        slow.stop_reading()
        await site.publish()
        await anyio.wait_all_tasks_blocked()
        await site.publish(SMALL_OUTBOX.events + 1, type=EventType.TOOL_EXECUTING)
    assert (slow.seqs, slow.close) == ([], None)
    assert len(site.hub) == 0


async def test_socket_is_detached_and_its_unread_frames_are_counted_when_it_leaves(site: Site) -> None:
    async with site.visited((ALICE, THREAD), (ALICE, THREAD)) as [leaving, stays]:
        leaving.stop_reading()
        await site.publish()
        await anyio.wait_all_tasks_blocked()
        await site.publish(4)
        leaving.leave()
        await anyio.wait_all_tasks_blocked()
        assert len(site.hub) == 1
        assert (await site.publish())[0].sockets == 1
        await anyio.wait_all_tasks_blocked()
    assert (leaving.seqs, stays.seqs) == ([], [1, 2, 3, 4, 5, 6])
    assert site.counters.unwritten == {"socket left": 5}


async def test_socket_that_read_everything_has_no_unwritten_frames(site: Site) -> None:
    async with site.visited((ALICE, THREAD)):
        await site.publish(5)
        await anyio.wait_all_tasks_blocked()
    assert site.counters.unwritten == {}


@pytest.mark.parametrize("broken_at", ["websocket.accept", "websocket.send"])
async def test_broken_connection_raises_no_error(site: Site, broken_at: str) -> None:
    browser = Browser(site.app, broken_at=broken_at, user_id=ALICE, thread_id=THREAD)
    with anyio.fail_after(TIMEOUT_SECONDS):
        await browser.run()
    assert len(site.hub) == 0


@pytest.mark.parametrize(
    "raised", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError(), KeyError(1)], ids=repr
)
async def test_middleware_that_raises_ends_only_its_own_socket(site: Site, raised: BaseException) -> None:
    broken = site.browser(broken_at="websocket.send", broken_by=raised)
    async with site.visited((ALICE, THREAD)) as [other]:
        with pytest.raises(type(raised)):
            await broken.run()
        await site.publish(2)
    assert other.seqs == [1, 2]
    assert len(site.hub) == 0


@pytest.mark.parametrize("broken_at", ["websocket.accept", "websocket.close"])
async def test_refused_socket_raises_no_error_when_it_has_already_left(site: Site, broken_at: str) -> None:
    browser = Browser(site.app, broken_at=broken_at, user_id=BOB, thread_id=THREAD)
    await browser.run()
    assert browser.close is None


async def test_slow_socket_raises_no_error_when_it_has_already_left(site: Site) -> None:
    site.edge.scheduler.limits = SMALL_OUTBOX
    browser = site.browser(broken_at="websocket.close")
    async with site.open(browser):
        browser.stop_reading()
        await site.publish(SMALL_OUTBOX.events + BATCH_FRAMES + 1, type=EventType.TOOL_EXECUTING)
    assert site.counters.unwritten == {"too slow": SMALL_OUTBOX.events + BATCH_FRAMES}


async def test_healthz_reports_the_number_of_connections(site: Site) -> None:
    async with site.visited((ALICE, THREAD), (BOB, OTHER)):
        assert (await get(site, "/healthz")).json() == {"status": "ok", "connections": 2, "worker": os.getpid()}
    assert (await get(site, "/healthz")).json() == {"status": "ok", "connections": 0, "worker": os.getpid()}


async def test_long_close_reason_is_truncated_between_characters(site: Site) -> None:
    """RFC 6455 allows 123 bytes, which here would end within a character."""

    class Wordy:
        def awaits_message(self, handshake: Handshake) -> bool:
            return False

        async def authorize(self, handshake: Handshake) -> Subscription:
            raise SubscriptionRefused(4503, "é" * 100)

    site.edge.authorizer = Wordy()
    browser = Browser(site.app)
    await browser.run()
    assert browser.close == (4503, "é" * 61)


async def get(site: Site, path: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(site.app), base_url="http://bridgekit.test") as client:
        answer = await client.get(path)
    assert answer.status_code == 200
    return answer
