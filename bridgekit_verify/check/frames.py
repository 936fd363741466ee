"""The parts of a recording: messages as the file holds them, and frames as a dialect reads them."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

__all__ = [
    "END_OF_STREAM", "FIELDS", "KINDS", "Message", "ObservedFrame", "decode_json", "decode_text", "encode_json",
    "split",
]  # fmt: skip

KINDS: Final = (
    "started",  # of a run
    "ended",
    "error",  # a run ends because it failed
    "text_begin",
    "text",  # a delta
    "text_end",
    "thinking",  # a delta
    "tool_begin",
    "tool_args",  # a delta
    "tool_end",
    "tool",  # a whole call in one frame
    "tool_result",
    "snapshot",  # a complete text or arguments, which other frames sent in pieces
    "subscribed",
    "gap",
    "event",  # Belongs to a run, and states no other fact.
    "other",  # Has a type that the dialect does not know.
)
"""What a frame does. A type of the protocol that fits no other kind is `event` or `other`."""

END_OF_STREAM: Final = "[DONE]"
"""The text that several protocols send after the last frame of a response. `[DONE]` is a frame only if the dialect
gives it a kind."""

RECORD_SEPARATOR: Final = "\x1e"

FIELDS: Final = ("kind", "run", "thread", "user", "message", "call", "text", "whole", "args", "position")
"""The fields that a `[dialect]` table may locate."""


class Message(msgspec.Struct, gc=False):
    """One message that a client received."""

    client: str
    """The name of the socket or streamed response on which the message arrived."""
    connection: int
    """The number of reconnects of this client before the message."""
    index: int
    """The number of the line or of the message in its file, from 1."""
    value: Any
    """The decoded JSON, or a string if the text is not JSON."""
    user: str | None = None
    thread: str | None = None
    read_at: float | None = None
    event: str | None = None
    """The event name of a server-sent event."""
    event_id: str | None = None
    """The id of a server-sent event."""
    part: int = 0
    """The number of the message in its batch."""

    @property
    def place(self) -> tuple[int, int]:
        """The order of arrival, also within a batch."""
        return self.index, self.part


class ObservedFrame(msgspec.Struct, gc=False):
    """One fact that a message states. A message may state several facts. Fields that the dialect lacks are None."""

    origin: Message
    kind: str
    run: str | None = None
    thread: str | None = None
    message: str | None = None
    call: str | None = None
    text: str | None = None
    """A delta, which is appended to a message or to a call's arguments. In a gap signal, the reason for the gap."""
    whole: Any = None
    """A complete value: a text, or arguments as text or as decoded JSON."""
    position: int | None = None
    first_position: int | None = None
    """If a frame stands for several positions, the first of them; otherwise, None."""
    user: str | None = None
    group: str | None = None
    """The epoch of the position, or the subagent that sent the chunk."""
    implicit: bool = False
    """True for a delta or an end that needs no beginning, and for an error after which the run may continue."""


def decode_json(data: str | bytes) -> Any:
    """Decode JSON.

    Half of a surrogate pair is valid, because backends may cut a text inside a pair. Raises ValueError for a text that
    is not JSON or is nested too deeply.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError):
        try:
            return json.loads(data, parse_constant=_refuse)
        except RecursionError as error:
            raise ValueError("is nested too deeply") from error
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error


def _refuse(constant: str) -> Any:
    raise ValueError(f"has the number {constant}, which JSON does not have")


def encode_json(value: object) -> str:
    """Encode a decoded value.

    A value that JSON cannot represent, such as half of a surrogate pair, is written as Python's `repr`.
    """
    try:
        return msgspec.json.encode(value).decode()
    except (UnicodeEncodeError, msgspec.MsgspecError, RecursionError):
        return repr(value)


def decode_text(text: str) -> Any:
    """Decode a text that is a JSON object or list. Any other text is returned unchanged."""
    if not text.startswith(("{", "[")):
        return text
    try:
        return decode_json(text)
    except ValueError:
        return text


def split(value: Any, *, lists: bool = True) -> list[Any]:
    """Return the messages that a server sent as one: the objects of a list, or JSON texts.

    Record separators or line ends separate the texts. With `lists=False`, a list is one message.
    """
    if isinstance(value, list):
        return value if lists and all(isinstance(each, dict) for each in value) else [value]
    if not isinstance(value, str):
        return [value]
    if RECORD_SEPARATOR in value:
        return _decoded_parts(value.split(RECORD_SEPARATOR))
    # Not `splitlines`, because JSON strings may hold U+2028 and the other line ends that it knows.
    parts = _decoded_parts(value.split("\n")) if value.startswith("{") else []
    return parts if parts and all(isinstance(each, dict) for each in parts) else [value]


def _decoded_parts(parts: list[str]) -> list[Any]:
    return [decode_text(text) for each in parts if (text := each.strip())]
