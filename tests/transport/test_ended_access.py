"""Open sockets end when their user's access ends: by user, by thread, by ticket key, and after a change of owner."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from bridgekit.errors import InvalidId, WrongEventLoop
from bridgekit.ids import UserId
from bridgekit.transport.authorization import Handshake, Subscription
from tests.factories import ALICE, BOB, OTHER, THREAD
from tests.transport.fake_browser import Browser, Site

ENDED = (4506, "access has ended")
KEY = b"a key of at least thirty-two bytes"

CRITERIA: dict[str, tuple[dict[str, Any], int]] = {
    "user": ({"user_id": ALICE}, 1),
    "thread": ({"thread_id": THREAD}, 1),
    "user and thread": ({"user_id": ALICE, "thread_id": THREAD}, 1),
    "former owner": ({"thread_id": THREAD, "except_user_id": BOB}, 1),
    "present owner": ({"thread_id": THREAD, "except_user_id": ALICE}, 0),
    "another thread of the user": ({"user_id": ALICE, "thread_id": OTHER}, 0),
    "another user": ({"user_id": "mallory"}, 0),
    "key that signed no ticket": ({"ticket_key": KEY}, 0),
}


@pytest.mark.parametrize(("criteria", "count"), CRITERIA.values(), ids=CRITERIA)
async def test_sockets_that_match_are_closed_and_others_stay(site: Site, criteria: dict[str, Any], count: int) -> None:
    alice, bob = site.browser(ALICE, THREAD), site.browser(BOB, OTHER)
    async with site.open(alice, bob):
        assert site.edge.end_access(**criteria) == count
        await site.publish()
        await site.publish(thread_id=OTHER)
    assert (alice.close, alice.seqs) == ((ENDED, []) if count else (None, [1]))
    assert (bob.close, bob.seqs) == (None, [1])
    assert len(site.hub) == 0


async def test_sockets_of_a_ticket_key_are_closed(site: Site) -> None:
    site.edge.authorizer = site.tickets
    offered = ["bridgekit.ticket." + site.tickets.issue(ALICE, THREAD)]
    browser = Browser(site.app, protocols=offered)
    async with site.open(browser):
        assert site.edge.end_access(ticket_key=site.tickets._keys[0]) == 1
    assert browser.close == ENDED


async def test_client_that_reads_nothing_is_closed_and_its_waiting_events_are_discarded(site: Site) -> None:
    browser = site.browser()
    async with site.open(browser):
        browser.stop_reading()
        await site.publish(5)
        assert site.edge.end_access(user_id=ALICE) == 1
        assert [receipt.sockets for receipt in await site.publish()] == [0]
        browser.resume_reading()
    assert browser.close == ENDED
    assert browser.seqs == []


async def test_socket_whose_authorization_was_in_progress_is_authorized_again(site: Site) -> None:
    """Its owner may have been looked up before the change."""

    class Ending:
        def awaits_message(self, handshake: Handshake) -> bool:
            return False

        async def authorize(self, handshake: Handshake) -> Subscription:
            site.edge.end_access(user_id=UserId("somebody"))
            return Subscription(ALICE, THREAD)

    site.edge.authorizer = Ending()
    browser = site.browser()
    await browser.run()
    assert browser.close == (4010, "access was ended meanwhile: connect again")


async def test_call_without_a_criterion_is_refused(site: Site) -> None:
    with pytest.raises(TypeError, match="needs user_id, thread_id or ticket_key"):
        site.edge.end_access(except_user_id=ALICE)


@pytest.mark.parametrize("field", ["user_id", "thread_id", "ticket_key", "except_user_id"])
@pytest.mark.parametrize("value", [7, UUID(int=7), "", " ", "a\x00b", b"", object()], ids=repr)
async def test_criterion_of_another_type_is_refused_before_any_socket_is_closed(
    site: Site, field: str, value: Any
) -> None:
    if field == "ticket_key" and isinstance(value, bytes):
        return
    async with site.visited((ALICE, THREAD)) as [browser]:
        with pytest.raises(InvalidId, match=field.removeprefix("except_")):
            site.edge.end_access(**({"user_id": ALICE, "thread_id": THREAD, field: value}))
        await site.publish()
    assert (browser.close, browser.seqs) == (None, [1])


@pytest.mark.parametrize("elsewhere", ["thread", "loop in a thread"])
@pytest.mark.parametrize("call", ["end_access", "drain", "stop_accepting"])
async def test_call_in_another_thread_is_refused_before_any_socket_is_closed(
    site: Site, call: str, elsewhere: str
) -> None:
    async def closed() -> None:
        if call == "drain":
            await site.edge.drain()
        elif call == "end_access":
            site.edge.end_access(user_id=ALICE)
        else:
            site.edge.stop_accepting()

    def work() -> None:
        if elsewhere == "loop in a thread":
            asyncio.run(closed())
        else:
            closed().send(None)

    async with site.visited(*[(ALICE, THREAD)] * 3) as browsers:
        with pytest.raises(WrongEventLoop, match=f"{call} was called outside .* run_sync for a plain function"):
            await anyio.to_thread.run_sync(work)
        await site.publish()
        assert [browser.close for browser in browsers] == [None] * 3
        await anyio.to_thread.run_sync(anyio.from_thread.run, closed)
        if call != "stop_accepting":
            await anyio.wait_all_tasks_blocked()
    assert [browser.seqs for browser in browsers] == [[1]] * 3
