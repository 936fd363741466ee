"""What a recording consists of: messages as a container holds them, and frames as a dialect reads them."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

__all__ = ["FIELDS", "KINDS", "Message", "ObservedFrame", "decode_json", "decode_text", "encode_json"]

KINDS: Final = (
    "started",  # of a run
    "ended",
    "error",  # ends a run that failed
    "text_begin",
    "text",  # a delta
    "text_end",
    "thinking",  # a delta
    "tool_begin",
    "tool_args",  # a delta
    "tool_end",
    "tool",  # a whole call in one frame
    "tool_result",
    "snapshot",  # repeats a value that other frames sent
    "subscribed",
    "gap",
    "event",  # belongs to a run, and nothing else is known about it
    "other",  # the dialect does not know it
)
"""What a frame does. Everything that a protocol has beyond it is `event` or `other`."""

FIELDS: Final = ("kind", "run", "thread", "user", "message", "call", "text", "whole", "args", "position")
"""The fields that a `[dialect]` table may locate."""


class Message(msgspec.Struct, gc=False):
    """One message that a client received."""

    client: str
    """The socket, or the response, that received it."""
    connection: int
    """The number of reconnects of this client before it."""
    index: int
    """The number of its line, or of the message in its file, from 1."""
    value: Any
    """Decoded JSON; text that is not JSON stays a string."""
    user: str | None = None
    thread: str | None = None
    read_at: float | None = None
    event: str | None = None
    """The name that server-sent events give it."""


class ObservedFrame(msgspec.Struct, gc=False):
    """One fact that a message states. A message may state several; what its dialect lacks is None."""

    origin: Message
    kind: str
    run: str | None = None
    thread: str | None = None
    message: str | None = None
    call: str | None = None
    text: str | None = None
    """A delta, to be appended. Of a gap, its reason."""
    whole: Any = None
    """A value that is complete in itself: a text, or arguments as text or as decoded JSON."""
    position: int | None = None
    first_position: int | None = None
    """Only where the frame stands for the positions `first_position` to `position`."""
    user: str | None = None
    group: str | None = None
    """What counts or continues on its own within a client: an epoch of positions, or a subagent's chunks."""
    implicit: bool = False
    """Whether the protocol lets this delta begin its message or call, or frames of its run follow this error."""


def decode_json(data: str | bytes) -> Any:
    """Decode JSON. Half of a surrogate pair is valid: backends cut texts there. ValueError for anything else."""
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
    """Encode a decoded value. What JSON does not have, such as half of a surrogate pair, is written as in Python."""
    try:
        return msgspec.json.encode(value).decode()
    except (UnicodeEncodeError, msgspec.MsgspecError, RecursionError):
        return repr(value)


def decode_text(text: str) -> Any:
    """Decode a message that may be JSON. Any other text is returned as it is."""
    if not text.startswith(("{", "[")):
        return text
    try:
        return decode_json(text)
    except ValueError:
        return text
