"""Records the messages that clients receive, and tracks which runs have ended. It judges nothing."""

from __future__ import annotations

import re
import time
from typing import Any, Final

from bridgekit_verify.check.dialect_tables import detect
from bridgekit_verify.check.dialects import StreamDialect
from bridgekit_verify.check.frames import Message, ObservedFrame, decode_text
from bridgekit_verify.check.live.clients import LiveClient, RequestedRun
from bridgekit_verify.check.live.observed_clients import raw_text
from bridgekit_verify.errors import UnusableRecording

__all__ = ["LiveRecorder"]

WORD: Final = re.compile(r"\w+")
ENDS: Final = ("ended", "error")


class LiveRecorder:
    """The messages of all clients, in the order in which they were read."""

    def __init__(self, dialect: StreamDialect | None) -> None:
        self.messages: list[Message] = []
        self._dialect = dialect
        self._runs: dict[str, RequestedRun] = {}
        self._canary_of: dict[str, str] = {}
        """For each run id of the backend, the canary that a frame of the run contained."""

    def add(self, run: RequestedRun) -> None:
        self._runs[run.canary] = run

    def record(
        self, client: LiveClient, received: Any, open_runs: list[RequestedRun], *, event: str | None,
        event_id: str | None,
    ) -> None:  # fmt: skip
        """Record a message, and mark the run that it ends. `open_runs` are the runs that have not ended and that the
        client receives."""
        if isinstance(received, bytes):
            received = received.decode("utf-8", "replace")
        value = decode_text(received) if isinstance(received, str) else received
        message = Message(
            client.id, client.connection, len(self.messages) + 1, value, client.user, client.thread, time.time(), event,
            event_id,
        )  # fmt: skip
        self.messages.append(message)
        for frame in self._frames(message):
            own = None in (frame.thread, client.thread) or frame.thread == client.thread
            if frame.position is not None and own:
                client.position = str(frame.position)
            self._follow(frame, open_runs)

    def _frames(self, message: Message) -> list[ObservedFrame]:
        if self._dialect is None:
            try:
                self._dialect = detect("", [message])
            except UnusableRecording:
                return []
        return list(self._dialect.read(message))

    def _follow(self, frame: ObservedFrame, open_runs: list[RequestedRun]) -> None:
        if frame.run is not None:
            for word in WORD.findall(raw_text(frame.origin.value)):
                if word in self._runs:
                    self._canary_of[frame.run] = word
        if frame.kind in ENDS:
            run = self._run_of(frame, open_runs)
            if run is not None:
                run.ended = True

    def _run_of(self, frame: ObservedFrame, open_runs: list[RequestedRun]) -> RequestedRun | None:
        """Return the run that a frame ends. An end that names no known run belongs to the only open run."""
        if frame.run in self._canary_of:
            return self._runs[self._canary_of[frame.run]]
        for run in open_runs:
            if run.id == frame.run:
                return run
        waiting = [run for run in open_runs if not run.ended]
        return waiting[0] if len(waiting) == 1 else None
