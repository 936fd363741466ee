"""Reads recordings line by line (JSON Lines and server-sent events) or as a whole (HAR)."""

from __future__ import annotations

import base64
import binascii
import os
import re
import select
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from bridgekit_verify.check.frames import Message, decode_json, decode_text
from bridgekit_verify.check.live.saved_run import LiveRun, is_header, read_header
from bridgekit_verify.errors import UnusableRecording

__all__ = ["Limits", "OpenRecording", "open_recording"]

CHUNK_BYTES: Final = 262_144
MAX_LINE_BYTES: Final = 32 * 1024 * 1024
BODIES: Final = ("frame", "data", "message", "event")
ENVELOPE: Final = {"socket", "client", "user", "thread", "read_at", "connection", "direction", "event_name", "event_id"}
STATEMENTS: Final = {body: ENVELOPE | {body} for body in BODIES}
MARKS: Final = {"socket", "client", "read_at", "frame"}
"""A line with one of these fields states which client received its frame."""
RECONNECT: Final = b"---"
SSE_FIELDS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")
SSE_LINE: Final = re.compile(rb"([A-Za-z][\w-]*)?:|(data|event|id|retry)$|-*$")
"""A field, a comment, a reconnect or an empty line. Clients ignore fields that they do not know."""
STREAMED_JSON: Final = re.compile("ndjson|jsonl|json-seq|(?<!octet-)stream")
SENT: Final = {"send", "sent", "out", "outgoing"}


@dataclass
class Limits:
    """Limits at which the reading of an endless stream stops."""

    frames: int | None = None
    seconds: float | None = None
    reached: str | None = None
    """The limit that ended the reading."""
    _deadline: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._deadline = time.monotonic() + (self.seconds or 0.0)

    def remaining_seconds(self) -> float | None:
        return None if self.seconds is None else max(0.0, self._deadline - time.monotonic())

    def apply(self, messages: Iterable[Message]) -> Iterator[Message]:
        for count, message in enumerate(messages):
            if self.frames is not None and count >= self.frames:
                self.reached = f"--max-frames {self.frames}"
                return
            if self.seconds is not None and not count % 64 and self.remaining_seconds() == 0.0:
                self.reached = f"--max-seconds {self.seconds:g}"
                return
            yield message


@dataclass
class OpenRecording:
    """The messages of one file, which can be iterated once."""

    container: str
    messages: Iterator[Message]
    limits: Limits
    header: LiveRun | None = None
    """The file's first line, if the file holds a live run."""


@contextmanager
def open_recording(path: str, *, reads_text: bool = False, limits: Limits | None = None) -> Iterator[OpenRecording]:
    """Open a file, or standard input for `-`. Raises OSError or UnusableRecording, the latter also during iteration.

    With `reads_text`, lines that do not start with a brace are text, which the dialect decodes.
    """
    limits = limits or Limits()
    if path == "-" and sys.stdin is None:
        raise UnusableRecording(path, "is closed: pass a recording on standard input")
    if path != "-" and Path(path).is_dir():
        raise UnusableRecording(path, "is a folder: pass the recordings in it")
    # Without O_NONBLOCK, opening a named pipe would wait for its writer, even longer than `limits` allows.
    file = sys.stdin.fileno() if path == "-" else os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        lines = _Lines(path, file, limits)
        container, messages, header = _read(lines, reads_text)
        yield OpenRecording(container, limits.apply(messages), limits, header)
    finally:
        if path != "-":
            os.close(file)


class _Lines:
    """The lines of a file without their line ends. `head` reads the first lines before the iteration."""

    def __init__(self, path: str, file: int, limits: Limits) -> None:
        self.path, self._file, self._limits = path, file, limits
        self._waits = not stat.S_ISREG(os.fstat(file).st_mode)
        self._chunks: list[bytes] = []
        self.number = 0

    def _chunk(self) -> bytes:
        if self._waits and not select.select([self._file], [], [], self._limits.remaining_seconds())[0]:
            self._limits.reached = f"--max-seconds {self._limits.seconds:g}"
            return b""
        return os.read(self._file, CHUNK_BYTES)

    def head(self) -> bytes:
        """Return the start of the file: its first line that is not empty, or about CHUNK_BYTES bytes."""
        data = b""
        while not (data.lstrip(b"\xef\xbb\xbf \t\r\n") and b"\n" in data.lstrip()) and len(data) < CHUNK_BYTES:
            if not (chunk := self._chunk()):
                break
            data += chunk
        self._chunks = [data.removeprefix(b"\xef\xbb\xbf")]
        return self._chunks[0]

    def rest(self) -> bytes:
        data = self._chunks
        while chunk := self._chunk():
            data.append(chunk)
        return b"".join(data)

    def __iter__(self) -> Iterator[bytes]:
        rest = b""
        while chunk := self._chunks.pop() if self._chunks else self._chunk():
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                raise self.error(f"is longer than {MAX_LINE_BYTES:,} bytes: write one frame per line", ahead=1)
            for line in lines:
                self.number += 1
                yield line.rstrip(b"\r")
        if rest and self._limits.reached is None:
            self.number += 1
            yield rest.rstrip(b"\r")

    def error(self, problem: str, ahead: int = 0) -> UnusableRecording:
        return UnusableRecording(self.path, f"line {self.number + ahead} {problem}")


