"""The file of a live run (JSON Lines): the ledger in the first line, and then one received frame in each line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from bridgekit_verify.check.dialect_tables import parse_table
from bridgekit_verify.check.dialects import BUILT_IN, StreamDialect
from bridgekit_verify.check.frames import Message, decode_json
from bridgekit_verify.check.live.model_ledger import ModelLedger
from bridgekit_verify.errors import UnusableRecording

__all__ = ["LiveRun", "dialect_of", "is_header", "numbered", "read_header", "write_run"]


class LiveRun(msgspec.Struct):
    """The recording and the ledger of a live run, which suffice to judge the run."""

    ledger: ModelLedger
    messages: Sequence[Message] = ()
    dialect: str | dict[str, Any] | None = None
    """The name of a built-in dialect, or a `[dialect]` table. None if the dialect must be detected."""
    about: dict[str, Any] = msgspec.field(default_factory=dict)
    """Further data of the driver, such as its load. It is not judged."""
    limit: str | None = None
    """The limit that ended the load early. Missing pieces of a run then count as unknown, not as lost."""


class _FirstLine(LiveRun, kw_only=True):
    """The first line of the file: a run without its messages."""

    bridgekit_run: Literal[1]
    """The version of this format."""


def numbered(messages: Sequence[Message]) -> list[Message]:
    """Give each message the number of its line in the file."""
    return [msgspec.structs.replace(message, index=index) for index, message in enumerate(messages, 2)]


def write_run(path: str | Path, run: LiveRun) -> None:
    """Write a run to a file. `bridgekit check` returns the same verdict for the file as `check_run` for the run."""
    header = msgspec.to_builtins(msgspec.structs.replace(run, messages=()))
    del header["messages"]
    lines = [json.dumps({"bridgekit_run": 1, **header}), *(json.dumps(_envelope(message)) for message in run.messages)]
    Path(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _envelope(message: Message) -> dict[str, Any]:
    found = {
        "socket": message.client, "user": message.user, "thread": message.thread, "connection": message.connection,
        "read_at": message.read_at, "event_name": message.event, "event_id": message.event_id,
        "frame": message.value,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None or name == "frame"}


def is_header(line: bytes) -> bool:
    """Return whether a line, or the start of one, begins like the first line of a live run."""
    return line.startswith(b'{"bridgekit_run": ')


def read_header(path: str, line: bytes) -> LiveRun:
    """Read the first line of a live run. Raises UnusableRecording if the line is damaged."""
    try:
        return msgspec.convert(decode_json(line), _FirstLine)
    except ValueError as error:
        raise UnusableRecording(path, f"line 1 is not the ledger of a live run: {error}") from error


def dialect_of(header: str | dict[str, Any] | None, path: str) -> StreamDialect | None:
    """Return the dialect that a run names. Raises UnusableRecording if there is no such dialect."""
    if isinstance(header, dict):
        return parse_table(header, path)
    if header is None:
        return None
    if header not in BUILT_IN:
        raise UnusableRecording(path, f"names the unknown dialect {header!r}; known: {', '.join(BUILT_IN)}")
    return BUILT_IN[header]
