"""What an authorizer gets of a client's request: the same headers, cookies and query on every edge."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import pytest
from starlette.exceptions import HTTPException

from bridgekit.chain.link_1_startup import BridgeConfig, create_app
from bridgekit.errors import Disconnected, InvalidId, StoreUnavailable, SubscriptionRefused, ThreadNotOwned
from bridgekit.ids import ThreadId
from bridgekit.transport import connections, native
from bridgekit.transport.authorization import (
    NO_SUCH_THREAD,
    PROTOCOL,
    TICKET_PROTOCOL,
    Handshake,
    Subscription,
    ThreadOwners,
    authorize_owner,
    parse_handshake,
)
from bridgekit.transport.client import connect, on_trio
from bridgekit.transport.resuming_client import subscribe
from tests.factories import ALICE, BOB, THREAD, emitted
from tests.transport.edges import anyio_backend, serving  # noqa: F401  # a fixture

SESSIONS = {"s-alice": ALICE, "s-bob": BOB}


class Sessions:
    """Authorizes by a cookie, or by a header that a client other than a browser can send. Records each handshake."""

    def __init__(self, threads: ThreadOwners, used_tickets: object, *, seen: list[Handshake]) -> None:
        self._threads = threads
        self._seen = seen

    def awaits_message(self, handshake: Handshake) -> bool:
        return False

    async def authorize(self, handshake: Handshake) -> Subscription:
        self._seen.append(handshake)
        session = handshake.cookies.get("session") or handshake.headers.get("authorization", "").removeprefix("Bearer ")
        if session not in SESSIONS:
            raise SubscriptionRefused(4501, "log in first")
        return await authorize_owner(self._threads, Subscription(SESSIONS[session], THREAD))


def config(seen: list[Handshake]) -> BridgeConfig:
    return BridgeConfig(agents={}, authorizer=partial(Sessions, seen=seen))


CREDENTIALS: dict[str, tuple[dict[str, str], int | None]] = {
    "cookie": ({"Cookie": "theme=dark; session=s-alice"}, None),
    "quoted cookie": ({"cookie": 'session="s-alice"'}, None),
    "header": ({"AUTHORIZATION": "Bearer s-alice"}, None),
    "another user's cookie": ({"Cookie": "session=s-bob"}, 4503),
    "cookie with escapes, as Starlette sets it": ({"cookie": 'session="\\163-alice"'}, None),
    "cookie with spaces": ({"cookie": "theme=dark ; session = s-alice"}, None),
    "unknown session": ({"Cookie": "session=s-mallory"}, 4501),
    "empty cookie": ({"Cookie": ""}, 4501),
    "value that is not ASCII": ({"Cookie": "session=s-älice"}, 4501),
    "cookie without a name": ({"Cookie": "s-alice"}, 4501),
    "none": ({}, 4501),
    "cookie sent by a page of another site": ({"Cookie": "session=s-alice", "Origin": "https://evil.example"}, 4504),
}


@pytest.mark.parametrize(("headers", "code"), CREDENTIALS.values(), ids=CREDENTIALS)
async def test_session_opens_the_sockets_of_its_user_only(headers: Mapping[str, str], code: int | None) -> None:
    seen: list[Handshake] = []
    app = create_app(config(seen))
    async with serving(app) as url:
        await app.state.bridgekit.open_thread(THREAD, ALICE)
        if code is None:
            async with connect(url, thread_id=THREAD, headers=headers) as client:
                await app.state.bridgekit.bridge.notify(emitted())
                assert (await client.receive()).seq == 1
        else:
            with pytest.raises(SubscriptionRefused) as refused:
                async with connect(url, thread_id=THREAD, headers=headers):
                    raise AssertionError("was subscribed")
            assert refused.value.code == code
    assert len(seen) == (code != 4504), "the origin is checked before credentials that a browser sends by itself"
    for handshake in seen:
        sent = {name.lower(): value for name, value in headers.items()}
        assert {name: handshake.headers[name] for name in sent} == sent
        assert handshake.query == {"thread_id": THREAD}
        assert handshake.host == handshake.headers["host"]
        assert "s-alice" not in repr(handshake)


class Mistaken:
    """An authorizer of an application that makes a mistake, or reports a refusal in another way than bridgekit's."""

    def __init__(self, threads: ThreadOwners, used_tickets: object, *, answer: object, awaits: object = False) -> None:
        self._answer, self._awaits = answer, awaits

    def awaits_message(self, handshake: Handshake) -> bool:
        return self._result(self._awaits)  # type: ignore[no-any-return]

    async def authorize(self, handshake: Handshake) -> Subscription:
        return self._result(self._answer)  # type: ignore[no-any-return]

    @staticmethod
    def _result(answer: Any) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Synchronous(Mistaken):
    def authorize(self, handshake: Handshake) -> Subscription:  # type: ignore[override]  # the mistake
        return Subscription(ALICE, THREAD)


