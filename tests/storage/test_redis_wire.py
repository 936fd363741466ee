"""A connection by itself, without a server: what it reads however the bytes are cut, who is answered, and its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from coredis.exceptions import InvalidResponse, ReadOnlyError, ResponseError
from hypothesis import given
from hypothesis import strategies as st

from bridgekit.storage.redis_wire import Wire, command


class Ends:
    """A wire with both its ends in a test's hands."""

    def __init__(self, heard: Callable[[list[Any]], None] | None = None) -> None:
        self.heard: list[list[Any]] = []
        self.written: list[bytes] = []
        self.wire = Wire(self.heard.append if heard is None else heard)
        self.wire.open(self.written.append)


def pushed(*parts: bytes) -> bytes:
    return b">%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def message(channel: bytes, text: bytes) -> bytes:
    return pushed(b"smessage", channel, text)


TEXTS = st.binary(max_size=40) | st.sampled_from(
    [b"\r\n", b">3\r\n$8\r\nsmessage\r\n$1\r\nx\r\n$1\r\ny\r\n", b"$-1\r\n"]
)
SAID = st.one_of(
    TEXTS.map(lambda text: ("pushed", message(b"a channel", text), [b"smessage", b"a channel", text])),
    TEXTS.map(lambda text: ("pushed", pushed(b"ssubscribe", text), [b"ssubscribe", text])),
    TEXTS.map(lambda text: ("answer", b"*2\r\n$%d\r\n%b\r\n:7\r\n" % (len(text), text), [text, 7])),
    st.sampled_from([("answer", b"+OK\r\n", b"OK"), ("answer", b":-3\r\n", -3), ("answer", b"_\r\n", None)]),
)


@given(st.lists(SAID, max_size=8), st.data())
def test_whatever_is_said_is_read_the_same_however_it_is_cut(
    said: list[tuple[str, bytes, object]], data: st.DataObject
) -> None:
    ends, answers = Ends(), list[object]()
    for kind, _, _ in said:
        if kind == "answer":
            ends.wire.send(b"", answers.append)
    stream = b"".join(bytes_ for _, bytes_, _ in said)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    for first, last in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        ends.wire.received(stream[first:last])
    assert ends.heard == [meant for kind, _, meant in said if kind == "pushed"]
    assert answers == [meant for kind, _, meant in said if kind == "answer"]


def test_command_is_written_at_once_in_the_words_of_the_protocol() -> None:
    ends = Ends()
    ends.wire.tell(b"CLUSTER SLOTS")
    ends.wire.send(command(b"SET", "straße", 7), lambda _: None)
    assert ends.written == [
        b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n",
        b"*3\r\n$3\r\nSET\r\n$7\r\nstra\xc3\x9fe\r\n$1\r\n7\r\n",
    ]


async def test_answers_go_to_those_who_asked_in_their_order_and_an_error_is_raised() -> None:
    ends = Ends()
    asked = [ends.wire.ask(b"GET", name) for name in ("a", "b", "c")]
    ends.wire.received(b"+one\r\n-READONLY it is a replica\r\n")
    ends.wire.received(b"$5\r\nthree\r\n")
    assert await asked[0] == b"one"
    with pytest.raises(ReadOnlyError):
        await asked[1]
    assert await asked[2] == b"three"


async def test_answer_may_be_waited_for_before_it_comes_and_whoever_gives_up_costs_the_others_nothing() -> None:
    ends, answers = Ends(), list[object]()

    async def wait(asked: Awaitable[object]) -> None:
        answers.append(await asked)

    given_up, asked = ends.wire.ask(b"GET", "a"), ends.wire.ask(b"GET", "b")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, asked)
        with anyio.move_on_after(0.01):
            await given_up
        ends.wire.received(b"+one\r\n+two\r\n")
    assert answers == [b"two"]


async def test_wire_that_is_lost_tells_all_who_wait_and_takes_nothing_more() -> None:
    ends, told = Ends(), list[object]()
    asked = ends.wire.ask(b"GET", "a")
    ends.wire.send(b"", told.append, answers=2)
    ends.wire.received(b">3\r\n$8\r\nsmess")
    error = ConnectionResetError("gone")
    ends.wire.lose(error)
    ends.wire.lose(ConnectionResetError("a second reason"))
    ends.wire.received(b"age\r\n$1\r\na\r\n$1\r\nb\r\n+late\r\n")
    with pytest.raises(ConnectionResetError, match="gone"):
        await asked
    assert (told, ends.heard, ends.wire.usable, ends.wire.error) == ([error, error], [], False, error)
    for use in (lambda: ends.wire.ask(b"PING"), lambda: ends.wire.tell(b"PING"), lambda: ends.wire.send(b"", print)):
        with pytest.raises(ConnectionResetError):
            use()


@pytest.mark.parametrize("rubbish", [b"HTTP/1.1 400 Bad Request\r\n", b":x\r\n", b"*x\r\n", b"#\r\n", b"\xff\r\n"])
def test_what_is_not_the_protocol_ends_the_connection_and_nothing_else(rubbish: bytes) -> None:
    ends = Ends()
    ends.wire.received(rubbish)
    assert not ends.wire.usable
    assert isinstance(ends.wire.error, InvalidResponse)


def test_refusal_of_what_was_told_ends_the_connection() -> None:
    ends = Ends()
    ends.wire.tell(b"SSUBSCRIBE", b"x")
    ends.wire.received(b"-ERR not here\r\n")
    assert isinstance(ends.wire.error, ResponseError)


@pytest.mark.parametrize("kind", [b"smessage", b"sunsubscribe"])
def test_listener_that_is_in_trouble_ends_the_connection_and_hears_no_more(kind: bytes) -> None:
    heard: list[object] = []

    def fail(said: list[Any]) -> None:
        heard.append(said)
        raise ConnectionResetError("enough")

    ends = Ends(fail)
    ends.wire.received(2 * pushed(kind, b"a", b"1"))
    assert len(heard) == 1
    assert str(ends.wire.error) == "enough"