def _read(lines: _Lines, reads_text: bool) -> tuple[str, Iterator[Message], LiveRun | None]:
    head = lines.head()
    if not head.strip():
        raise UnusableRecording(lines.path, "is empty: record at least one frame")
    if head[:2] in (b"\x1f\x8b", b"PK") or b"\0" in head:
        raise UnusableRecording(lines.path, "is not text in UTF-8: decompress or convert it first")
    first = head.lstrip().split(b"\n", 1)[0].strip()
    if first.startswith(SSE_FIELDS) or (b"\ndata:" in head and not first.startswith((b"{", b"[", b'"'))):
        return "SSE", _read_sse(lines, reads_text), None
    if first.startswith(b"{") and (b'"log"' in first[:64] or (first == b"{" and b'"log"' in head[:4096])):
        return "HAR", _read_har(lines.path, lines.rest()), None
    if first.startswith(b"[") and first.endswith((b"[", b",")):
        raise UnusableRecording(lines.path, "is a JSON array: write one frame per line (jq -c '.[]')")
    rows = iter(lines)
    header = read_header(lines.path, next(rows)) if is_header(first) else None
    return "JSON Lines", _read_json_lines(lines, rows, reads_text), header


def _read_json_lines(lines: _Lines, rows: Iterator[bytes], reads_text: bool) -> Iterator[Message]:
    connection = 0
    for line in rows:
        if not (line := line.strip()):
            continue
        if line.startswith(RECONNECT) and not line.strip(b"-"):
            connection += 1
            continue
        if (reads_text and not line.startswith(b"{")) or b"\x1e" in line:
            value: Any = line.decode("utf-8", "replace")
        else:
            value = _decode_line(lines, line)
        if isinstance(value, dict) and not MARKS.isdisjoint(value):
            message = _from_envelope(value, connection, lines.number)
            if message is not None:
                yield message
        else:
            yield Message("1", connection, lines.number, value)


def _decode_line(lines: _Lines, line: bytes) -> Any:
    try:
        value = decode_json(line)
    except ValueError as error:
        raise lines.error(f"is not JSON, one frame per line: {_short(error)}") from error
    if not isinstance(value, dict | str | list):
        raise lines.error(f"is JSON, but a frame is an object, not {type(value).__name__}")
    return value


def _from_envelope(value: dict[str, Any], connection: int, number: int) -> Message | None:
    """Read a line that states which client received its frame. Return None if the client sent the frame.

    The frame is either a field of the line, or the line itself, which then states the client in further fields.
    """
    name = next((each for each in BODIES if each in value), "")
    # A line with `frame` and without `type` may have further fields, such as a recorder's notes. A line with `frame`
    # and `type` is itself a frame of a protocol.
    has_notes = name == "frame" and "type" not in value and isinstance(value["frame"], dict | str)
    whole = not name or not (has_notes or value.keys() <= STATEMENTS[name])
    body = value if whole else value[name]
    if not whole and str(value.get("direction")).lower() in SENT:
        return None
    user, thread, own = _id(value.get("user")), _id(value.get("thread")), value.get("connection")
    client = _id(value.get("socket", value.get("client")))
    return Message(
        client or " ".join(filter(None, (user, thread))) or "1",
        own if isinstance(own, int) and not whole else connection,
        number,
        decode_text(body) if isinstance(body, str) else body,
        user,
        thread,
        _seconds(value.get("read_at")),
        _id(value.get("event_name")),
        None if whole else _id(value.get("event_id")),  # a frame may itself have a field `event_id`
    )


def _id(value: object) -> str | None:
    return str(value) if isinstance(value, str | int) and value != "" else None


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < 2**63 else None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _read_sse(lines: _Lines, reads_text: bool) -> Iterator[Message]:
    connection = 0
    for data, names in _sse_events(_sse_lines(lines)):
        if data is None:
            connection += 1
            continue
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise lines.error("is not UTF-8") from error
        value = decode_text(text)
        if isinstance(value, str) and value.startswith("{") and not reads_text:
            raise lines.error(f"ends a message whose data is not JSON: {_excerpt(data)}")
        yield Message("1", connection, lines.number, value, **names)


def _sse_events(lines: Iterable[bytes]) -> Iterator[tuple[bytes | None, dict[str, Any]]]:
    """Yield each event's data, and its name and id as fields of `Message`. For a reconnect, the data is None."""
    names, data = dict[str, Any](), list[bytes]()
    for line in lines:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if line.startswith(RECONNECT) and not line.strip(b"-"):
            yield None, {}
        elif name == b"data":
            data.append(value)
        elif name in (b"event", b"id"):
            names["event" if name == b"event" else "event_id"] = value.decode("utf-8", "replace")
        elif not line:
            if data or names.get("event"):
                yield b"\n".join(data), names
            names, data = {}, []
    if data:
        yield b"\n".join(data), names