class ServiceError(Exception):
    """An error of a client library: the status is that of a service, for the application's own key."""

    status_code = 401


class Unprintable(HTTPException):
    """Fails when it is formatted."""

    def __str__(self) -> str:
        raise SystemExit

    __repr__ = __str__


class Panic(BaseException):
    """An exception of a library that is no Exception."""


FAILED = (4009, "authorization failed: connect again")
ANSWERS: dict[str, tuple[object, tuple[int, str]]] = {
    "HTTPException 401": (HTTPException(401), (4501, "401: Unauthorized")),
    "HTTPException 403": (HTTPException(403, "not yours"), (4503, NO_SUCH_THREAD)),
    "HTTPException 404": (HTTPException(404), (4503, NO_SUCH_THREAD)),
    "HTTPException 400": (HTTPException(400), (4500, "400: Bad Request")),
    "HTTPException 429": (HTTPException(429), FAILED),
    "status of a service": (ServiceError("bad key sk-123"), FAILED),
    "HTTPException 500": (HTTPException(500), FAILED),
    "an owner": (ThreadNotOwned("t", "u"), (4503, NO_SUCH_THREAD)),
    "an id": (InvalidId("user_id", "must not be empty"), (4500, "user_id: must not be empty")),
    "a store": (StoreUnavailable("threads", "is locked"), (4009, "the store is unavailable: connect again")),
    "a group": (ExceptionGroup("several", [SubscriptionRefused(4503, "no")]), FAILED),
    "any error": (KeyError("session"), FAILED),
    "SystemExit": (SystemExit(1), FAILED),
    "KeyboardInterrupt": (KeyboardInterrupt(), FAILED),
    "a cancellation that nothing requested": (asyncio.CancelledError(), FAILED),
    "GeneratorExit of no generator": (BaseExceptionGroup("several", [GeneratorExit()]), FAILED),
    "a group with SystemExit": (BaseExceptionGroup("several", [SystemExit(1), KeyError("a")]), FAILED),
    "a panic": (Panic("in Rust"), FAILED),
    "an error whose str fails": (Unprintable(401), FAILED),
    "its own timeout": (TimeoutError("of the session service"), (4009, "the store is unavailable: connect again")),
    "a request to connect again": (Disconnected(4010, "busy"), (4010, "busy")),
    "a request with another code": (Disconnected(1012, "busy"), FAILED),
    "a code that no close frame may have": (SubscriptionRefused(70_000, "no"), FAILED),
    "a code of HTTP": (SubscriptionRefused(403, "no"), FAILED),
    "a reason that UTF-8 cannot encode": (SubscriptionRefused(4501, "\ud800"), (4501, "?")),
    "nothing": (None, FAILED),
    "a bool": (True, FAILED),
    "a tuple": ((ALICE, THREAD), FAILED),
    "no user": (Subscription(None, THREAD), (4500, "user_id: must be a string, not NoneType")),  # type: ignore[arg-type]
    "an empty thread": (Subscription(ALICE, ThreadId("")), (4500, "thread_id: must not be empty")),
}
"""What an authorizer raises or returns, and the close frame that the client gets."""


@pytest.mark.parametrize(("answer", "closed"), ANSWERS.values(), ids=ANSWERS)
async def test_mistake_of_an_authorizer_is_a_close_code(
    answer: object, closed: tuple[int, str], caplog: pytest.LogCaptureFixture
) -> None:
    await assert_closed(partial(Mistaken, answer=answer), closed)
    logged = [record.name for record in caplog.records if record.levelno >= logging.WARNING]
    failed = closed == FAILED or isinstance(answer, TimeoutError)
    assert logged == (["bridgekit.transport.connections"] * 2 if failed else []), caplog.text


