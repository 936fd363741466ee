"""How a client sends its ticket, and what happens if it sends none. On both backends."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from bridgekit.ids import ThreadId, UserId
from bridgekit.transport.authorization import PROTOCOL, TICKET_PROTOCOL, Handshake, Subscription
from bridgekit.transport.connections import INCOMING_BYTES
from tests.factories import ALICE, BOB, OTHER, THREAD
from tests.transport.fake_browser import Browser, Site


@pytest.fixture
async def ticketed(site: Site) -> Site:
    """A site that requires tickets."""
    site.edge.authorizer = site.tickets
    return site


def with_ticket(site: Site, user: UserId = ALICE, thread: ThreadId = THREAD, **choices: Any) -> Browser:
    ticket = site.tickets.issue(user, thread)
    return Browser(site.app, protocols=[PROTOCOL, TICKET_PROTOCOL + ticket], **choices)


def first_message(ticket: str) -> str:
    return json.dumps({"type": "authorise", "ticket": ticket})


async def test_ticket_in_a_subprotocol_is_checked_before_the_socket_is_accepted(ticketed: Site) -> None:
    browser = with_ticket(ticketed)
    async with ticketed.open(browser):
        await ticketed.publish(2)
    assert browser.messages[0] == {"type": "websocket.accept", "subprotocol": PROTOCOL, "headers": []}
    assert (browser.confirmation["thread_id"], browser.seqs) == (THREAD, [1, 2])


async def test_answer_names_the_protocol_and_never_the_ticket(ticketed: Site) -> None:
    ticket = ticketed.tickets.issue(ALICE, THREAD)
    browser = Browser(ticketed.app, protocols=[TICKET_PROTOCOL + ticket])
    async with ticketed.open(browser):
        pass
    assert browser.messages[0]["subprotocol"] is None
    assert ticket not in str(browser.messages)


@pytest.mark.parametrize("as_bytes", [False, True])
async def test_ticket_in_the_first_message_opens_the_socket(ticketed: Site, as_bytes: bool) -> None:
    message = first_message(ticketed.tickets.issue(ALICE, THREAD))
    browser = Browser(ticketed.app, sends=[message.encode() if as_bytes else message, "and more"])
    async with ticketed.open(browser):
        await ticketed.publish(1)
    assert [message["type"] for message in browser.messages] == ["websocket.accept", *["websocket.send"] * 2]
    assert browser.seqs == [1]


async def test_cursor_in_the_query_works_with_a_ticket_in_the_first_message(ticketed: Site) -> None:
    [seen, *_] = await ticketed.publish(3)
    message = first_message(ticketed.tickets.issue(ALICE, THREAD))
    browser = Browser(ticketed.app, sends=[message], epoch=str(seen.epoch), seq="1")
    async with ticketed.open(browser):
        pass
    assert browser.seqs == [2, 3]


NO_TICKETS = {
    "nothing": "",
    "no JSON": "hello?",
    "no text": b"\xff\x00",
    "another message": json.dumps({"type": "hello", "ticket": "x"}),
    "no ticket": json.dumps({"type": "authorise"}),
    "deeply nested": '{"type": "authorise", "ticket": "x", "a": ' + "[" * 4_000,
    "a ticket that is none": json.dumps({"type": "authorise", "ticket": 7}),
    "garbage": first_message("garbage"),
    "deep": "[" * 10_000,
}


@pytest.mark.parametrize("message", NO_TICKETS.values(), ids=NO_TICKETS)
async def test_first_message_without_a_ticket_gets_a_terminal_close_code(ticketed: Site, message: str | bytes) -> None:
    browser = Browser(ticketed.app, sends=[message])
    await browser.run()
    assert browser.close is not None
    assert (browser.close[0], len(browser.messages)) == (4501, 2)
    assert ticketed.counters.refused == {4501: 1}


async def test_first_message_that_is_too_long_is_refused(ticketed: Site) -> None:
    browser = Browser(ticketed.app, sends=["x" * (INCOMING_BYTES + 1)])
    await browser.run()
    assert browser.close == (4501, "the first message is longer than 16,384 bytes")


async def test_socket_without_a_first_message_gets_no_event_and_is_closed_in_time(
    ticketed: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridgekit.transport.connections.FIRST_MESSAGE_TIMEOUT_SECONDS", 0.02)
    browser = Browser(ticketed.app, user_id=ALICE, thread_id=THREAD)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(browser.run)
        while not browser.messages:
            await anyio.lowlevel.checkpoint()
        assert len(ticketed.hub) == 0
        assert [receipt.sockets for receipt in await ticketed.publish(2)] == [0, 0]
    assert [message["type"] for message in browser.messages] == ["websocket.accept", "websocket.close"]
    assert browser.close == (4501, "no ticket within 0.02 s")


async def test_socket_that_leaves_before_its_first_message_is_not_counted_as_refused(ticketed: Site) -> None:
    browser = Browser(ticketed.app)
    async with ticketed.open(browser):
        pass
    assert ([message["type"] for message in browser.messages], ticketed.counters.refused) == (["websocket.accept"], {})
    assert not ticketed.edge._unauthenticated


async def test_longest_waiting_socket_is_closed_when_too_many_await_authorization(
    ticketed: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridgekit.transport.connections.MAX_UNAUTHENTICATED", 2)
    browsers = [Browser(ticketed.app) for _ in range(4)]
    async with anyio.create_task_group() as tasks:
        for browser in browsers:
            tasks.start_soon(browser.run)
            await anyio.wait_all_tasks_blocked()
        busy = (4010, "too many sockets await authorization: connect again")
        assert [browser.close for browser in browsers] == [busy, busy, None, None]
        authorized = Browser(ticketed.app, sends=[first_message(ticketed.tickets.issue(ALICE, THREAD))])
        async with ticketed.open(authorized, with_ticket(ticketed)):
            assert len(ticketed.hub) == 2
        for browser in browsers:
            browser.leave()
    assert ticketed.counters.refused == {4010: 3}


async def test_sockets_without_a_first_message_are_closed_at_once_when_the_server_stops_accepting(
    ticketed: Site,
) -> None:
    browser = Browser(ticketed.app)
    async with ticketed.open(browser):
        ticketed.edge.stop_accepting()
    assert browser.close == (4000, "the server is shutting down: connect again")


async def test_server_that_stopped_accepting_refuses_sockets_and_uses_no_ticket(ticketed: Site) -> None:
    """The ticket of the refused socket stays unused."""
    ticketed.edge.stop_accepting()
    browser = with_ticket(ticketed)
    await browser.run()
    assert browser.close == (4000, "the server is shutting down: connect again")
    assert len(ticketed.used_tickets) == 0


async def test_authorized_socket_is_refused_when_the_server_stops_accepting(ticketed: Site) -> None:
    stop_accepting = ticketed.edge.stop_accepting

    class Slow:
        def awaits_message(self, handshake: Handshake) -> bool:
            return False

        async def authorize(self, handshake: Handshake) -> Subscription:
            stop_accepting()
            return Subscription(ALICE, THREAD)

    ticketed.edge.authorizer = Slow()
    browser = Browser(ticketed.app)
    await browser.run()
    assert browser.close == (4000, "the server is shutting down: connect again")


async def test_client_is_asked_to_reconnect_when_authorization_times_out(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asleep:
        def awaits_message(self, handshake: Handshake) -> bool:
            return False

        async def authorize(self, handshake: Handshake) -> Subscription:
            await anyio.sleep_forever()
            raise AssertionError

    monkeypatch.setattr("bridgekit.transport.connections.AUTHORIZE_TIMEOUT_SECONDS", 0.01)
    site.edge.authorizer = Asleep()
    browser = Browser(site.app)
    await browser.run()
    assert browser.close == (4009, "the store is unavailable: connect again")


@pytest.mark.parametrize("query", [{"thread_id": OTHER}, {"user_id": BOB}])
async def test_query_that_contradicts_the_ticket_is_refused(ticketed: Site, query: dict[str, str]) -> None:
    browser = with_ticket(ticketed, ALICE, THREAD, **query)
    await browser.run()
    assert browser.close is not None
    assert (browser.close[0], len(browser.messages)) == (4503, 2)


async def test_reused_ticket_is_refused_and_its_first_socket_stays_open(ticketed: Site) -> None:
    ticket = ticketed.tickets.issue(ALICE, THREAD)
    first, second = (Browser(ticketed.app, protocols=[PROTOCOL, TICKET_PROTOCOL + ticket]) for _ in range(2))
    async with ticketed.open(first):
        await second.run()
        await ticketed.publish()
    assert second.close == (4505, "the ticket was used before; request a new one")
    assert first.seqs == [1]


async def test_refusals_are_counted_by_close_code_only(ticketed: Site) -> None:
    await Browser(ticketed.app, protocols=[PROTOCOL, TICKET_PROTOCOL + "garbage"], user_id="mallory").run()
    await with_ticket(ticketed, thread=OTHER).run()
    assert ticketed.counters.refused == {4501: 1, 4503: 1}
