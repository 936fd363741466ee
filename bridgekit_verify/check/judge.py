"""Judges a stream of frames without I/O. Only a limited number of ended runs, messages, calls and violations is kept in
memory.

The judge first attributes each frame to a client, a run, and a message or call. The rules then judge the frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bridgekit_verify.check.client_state import ClientState, RunState, StreamKey, StreamState
from bridgekit_verify.check.dialects import StreamDialect
from bridgekit_verify.check.frames import END_OF_STREAM, Message, ObservedFrame
from bridgekit_verify.check.id_owners import Owners
from bridgekit_verify.check.numbering import Numbering, PositionStep
from bridgekit_verify.check.property_answers import Findings, Property
from bridgekit_verify.check.rules import BEGINNINGS, CONTENT, NO_BEGINNING, Rules

__all__ = ["Judge"]

POSITIONS: Final = "positions"
BROKEN_STEPS: Final = {
    PositionStep.LATE: (Property.ORDER, "late", "arrives after a later one"),
    PositionStep.REPEATED: (Property.DUPLICATED, "repeated", "arrives again"),
}
UNCLEAR: Final = ("snapshot", "other")
"""The kinds of frames that may belong to a text or to thinking, or to neither."""
NUMBERED: Final = CONTENT - {"snapshot"}
"""The kinds of frames that must have a position if the dialect has positions."""
ACROSS_RUNS: Final = {"tool_result", "snapshot"}
"""The kinds of frames that may belong to a message or call of an earlier run."""


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
        read, take = self.dialect.read, self.take
        for message in messages:
            self.messages += 1
            for frame in read(message):
                if frame.kind != "other" or frame.origin.value != END_OF_STREAM:
                    take(frame)

    def take(self, frame: ObservedFrame) -> None:
        """Judge one frame."""
        self.frames += 1
        message = frame.origin
        client = self._client_of(message)
        kind = frame.kind
        if kind != "other":
            if client.starts_inside is None:
                client.starts_inside = kind in CONTENT or kind in ("ended", "error")
        elif not isinstance(message.value, dict):
            self.undecoded += 1
        stream, run = self._attribute(client, frame)
        if kind in ("subscribed", "gap"):
            self._signal(client, frame)
            return
        if frame.position is None:
            is_content = kind in NUMBERED or (kind == "other" and _is_identified(frame))
            client.unnumbered = client.unnumbered or is_content
        elif self._is_replayed(client, run, frame):
            return
        self.rules.judge(client, run, stream, frame)

    # Attribution

    def _client_of(self, message: Message) -> ClientState:
        client = self.clients.get(message.client)
        if client is None:
            client = self.clients[message.client] = ClientState(message)
        elif message.connection != client.connection:
            self._reconnect(client, message)
        if message.thread != client.stated_thread or message.user != client.stated_user:
            client.restate(message)
        client.last = message.index
        return client

    def _attribute(self, client: ClientState, frame: ObservedFrame) -> tuple[StreamState | None, RunState | None]:
        key = self._key(client, frame)
        stream = None if key is None else client.streams.get(key)
        run = self._run_of(client, stream, frame)
        if key is not None and run is not None and (stream is None or stream.run is not run):
            of_run = (key[0], f"{key[1]} of {run}")  # several runs use this id
            found = client.streams.get(of_run)
            if found is not None or (stream is not None and stream.run and frame.kind not in ACROSS_RUNS):
                key, stream = of_run, found
        if stream is None and key is not None and frame.kind not in UNCLEAR:
            stream = StreamState(key[1], key[0] == "call", client.id, run, frame.origin)
            has_started = bool(client.open_runs) if run is None else run.started
            if not has_started and self.rules.pairs_runs and frame.kind not in BEGINNINGS and frame.kind != "tool":
                stream.uncertain = NO_BEGINNING
            self.rules.remember(client, key, stream)
            if frame.run is None:  # otherwise, the run shows the owner
                self.owners.saw(key, client, frame)
        if frame.thread not in (None, client.thread) or frame.user not in (None, client.user):
            self.owners.check_ids(self.findings, client, frame)
        if frame.run is frame.thread is frame.user is None and (
            stream is None or stream.id is None or frame.implicit or frame.kind == "tool"
        ):
            client.unidentified += 1
        return stream, run

    def _run_of(self, client: ClientState, stream: StreamState | None, frame: ObservedFrame) -> RunState | None:
        """Return the run that a frame names, or the run of its message or call, or the only open run.

        If no run is open, return the client's latest run. If each connection is a run, return the connection's run.
        """
        run_id = frame.run
        if run_id is not None:
            client.run = client.runs.get(run_id) or self._new_run(client, run_id, frame)
            return client.run
        if self.dialect.run_is_connection:
            if client.run is None:
                client.run = self._new_run(client, f"{client.id} connection {client.connection}", frame)
            return client.run
        if frame.kind == "started":
            return None
        run = None if stream is None else stream.run
        if run is not None and not (run.ended and frame.kind in ACROSS_RUNS and client.open_runs):
            return run
        if len(client.open_runs) == 1:
            return next(iter(client.open_runs.values()))
        return None if client.open_runs else client.run

    def _key(self, client: ClientState, frame: ObservedFrame) -> StreamKey | None:
        kind = frame.kind
        if frame.call is not None:
            key: StreamKey = ("call", frame.call)
        elif kind == "thinking" or (kind in UNCLEAR and ("thinking", frame.message) in client.streams):
            key = ("thinking", frame.message)
        elif kind in ("text", "text_begin", "text_end", *UNCLEAR):
            key = ("text", frame.message)
        else:
            key = ("call", None)
        if frame.implicit:  # a chunk without an id continues the previous chunk
            last = (key[0], frame.group)
            if key[1] is None:
                return client.chunks.get(last)
            client.chunks[last] = key
        return key if key[1] is not None or kind == "thinking" else None

    def _new_run(self, client: ClientState, run_id: str, frame: ObservedFrame) -> RunState:
        run = RunState(run_id, client.id, *frame.origin.place)
        client.runs[run_id] = client.open_runs[run_id] = run
        self.owners.saw(("run", run_id), client, frame)
        return run

    def _reconnect(self, client: ClientState, message: Message) -> None:
        client.connection, client.reconnected_at = message.connection, message.index
        if self.dialect.run_is_connection:
            client.run = None
        if client.is_numbered:  # Positions show which frames are repeated or missing.
            return
        for stream in client.streams.values():
            if not stream.ended:
                stream.uncertain = "a reconnect may repeat or omit some of its frames, which have no position"
                stream.status = None

    # Positions

    def _signal(self, client: ClientState, frame: ObservedFrame) -> None:
        client.subscribed.add(frame.thread)
        if client.stated_thread is None:
            client.thread = frame.thread if len(client.subscribed) == 1 else None
        key = frame.thread if self.dialect.position_per == "thread" else None
        numbering = client.numberings.get(key)
        if frame.kind == "gap":
            if numbering is not None and frame.first_position is not None:
                numbering.announce(frame.first_position, frame.position)
                self._signalled(frame)
        elif frame.position is not None:
            if numbering is None or client.epochs.get(key) != frame.group:
                client.numberings[key] = Numbering(frame.position + 1, frame.origin.connection)
            client.epochs[key] = frame.group

    def _signalled(self, frame: ObservedFrame) -> None:
        if frame.text != "coalesced":
            text = f"the server announced that {frame.first_position} to {frame.position or 'the end'} will not arrive"
            self.findings.broken(
                Property.LOST, "signalled gap", f"position {frame.first_position}", f"{text}: {frame.text}",
                "a gap signal", frame.origin,
            )  # fmt: skip

    def _is_replayed(self, client: ClientState, run: RunState | None, frame: ObservedFrame) -> bool:
        """Return whether the frame repeats one that arrived before a reconnect."""
        index, part = frame.origin.place
        place = (index, 0 if self.dialect.numbers_messages else part, frame.position)
        if client.placed[0] != place:
            client.placed = (place, self._add_position(client, run, frame))
        return client.placed[1]

    def _add_position(self, client: ClientState, run: RunState | None, frame: ObservedFrame) -> bool:
        """Add the frame's positions to the frame's numbering.

        Return whether the positions repeat those that arrived before a reconnect.
        """
        last = frame.position
        assert last is not None
        connection = frame.origin.connection
        if self.dialect.position_per == "run" and run is None:
            for which in (Property.LOST, Property.DUPLICATED, Property.ORDER, Property.RESUME):
                self.findings.unknown(which, "each run numbers its positions, and some frames do not name their run")
            client.unplaced = True
            return False
        key = self.dialect.numbering_of(frame, None if run is None else run.id)
        first = frame.first_position if frame.first_position is not None else last
        numbering = client.numberings.get(key)
        expected = self.dialect.first_position
        if expected is not None and last < expected:
            return False
        if numbering is None:  # if the recording may begin in the middle, the first position is unknown
            known = expected is not None and first <= expected
            numbering = client.numberings[key] = Numbering(expected if known else None, connection)
        step = numbering.add(first, last, connection, frame.origin.index)
        if (broken := BROKEN_STEPS.get(step)) is not None:
            which, rule, text = broken
            subject = f"position {first}"
            self.findings.broken(which, rule, subject, f"{subject} {text}", POSITIONS, frame.origin)
        return step is PositionStep.REPLAYED


def _is_identified(frame: ObservedFrame) -> bool:
    """Return whether a frame names its run, message or call, or holds a text."""
    return not frame.run is frame.message is frame.call is frame.text is None