def _sse_lines(lines: _Lines) -> Iterator[bytes]:
    """Yield the lines. A carriage return also ends a line.

    Raises UnusableRecording for a line that server-sent events cannot contain.
    """
    for line in lines:
        for part in line.split(b"\r"):
            if not SSE_LINE.match(part):
                raise lines.error(f"is not a line of server-sent events: {_excerpt(part)}")
            yield part


def _excerpt(line: bytes) -> str:
    return repr(line[:60].decode("utf-8", "replace"))


class _HarMessage(msgspec.Struct):
    """A message of a WebSocket or of a stream of server-sent events."""

    data: str | None = None
    type: str | None = None
    time: float | str | None = None
    opcode: int | str | None = None
    name: str | None = msgspec.field(name="eventName", default=None)
    id: str | int | None = msgspec.field(name="eventId", default=None)


class _Content(msgspec.Struct):
    text: Any = None
    encoding: str | None = None
    mime_type: str | None = msgspec.field(name="mimeType", default=None)


class _Response(msgspec.Struct):
    content: _Content | None = None


class _Entry(msgspec.Struct):
    request: dict[str, Any] | None = None
    response: _Response | None = None
    sockets: list[_HarMessage] | None = msgspec.field(name="_webSocketMessages", default=None)
    events: list[_HarMessage] | None = msgspec.field(name="_eventSourceMessages", default=None)


class _Log(msgspec.Struct):
    entries: list[_Entry]
    creator: dict[str, Any] | None = None


class _Har(msgspec.Struct):
    log: _Log


def _read_har(path: str, data: bytes) -> Iterator[Message]:
    try:
        log = msgspec.json.decode(data, type=_Har).log
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UnusableRecording(path, f"is not a complete HAR file: {_short(error)}") from error
    messages = list(_har_messages(log))
    if not messages and str((log.creator or {}).get("name")).lower() == "firefox":
        raise UnusableRecording(path, "was saved by Firefox, whose HAR holds no frames: record with Chromium")
    if not messages:
        raise UnusableRecording(path, "holds no WebSocket message and no streamed response body: record with content")
    yield from messages


def _har_messages(log: _Log) -> Iterator[Message]:
    """Yield received messages.

    A socket counts as a reconnect if an earlier socket with the same address (without its query) has ended.
    """
    index = 0
    sockets: dict[str, tuple[str, int, float]] = {}
    for number, entry in enumerate(log.entries, 1):
        client, connection = f"response {number}", 0
        if entry.sockets is not None:
            url = str((entry.request or {}).get("url"))
            client, connection = _continued(f"socket {number}", url, entry.sockets, sockets)
        for value, more in _har_values(entry):
            index += 1
            yield Message(client, connection, index, value, **more)


def _continued(
    name: str, url: str, messages: list[_HarMessage], sockets: dict[str, tuple[str, int, float]]
) -> tuple[str, int]:
    """Return the client that a socket belongs to, and the number of the client's reconnects."""
    times = [each.time for each in messages if isinstance(each.time, float) and each.time > 0]
    if not times:
        return name, 0
    address = url.partition("?")[0]
    client, connection, last = sockets.get(address, (name, -1, 0.0))
    if last > min(times):  # both sockets were open at the same time
        client, connection = name, -1
    sockets[address] = (client, connection + 1, max(times))
    return client, connection + 1


def _har_values(entry: _Entry) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield each frame's value, with the further fields of its `Message`."""
    content = entry.response.content if entry.response else None
    for each in entry.sockets or entry.events or ():
        opcode = str(1 if each.opcode is None else each.opcode)
        if str(each.type).lower() not in SENT and opcode in ("1", "2") and each.data is not None:
            more = {"event": each.name, "event_id": _id(each.id), "read_at": _seconds(each.time)}
            yield decode_text(_har_text(each.data, opcode == "2")), more
    if not (entry.sockets or entry.events) and content is not None and isinstance(content.text, str):
        body = _har_text(content.text, content.encoding == "base64")
        yield from _body_values(body, content.mime_type or "")


def _har_text(data: str, encoded: bool) -> str:
    try:
        return base64.b64decode(data, validate=True).decode("utf-8", "replace") if encoded else data
    except binascii.Error:
        return data


def _body_values(body: str, mime_type: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield the frames of a streamed response: server-sent events, or one JSON object for each line."""
    lines = body.removeprefix("\ufeff").encode(errors="surrogatepass").splitlines()
    if "event-stream" in mime_type or (lines and lines[0].startswith(SSE_FIELDS)):
        yield from ((decode_text((d or b"").decode(errors="surrogatepass")), names) for d, names in _sse_events(lines))
    elif len(lines) > 1 or STREAMED_JSON.search(mime_type):
        values = [decode_text(line.strip(b"\x1e").decode(errors="surrogatepass")) for line in lines if line]
        yield from ((value, {}) for value in values if isinstance(values[0], dict))
