"""Judges a stream of frames: a pure function from frames to violations, with memory that does not grow with the stream.

Each frame is first attributed to a client, a run, and a message or call. Each rule then judges one of these separately.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bridgekit_verify.check.answers import Findings, Property
from bridgekit_verify.check.frames import Message, ObservedFrame
from bridgekit_verify.check.owners import Owners
from bridgekit_verify.check.positions import Numbering, PositionStep
from bridgekit_verify.check.protocols import StreamDialect
from bridgekit_verify.check.rules import Rules
from bridgekit_verify.check.streams import ClientState, RunState, StreamKey, StreamState

__all__ = ["Judge"]

POSITIONS: Final = "positions"
END_OF_STREAM: Final = "[DONE]"
"""The text that several protocols send after the last frame of a response. It is no frame."""


class Judge:
    """Judges the frames of one recording, in the order in which they were received."""

    def __init__(self, dialect: StreamDialect) -> None:
        self.dialect = dialect
        self.findings = Findings()
        self.clients: dict[str, ClientState] = {}
        self.owners = Owners()
        self.rules = Rules(dialect, self.findings, self.owners)
        self.messages = self.frames = self.undecoded = 0

    def feed(self, messages: Iterable[Message]) -> None:
        """Judge every message of a recording."""
        read, take = self.dialect.frames, self.take
        for message in messages:
            self.messages += 1
            if message.value == END_OF_STREAM:
                continue
            for frame in read(message):
                take(frame)

    def take(self, frame: ObservedFrame) -> None:
        """Judge one frame."""
        self.frames += 1
        message = frame.origin
        client = self.clients.get(message.client)
        if client is None:
            client = self.clients[message.client] = ClientState(message)
        elif message.connection != client.connection:
            self._reconnect(client, message)
        client.last = message.index
        kind = frame.kind
        if kind == "other" and not isinstance(message.value, dict):
            self.undecoded += 1
        stream, run = self._attribute(client, frame)
        if kind in ("subscribed", "gap"):
            self._signal(client, frame)
            return
        if frame.position is not None and self._is_replayed(client, run, frame):
            return
        self.rules.judge(client, run, stream, frame)

    # Attribution

    def _attribute(self, client: ClientState, frame: ObservedFrame) -> tuple[StreamState | None, RunState | None]:
        key = self._key(client, frame)
        stream = None if key is None else client.streams.get(key)
        run_id = frame.run
        run: RunState | None
        if run_id is not None:
            run = client.runs.get(run_id) or self._new_run(client, run_id, frame)
            client.run = run
        elif self.dialect.run_is_connection:
            run_id = f"{client.id} connection {client.connection}"
            run = client.runs.get(run_id) or self._new_run(client, run_id, frame)
        elif stream is not None and stream.run is not None:
            run = stream.run
        elif len(client.open_runs) == 1:
            run = next(iter(client.open_runs.values()))
        else:
            run = None if client.open_runs else client.run
        if stream is None and key is not None and frame.kind != "snapshot":
            stream = StreamState(key[1], key[0] == "call", client.id, run, frame.origin.index)
            client.streams[key] = stream
            self.rules.remember(client, key, stream)
            self.owners.saw(key, client.id, frame)
        if frame.user is not None or frame.thread is not None:
            self.owners.check_ids(self.findings, client, frame)
        if frame.run is frame.thread is frame.user is None and (
            key is None or key[1] is None or frame.implicit or frame.kind == "tool"
        ):
            client.unidentified += 1
        return stream, run

    def _key(self, client: ClientState, frame: ObservedFrame) -> StreamKey | None:
        if frame.call is not None:
            key: StreamKey = ("call", frame.call)
        elif frame.kind == "thinking":
            return "thinking", frame.message
        elif frame.message is not None and frame.kind in ("text", "text_begin", "text_end", "snapshot"):
            key = ("text", frame.message)
        elif frame.implicit and client.chunk is not None:
            return client.chunk
        else:
            return None
        if frame.implicit:
            client.chunk = key
        return key

    def _new_run(self, client: ClientState, run_id: str, frame: ObservedFrame) -> RunState:
        run = RunState(run_id, client.id, frame.origin.index)
        client.runs[run_id] = client.open_runs[run_id] = run
        self.owners.saw(("run", run_id), client.id, frame)
        return run

    def _reconnect(self, client: ClientState, message: Message) -> None:
        client.connection = message.connection
        client.reconnects += 1
        if (
            client.numberings and not client.unnumbered
        ):  # A repeated frame can be recognized, and a missing one detected.
            return
        for stream in client.streams.values():
            if not stream.ended:
                stream.uncertain = "a reconnect may repeat or omit some of its frames, which have no position"

    # Positions

    def _signal(self, client: ClientState, frame: ObservedFrame) -> None:
        if client.thread is None:
            client.thread = frame.thread
        key = frame.thread if self.dialect.position_per == "thread" else None
        numbering = client.numberings.get(key)
        if frame.kind == "gap":
            if numbering is not None and frame.first_position is not None:
                numbering.announce(frame.first_position, frame.position)
                self._signalled(frame)
        elif frame.position is not None:
            if numbering is None or client.epochs.get(key) != frame.name:
                client.numberings[key] = Numbering(frame.position + 1, frame.origin.connection)
            client.epochs[key] = frame.name

    def _signalled(self, frame: ObservedFrame) -> None:
        if frame.name != "coalesced":
            text = f"the server announced that {frame.first_position} to {frame.position or 'the end'} will not arrive"
            self.findings.broken(
                Property.LOST, "signalled gap", f"position {frame.first_position}", f"{text}: {frame.name}",
                "a gap signal", frame.origin,
            )  # fmt: skip

    def _is_replayed(self, client: ClientState, run: RunState | None, frame: ObservedFrame) -> bool:
        """Follow the numbering. Return whether a reconnect repeats a frame that was already judged."""
        last = frame.position
        assert last is not None
        connection = frame.origin.connection
        if self.dialect.position_per == "run" and run is None:
            for which in (Property.LOST, Property.DUPLICATED, Property.ORDER, Property.RESUME):
                self.findings.unknown(which, "positions count within a run, and some frames do not name theirs")
            return False
        key = self.dialect.numbering_of(frame, None if run is None else run.id)
        first = frame.first_position if frame.first_position is not None else last
        numbering = client.numberings.get(key)
        if numbering is None:  # it begins at its first position, or in the middle if the recording does
            expected = self.dialect.first_position
            known = expected is not None and first <= expected
            numbering = client.numberings[key] = Numbering(expected if known else None, connection)
        step = numbering.add(first, last, connection, frame.origin.index)
        if step is PositionStep.NEXT or step is PositionStep.SKIPS:
            return False
        if step is PositionStep.LATE:
            self.findings.broken(
                Property.ORDER, "late", f"position {first}", f"position {first} arrives after a later one",
                POSITIONS, frame.origin,
            )  # fmt: skip
        elif step is PositionStep.REPEATED:
            self.findings.broken(
                Property.DUPLICATED, "repeated", f"position {first}", f"position {first} arrives again",
                POSITIONS, frame.origin,
            )  # fmt: skip
        return step is PositionStep.REPLAYED