async def test_future_that_was_cancelled_does_not_cancel_the_handshake() -> None:
    """Another task cancelled what the authorizer awaits."""

    class Awaiting(Mistaken):
        async def authorize(self, handshake: Handshake) -> Subscription:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            return await future  # type: ignore[no-any-return]

    if not on_trio():
        await assert_closed(partial(Awaiting, answer=None), FAILED)


async def test_authorizer_that_takes_too_long_is_a_close_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handshake of the native edge is limited too. The limit of the authorization must apply first."""

    class Hanging(Mistaken):
        async def authorize(self, handshake: Handshake) -> Subscription:
            await anyio.sleep_forever()
            raise AssertionError

    assert native.OPEN_TIMEOUT_SECONDS > connections.AUTHORIZE_TIMEOUT_SECONDS
    monkeypatch.setattr(connections, "AUTHORIZE_TIMEOUT_SECONDS", 0.05)
    await assert_closed(partial(Hanging, answer=None), (4009, "the store is unavailable: connect again"))


@pytest.mark.parametrize(
    "authorizer",
    [
        partial(Synchronous, answer=None),
        *(partial(Mistaken, answer=None, awaits=error) for error in (ValueError("no session"), SystemExit(1))),
        partial(Mistaken, answer=None, awaits=None),
    ],
    ids=["synchronous", "awaits_message raises", "awaits_message exits", "awaits_message returns no bool"],
)
async def test_authorizer_that_cannot_be_called_is_a_close_code(authorizer: Any) -> None:
    await assert_closed(authorizer, FAILED)


async def assert_closed(authorizer: Any, closed: tuple[int, str]) -> None:
    app = create_app(BridgeConfig(agents={}, authorizer=authorizer))
    async with serving(app) as url:
        with pytest.raises((SubscriptionRefused, Disconnected)) as error:
            async with connect(url, thread_id=THREAD):
                raise AssertionError("was subscribed")
        with suppress(SubscriptionRefused, Disconnected):  # the server goes on
            async with connect(url, thread_id=THREAD):
                raise AssertionError("was subscribed")
    assert (error.value.code, error.value.reason) == closed  # type: ignore[attr-defined]  # both have them


async def test_client_that_reconnects_sends_its_headers_again() -> None:
    seen: list[Handshake] = []
    app = create_app(config(seen))
    async with serving(app) as url:
        await app.state.bridgekit.open_thread(THREAD, ALICE)
        async with subscribe(url, thread_id=THREAD, headers={"Cookie": "session=s-alice"}) as events:
            await app.state.bridgekit.bridge.notify(emitted())
            assert (await anext(events)).seq == 1  # type: ignore[union-attr]  # an event, and no gap
            app.state.bridgekit.bridge.hub.force_reconnect(THREAD)
            while events.subscriptions < 2:
                await app.state.bridgekit.bridge.notify(emitted())
                await anext(events)
    assert [handshake.cookies for handshake in seen] == [{"session": "s-alice"}] * 2


@pytest.mark.parametrize(
    ("lines", "name", "value"),
    [
        ([("Cookie", "a=1"), ("cookie", "b=2")], "cookie", "a=1; b=2"),
        ([("X-Forwarded-For", "10.0.0.1"), ("x-forwarded-for", "10.0.0.2")], "x-forwarded-for", "10.0.0.1, 10.0.0.2"),
        ([("Origin", "http://a"), ("Origin", "http://b")], "origin", "http://a, http://b"),
    ],
)
def test_repeated_header_is_joined(lines: list[tuple[str, str]], name: str, value: str) -> None:
    assert parse_handshake("", lines, secure=False).headers == {name: value}


def test_handshake_without_headers_has_no_credentials() -> None:
    handshake = parse_handshake("a=1&b=", [], secure=True)
    assert (handshake.query, handshake.cookies, handshake.headers) == ({"a": "1", "b": ""}, {}, {})
    assert (handshake.origin, handshake.host, handshake.protocol, handshake.offered_ticket) == (None, None, None, None)


@pytest.mark.parametrize("lines", [1, 2])
def test_ticket_is_found_in_the_lines_of_its_header(lines: int) -> None:
    offered = [PROTOCOL, f"{TICKET_PROTOCOL}secret"]
    values = [", ".join(offered)] if lines == 1 else offered
    handshake = parse_handshake("", [("Sec-WebSocket-Protocol", value) for value in values], secure=False)
    assert (handshake.protocol, handshake.offered_ticket) == (PROTOCOL, "secret")
    assert "secret" not in repr(handshake)
