"""The resuming client against raw servers that misbehave. On both backends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest
from anyio.lowlevel import checkpoint
from websockets.exceptions import InvalidStatus

from bridgekit.cursors_and_gaps import Cursor, Gap, GapReason, encode_signal
from bridgekit.errors import MalformedFrame, SubscriptionRefused
from bridgekit.transport.resuming_client import Backoff, ResumingClient, subscribe
from tests.factories import ALICE, THREAD, frame
from tests.transport.raw_client import (
    EPOCH,
    Answer,
    RawServer,
    hang_up,
    nothing,
    raw_server,
    sending,
    status,
    subscribed,
)

TIMEOUT_SECONDS = 60.0
OTHER_EPOCH = "f" * 16
ONE, TWO, THREE, FOUR = (frame(seq).data for seq in (1, 2, 3, 4))


@dataclass(frozen=True)
class RecordingBackoff(Backoff):
    """A Backoff that does not wait, and records the number of consecutive failures."""

    failures: list[int] = field(default_factory=list)

    def seconds(self, failures: int, random: Callable[[], float]) -> float:
        self.failures.append(failures)
        return 0.0


@asynccontextmanager
async def resuming_client(
    *answers: Answer, after: Cursor | None = None, backoff: Backoff | None = None
) -> AsyncIterator[tuple[ResumingClient, RawServer]]:
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with (
            raw_server(*answers) as server,
            subscribe(
                server.url, thread_id=THREAD, user_id=ALICE, after=after, backoff=backoff or RecordingBackoff()
            ) as client,
        ):
            yield client, server


async def read(client: ResumingClient, count: int) -> list[str]:
    """Return this many items in short form."""
    return [short(await anext(client)) for _ in range(count)]


def short(item: object) -> str:
    return f"{item.first}-{item.last or ''} {item.reason}" if isinstance(item, Gap) else str(getattr(item, "seq", item))


def gap(first: int, last: int | None, reason: GapReason, epoch: str = EPOCH) -> bytes:
    return encode_signal(Gap(thread_id=THREAD, epoch=epoch, first=first, last=last, reason=reason))


def cursors(server: RawServer) -> list[tuple[str, str] | None]:
    """The cursor that the client sent on each socket."""
    asked = [parse_qs(urlsplit(request).query) for request in server.requests]
    return [(query["epoch"][0], query["seq"][0]) if "seq" in query else None for query in asked]


async def test_client_reconnects_with_its_cursor() -> None:
    async with resuming_client(subscribed(ONE, TWO, close=4000), subscribed(THREE, seq=2)) as (client, server):
        assert await read(client, 3) == ["1", "2", "3"]
        assert cursors(server) == [None, (EPOCH, "2")]
        assert client.subscriptions == 2
        assert client.cursor == Cursor(EPOCH, 3)


@pytest.mark.parametrize("tickets", [0, 1])
async def test_ticket_source_that_awaits_something_cancelled_is_an_error_and_no_end(tickets: int) -> None:
    left = iter(["ticket"] * tickets)

    async def ticket() -> str:
        for each in left:
            return each
        raise asyncio.CancelledError

    with anyio.fail_after(TIMEOUT_SECONDS), pytest.raises(RuntimeError, match="`ticket` awaits was cancelled"):
        async with (
            raw_server(subscribed(ONE, close=4000)) as server,
            subscribe(server.url, thread_id=THREAD, ticket=ticket, backoff=RecordingBackoff()) as client,
        ):
            assert [short(item) async for item in client] == ["1"]


async def test_gap_is_an_item_and_a_duplicate_is_not() -> None:
    again = subscribed(gap(3, 8, GapReason.EXPIRED), ONE, TWO, frame(9).data, seq=8)
    async with resuming_client(subscribed(ONE, TWO, close=4008), again) as (client, _):
        assert await read(client, 4) == ["1", "2", "3-8 expired", "9"]
        assert client.duplicates == 2


async def test_gap_that_no_server_reports_is_reported() -> None:
    async with resuming_client(subscribed(ONE, THREE, close=4000), subscribed(frame(9).data, seq=8)) as (client, _):
        assert await read(client, 5) == ["1", "2-2 lost", "3", "4-8 lost", "9"]


async def test_gap_is_not_lost_when_the_socket_breaks_before_sending_it() -> None:
    async with resuming_client(
        subscribed(ONE, TWO, close=4000),
        subscribed(seq=8, close=4008),
        subscribed(gap(3, 9, GapReason.EXPIRED), seq=9),
    ) as (client, server):
        assert await read(client, 3) == ["1", "2", "3-9 expired"]
        assert cursors(server) == [None, (EPOCH, "2"), (EPOCH, "2")]


async def test_new_epoch_is_received_from_its_start() -> None:
    anew = subscribed(gap(3, None, GapReason.RESTARTED), ONE, TWO, epoch=OTHER_EPOCH, close=4000)
    async with resuming_client(subscribed(ONE, TWO, close=4001), anew, subscribed(THREE, seq=2, epoch=OTHER_EPOCH)) as (
        client,
        server,
    ):
        assert await read(client, 6) == ["1", "2", "3- restarted", "1", "2", "3"]
        assert cursors(server) == [None, (EPOCH, "2"), (OTHER_EPOCH, "2")]


async def test_client_resumes_from_a_given_cursor() -> None:
    async with resuming_client(subscribed(THREE, seq=2), after=Cursor(EPOCH, 2)) as (client, server):
        assert client.cursor == Cursor(EPOCH, 2)
        assert await read(client, 1) == ["3"]
        assert cursors(server) == [(EPOCH, "2")]


async def test_cursor_covers_what_the_caller_read_and_not_what_was_read_ahead() -> None:
    async with resuming_client(subscribed(ONE, TWO, THREE, FOUR)) as (client, _):
        assert await read(client, 2) == ["1", "2"]
        for _ in range(50):
            await checkpoint()
        assert client.cursor == Cursor(EPOCH, 2)


@pytest.mark.parametrize(
    "answer",
    [
        hang_up,
        status("500 Internal Server Error"),
        status("503 Service Unavailable"),
        status("429 Too Many Requests"),
        sending(close=4009),
        sending(close=1013),
        sending(close=4499),
    ],
    ids=["hangs up", "500", "503", "429", "store unavailable", "try again later", "4499"],
)
async def test_retryable_errors_are_retried_before_and_after_the_first_socket(answer: Answer) -> None:
    async with resuming_client(answer, answer, subscribed(ONE, close=4000), answer, subscribed(TWO, seq=1)) as (
        client,
        _,
    ):
        assert await read(client, 2) == ["1", "2"]
        assert client.subscriptions == 2


TERMINAL = [
    (sending(close=4503), SubscriptionRefused),
    (sending(close=4999), SubscriptionRefused),
    (sending(close=4502), SubscriptionRefused),
    (status("404 Not Found"), InvalidStatus),
    (status("403 Forbidden"), InvalidStatus),
    (sending(b'{"type":"hello"}'), MalformedFrame),
    (sending(ONE), MalformedFrame),
    (sending(b"\xff"), MalformedFrame),
    (sending(b"x" * 1_100_000), MalformedFrame),
]


@pytest.mark.parametrize(("answer", "error"), TERMINAL)
async def test_other_errors_are_raised_on_entering_the_block(answer: Answer, error: type[Exception]) -> None:
    with pytest.raises(error) as raised:
        async with resuming_client(answer):
            raise AssertionError("was entered")
    assert type(raised.value) is error


@pytest.mark.parametrize(("answer", "error"), TERMINAL)
async def test_later_errors_are_raised_by_iteration_after_the_received_items(
    answer: Answer, error: type[Exception]
) -> None:
    async with resuming_client(subscribed(ONE, TWO, close=4000), answer) as (client, _):
        assert await read(client, 2) == ["1", "2"]
        for _ in range(2):
            with pytest.raises(error):
                await anext(client)
        assert client.cursor == Cursor(EPOCH, 2)


@pytest.mark.parametrize("code", [4501, 4502, 4505])
async def test_rejected_ticket_is_replaced_once(code: int) -> None:
    async def ticket() -> str:
        return "ticket"

    bad, once = sending(close=code), subscribed(ONE, close=4000)
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with (
            raw_server(bad, once, bad, subscribed(TWO, seq=1, close=4000), bad, bad) as server,
            subscribe(server.url, thread_id=THREAD, ticket=ticket, backoff=RecordingBackoff()) as client,
        ):
            assert await read(client, 2) == ["1", "2"]
            with pytest.raises(SubscriptionRefused):
                await anext(client)
            assert len(server.requests) == 6


async def test_handshake_and_confirmation_time_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bridgekit.transport.client.OPEN_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr("bridgekit.transport.client.CLOSE_TIMEOUT_SECONDS", 0.1)
    async with resuming_client(nothing, sending(), subscribed(ONE)) as (client, server):
        assert await read(client, 1) == ["1"]
        assert len(server.requests) == 3


async def test_backoff_doubles_up_to_its_bound_with_full_jitter() -> None:
    backoff = Backoff(first_seconds=0.5, longest_seconds=10)
    assert [backoff.seconds(failures, lambda: 1.0) for failures in range(6)] == [0.5, 1, 2, 4, 8, 10]
    assert backoff.seconds(10**6, lambda: 1.0) == 10
    assert backoff.seconds(3, lambda: 0.0) == 0
    draws = iter((0.25, 0.5, 0.75))
    assert [backoff.seconds(3, lambda: next(draws)) for _ in range(3)] == [1, 2, 3]


async def test_consecutive_failures_are_counted_until_an_item_is_received() -> None:
    backoff = RecordingBackoff()
    once = subscribed(ONE, close=4000)
    async with resuming_client(hang_up, hang_up, once, hang_up, subscribed(TWO, seq=1), backoff=backoff) as (client, _):
        assert await read(client, 2) == ["1", "2"]
    assert backoff.failures == [0, 1, 0, 1]


async def test_server_that_closes_right_after_subscribing_counts_as_a_failure() -> None:
    backoff = RecordingBackoff()
    out = subscribed(close=4001)
    async with resuming_client(out, out, out, out, subscribed(ONE), backoff=backoff) as (client, _):
        assert await read(client, 1) == ["1"]
    assert backoff.failures == [0, 1, 2, 3]


async def test_long_lived_socket_resets_the_failures_without_receiving_anything() -> None:
    backoff = RecordingBackoff(longest_seconds=0)
    out = subscribed(close=4000)
    async with resuming_client(out, out, out, subscribed(ONE), backoff=backoff) as (client, _):
        assert await read(client, 1) == ["1"]
    assert backoff.failures == [0, 0, 0]
