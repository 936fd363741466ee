"""The clients of the scenario: each has one socket of one thread, and stores every frame unchanged."""

from __future__ import annotations

import json
from typing import Any

import anyio
from anyio.abc import TaskStatus
from websockets.exceptions import WebSocketException

from bridgekit.cursors_and_gaps import Cursor
from bridgekit.errors import BridgekitError
from bridgekit.transport.client import connect
from bridgekit_verify.measure.workload import OwnedThread
from bridgekit_verify.probes.judgement import shown
from bridgekit_verify.probes.recorded_calls import Recording

__all__ = ["Client"]


class Client:
    """A client with one socket, which stores what it reads until the socket ends."""

    def __init__(self, number: int, owned: OwnedThread, recording: Recording, after: Cursor | None) -> None:
        self.number = number
        self.owned = owned
        self.after = after
        """The cursor from which the client asked to resume."""
        self.start: Cursor | None = None
        """The cursor at which the server starts the stream, or None if the subscription was refused."""
        self.frames: list[dict[str, Any]] = []
        """Frames with events, decoded by the standard library's parser, which keeps every field."""
        self.gaps: list[dict[str, Any]] = []
        self.malformed: list[str] = []
        """Messages that are neither an event with a number nor a gap."""
        self.opened = recording.position
        """The position in the recording when the client asked for the subscription."""
        self.subscribed: int | None = None
        """The position in the recording when the client got the confirmation of its subscription."""
        self.closed_by_client: int | None = None
        self.closed_by_server: int | None = None
        """The position in the recording before the scenario closed the socket on the server."""
        self.access_ended: int | None = None
        """The position in the recording when the application had ended the client's access to the thread."""
        self.error: str = ""
        """Why the server refused the client, or how the socket ended."""
        self.ended = anyio.Event()
        self._arrived = anyio.Event()
        self._recording = recording
        self._scope = anyio.CancelScope()

    @property
    def position(self) -> Cursor | None:
        """The cursor to resume from."""
        if self.start is None or not self.frames:
            return self.start
        return Cursor(self.start.epoch, self.frames[-1]["seq"])

    async def read(self, url: str, *, task_status: TaskStatus[None]) -> None:
        """Subscribe, and store frames until the socket ends."""
        thread, subscribed = self.owned, False
        try:
            with self._scope:
                async with connect(url, user_id=thread.user_id, thread_id=thread.thread_id, after=self.after) as socket:
                    self.start = socket.subscribed.cursor
                    self.subscribed, subscribed = self._recording.position, True
                    task_status.started()
                    while True:
                        self._store(await socket.receive_frame())
        except (BridgekitError, OSError, TimeoutError, ValueError, WebSocketException) as error:
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self.ended.set()
        if not subscribed:
            task_status.started()

    def _store(self, message: str | bytes) -> None:
        frame = json.loads(message)
        if _has_numbers(frame, "from", "to") and frame.get("type") == "gap":
            self.gaps.append(frame)
        elif _has_numbers(frame, "seq", "first_seq"):
            self.frames.append(frame)
        else:
            self.malformed.append(shown(message))
        self._arrived.set()
        self._arrived = anyio.Event()

    async def wait_for(self, seq: int) -> None:
        """Wait until the client has read this `seq`, or its socket has ended."""
        while (
            not self.ended.is_set() and self.start is not None and (self.frames[-1]["seq"] if self.frames else 0) < seq
        ):
            await self._arrived.wait()

    async def disconnect(self) -> None:
        """Close the socket from the client's side."""
        self.closed_by_client = self._recording.position
        self._scope.cancel()
        await self.ended.wait()


def _has_numbers(frame: object, required: str, optional: str) -> bool:
    """Return whether the frame is an object with a number in the one field, and a number or nothing in the other."""
    return (
        isinstance(frame, dict)
        and type(frame.get(required)) is int
        and (frame.get(optional) is None or type(frame[optional]) is int)
    )
