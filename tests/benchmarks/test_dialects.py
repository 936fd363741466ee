"""Each dialect decodes the confirmation of a subscription, events, and other messages."""

from __future__ import annotations

import pytest

from benchmarks.dialects import DIALECTS
from bridgekit_verify.harness.websocket_protocol import Dialect

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
EVENTS_FOLLOW = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def text(*texts: bytes) -> bytes:
    return b"".join(bytes((0x81, len(each))) + each for each in texts)


def chunk(*texts: bytes) -> bytes:
    return b"".join(f"{len(each):x}\r\n".encode() + each + b"\r\n" for each in texts)


SENT_BYTES = {
    "lines": b'{"type":"subscribed"}\n{"a":1}\n{"b":2}\n',
    "websocket": SWITCHED + text(b'{"type":"subscribed"}', b'{"a":1}', b'{"b":2}'),
    "socket.io": SWITCHED
    + text(b'0{"sid":"x"}', b'40{"sid":"y"}', b'42["event",{"a":1}]', b"2", b'42["event",{"b":2}]'),
    "server-sent events": EVENTS_FOLLOW
    + chunk(b'data: {"type":"subscribed"}\r\n\r\n', b': ping\r\n\r\ndata: {"a":1}\r\n', b'\r\ndata: {"b":2}\r\n\r\n'),
}


def received(name: str, *pieces: bytes) -> tuple[Dialect, bytes]:
    dialect, replies = DIALECTS[name]("thread_00042"), b""
    for piece in pieces:
        replies += dialect.feed(piece) or b""
    return dialect, replies


def test_every_dialect_is_tested() -> None:
    assert SENT_BYTES.keys() == DIALECTS.keys()


@pytest.mark.parametrize("name", SENT_BYTES)
def test_events_are_separated_from_other_messages(name: str) -> None:
    dialect, _ = received(name, SENT_BYTES[name])
    assert dialect.ready
    assert dialect.events == [b'{"a":1}', b'{"b":2}']


@pytest.mark.parametrize("name", SENT_BYTES)
def test_events_are_decoded_when_bytes_arrive_one_by_one(name: str) -> None:
    sent = SENT_BYTES[name]
    dialect, _ = received(name, *(sent[at : at + 1] for at in range(len(sent))))
    assert dialect.ready
    assert dialect.events == [b'{"a":1}', b'{"b":2}']


@pytest.mark.parametrize("name", SENT_BYTES)
def test_opening_names_the_thread(name: str) -> None:
    assert b"thread_00042" in DIALECTS[name]("thread_00042").opening()


def test_socket_io_replies_to_open_and_ping() -> None:
    _, replies = received("socket.io", SENT_BYTES["socket.io"])
    assert replies == bytes.fromhex("8182") + bytes(4) + b"40" + bytes.fromhex("8181") + bytes(4) + b"3"


@pytest.mark.parametrize("name", ["websocket", "socket.io", "server-sent events"])
def test_http_error_raises_connection_refused(name: str) -> None:
    with pytest.raises(ConnectionRefusedError):
        received(name, b"HTTP/1.1 403 Forbidden\r\n\r\n")


@pytest.mark.parametrize("name", ["websocket", "socket.io"])
def test_close_frame_marks_the_dialect_closed(name: str) -> None:
    dialect, _ = received(name, SENT_BYTES[name], bytes.fromhex("88020fa8"))
    assert dialect.closed


def test_end_of_an_event_stream_marks_the_dialect_closed() -> None:
    dialect, _ = received("server-sent events", SENT_BYTES["server-sent events"], chunk(b""))
    assert dialect.closed
