"""Finds markers in what clients received: a pure function from frames to occurrences, one client at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple

from bridgekit_verify.check.dialects import StreamDialect
from bridgekit_verify.check.frames import Message, ObservedFrame, encode_json
from bridgekit_verify.check.live.markers import MARKER, PROMPT, Marker, canaries_in, markers_in
from bridgekit_verify.check.property_answers import Evidence, excerpt

__all__ = ["ObservedClient", "Occurrence", "TextRun", "observe", "raw_text"]

DELTAS: Final = {"text": "text", "thinking": "thinking", "tool_args": "arguments"}
"""The channel of a stream, by the kind of its deltas."""
ENDS: Final = ("ended", "error")


class Occurrence(NamedTuple):
    """One arrival of a marker: in a delta, a replayed delta, a complete value, or elsewhere in a message (`raw`)."""

    how: Literal["delta", "replay", "whole", "raw"]
    message: Message
    position: int | None = None


@dataclass
class TextRun:
    """The deltas of one message or call, joined in order of arrival."""

    kind: str
    id: str | None
    texts: list[str] = field(default_factory=list)
    origins: list[tuple[Message, int | None, str | None]] = field(default_factory=list)
    """The message, position and thread of each delta."""

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def origin_of(self, ends: list[int]) -> list[tuple[Message, int | None, str | None]]:
        """Return the origin of each of these ascending indexes of the joined text."""
        index, length, found = 0, len(self.texts[0]), []
        for end in ends:
            while length < end:
                index += 1
                length += len(self.texts[index])
            found.append(self.origins[index])
        return found


TextKey = tuple[str, int, str]
"""Canary, call and channel."""


@dataclass
class ObservedClient:
    """What one client received."""

    id: str
    user: str | None
    thread: str | None
    last_connection: int = 0
    occurrences: dict[Marker, list[Occurrence]] = field(default_factory=lambda: defaultdict(list))
    arrivals: list[tuple[Marker, Message]] = field(default_factory=list)
    """Markers in deltas, without replays, in the order in which their last characters arrived."""
    runs: list[TextRun] = field(default_factory=list)
    texts: dict[TextKey, str] = field(default_factory=lambda: defaultdict(str))
    """The concatenated deltas of each channel."""
    whole_texts: dict[TextKey, list[str]] = field(default_factory=lambda: defaultdict(list))
    """The part of each complete value that belongs to a channel."""
    wholes: list[tuple[str | None, Any, Message]] = field(default_factory=list)
    """Complete values, with their call id if they are arguments."""
    canaries: dict[str, list[Evidence]] = field(default_factory=lambda: defaultdict(list))
    """For each canary, excerpts of the first MAX_EVIDENCE messages that contain the canary in any form."""
    canaries_by_message: dict[int, set[str]] = field(default_factory=dict)
    subjects: dict[int, str] = field(default_factory=dict)
    """For each received message, the most specific id that it names: of a call, a message, or a run."""
    positions: dict[int, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    """For each received message, the first and the last position of each span of positions that it states."""
    prompts: set[str] = field(default_factory=set)
    """The prompts that the backend sent back to the client."""
    call_kinds: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """For each call id, the kinds of the call's frames."""
    ids: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """For each subject, such as `run r1`, the canaries in its frames."""
    threads: dict[str, dict[str, Message]] = field(default_factory=lambda: defaultdict(dict))
    """For each thread and canary, the first frame that names the thread and contains the canary."""
    last_kind: str = ""
    ends: list[Message] = field(default_factory=list)
    """The frames that end a run, without replays."""
    fragments: int = 0
    """The number of texts that contain a canary but no complete marker."""
    garbled: list[str] = field(default_factory=list)
    """The texts that contain the brackets and dots of several markers but no complete marker. Pieces of several runs
    may alternate in such a text, or the backend may change its characters."""
    followed: set[TextKey] = field(default_factory=set)
    """The channels after whose pieces another channel continues in the same message."""

    def note_canary(self, canary: str, message: Message, thread: str | None = None) -> None:
        """Record a message with a canary, or with the last part of a marker that several messages hold."""
        if subject := self.subjects.get(message.index):
            self.ids[subject].add(canary)
        if thread is not None:
            self.threads[thread].setdefault(canary, message)
        frames = self.canaries[canary]
        if len(frames) < MAX_EVIDENCE and message.index not in {each.index for each in frames}:
            frames.append(excerpt(message))


MAX_EVIDENCE: Final = 3


class _Reader:
    """Attributes the frames of one client to runs, messages and calls."""

    def __init__(self, client: ObservedClient, dialect: StreamDialect) -> None:
        self.client, self._dialect = client, dialect
        self._streams: dict[tuple[str, str | None, str | None], TextRun] = {}
        self._positions: dict[tuple[str | None, int], int] = {}

    def take(self, message: Message) -> None:
        client = self.client
        client.last_connection = max(client.last_connection, message.connection)
        raw = raw_text(message.value)
        canaries = canaries_in(raw)
        if canaries:
            client.canaries_by_message[message.index] = canaries
        for canary in sorted(canaries):
            client.note_canary(canary, message)
        client.prompts.update(found[0] for found in PROMPT.findall(raw))
        known = set[Marker]()
        for frame in self._dialect.read(message):
            known |= self._take_frame(frame, canaries if frame.origin is message else canaries_of(frame.origin))
        for marker in sorted(set(markers_in(raw)) - known):
            client.occurrences[marker].append(Occurrence("raw", message))

    def _take_frame(self, frame: ObservedFrame, canaries: set[str]) -> set[Marker]:
        """Return the markers that the frame states in a delta or in a complete value."""
        client, message = self.client, frame.origin
        replayed = self._is_replayed(frame)
        self._note_ids(frame, canaries)
        if frame.kind in ENDS and not replayed:
            client.ends.append(message)
        if frame.call is not None:
            client.call_kinds[frame.call].add(frame.kind)
        stated = set[Marker]()
        is_whole = frame.whole is not None and (frame.whole != frame.text or self._begins_again(frame))
        if is_whole:
            client.wholes.append((frame.call, frame.whole, message))
            stated = self._repeat("whole", frame, raw_text(frame.whole))
        if isinstance(frame.text, str) and frame.kind in DELTAS and not (is_whole and frame.whole == frame.text):
            if replayed:
                stated |= self._repeat("replay", frame, frame.text)
            else:
                self._append(frame, frame.text)
                stated |= set(markers_in(frame.text))
        return stated

    def _note_ids(self, frame: ObservedFrame, canaries: set[str]) -> None:
        client, index = self.client, frame.origin.index
        client.last_kind = frame.kind
        for name, id_ in (("run", frame.run), ("message", frame.message), ("call", frame.call)):
            if id_ is not None:
                client.ids[f"{name} {id_}"] |= canaries
                client.subjects[index] = f"{name} {id_}"
        if frame.thread is not None and len(canaries) == 1:
            client.threads[frame.thread].setdefault(next(iter(canaries)), frame.origin)
        if frame.position is not None:
            first = frame.position if frame.first_position is None else frame.first_position
            spans = client.positions[index]
            if spans and spans[-1][1] + 1 == first:
                first = spans.pop()[0]
            spans.append((first, frame.position))

    def _repeat(self, how: Literal["whole", "replay"], frame: ObservedFrame, text: str) -> set[Marker]:
        found = set(markers_in(text))
        for marker in sorted(found):
            self.client.occurrences[marker].append(Occurrence(how, frame.origin, frame.position))
        return found

    def _begins_again(self, frame: ObservedFrame) -> bool:
        """Return whether the text of a frame begins as the text so far, so that it is a complete value."""
        stream = self._streams.get(self._key(frame)) if frame.kind in DELTAS else None
        first = next(filter(None, stream.texts), "") if stream else ""
        return bool(first) and frame.text != first and str(frame.text).startswith(first)

    def _key(self, frame: ObservedFrame) -> tuple[str, str | None, str | None]:
        kind = DELTAS[frame.kind]
        return kind, frame.run, frame.call if kind == "arguments" else frame.message

    def _append(self, frame: ObservedFrame, text: str) -> None:
        key = self._key(frame)
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = TextRun(key[0], key[2])
            self.client.runs.append(stream)
        stream.texts.append(text)
        stream.origins.append((frame.origin, frame.position, frame.thread))

    def _is_replayed(self, frame: ObservedFrame) -> bool:
        """Return whether a frame repeats, after a reconnect, a position that the client already has."""
        if frame.position is None:
            return False
        connection, key = frame.origin.connection, self._dialect.numbering_of(frame, frame.run)
        first = self._positions.setdefault((key, frame.position), connection)
        return first != connection


def observe(messages: Sequence[Message], dialect: StreamDialect) -> dict[str, ObservedClient]:
    """Return what each client received, by the client's name."""
    readers: dict[str, _Reader] = {}
    for message in messages:
        reader = readers.get(message.client)
        if reader is None:
            client = ObservedClient(message.client, message.user, message.thread)
            reader = readers[message.client] = _Reader(client, dialect)
        reader.take(message)
    for reader in readers.values():
        _conclude(reader.client)
    return {name: reader.client for name, reader in readers.items()}


def _conclude(client: ObservedClient) -> None:
    for run in client.runs:
        segments = segments_of(run.text)
        if not segments:
            client.fragments += bool(canaries_in(run.text))
            client.garbled += [run.text] if min(map(run.text.count, "[.]")) > 1 else []
        keys = [marker[:3] for marker, _, _ in segments]
        client.followed.update(key for key, later in pairwise(keys) if key != later)
        origins = run.origin_of([end for _, _, end in segments])
        for (marker, text, _), (message, position, thread) in zip(segments, origins, strict=True):
            client.occurrences[marker].append(Occurrence("delta", message, position))
            client.arrivals.append((marker, message))
            client.texts[marker[:3]] += text
            client.note_canary(marker.canary, message, thread)
    client.arrivals.sort(key=lambda each: each[1].place)
    for call, value, _ in client.wholes:
        if call is None and isinstance(value, str):
            parts: dict[TextKey, str] = defaultdict(str)
            for marker, text, _ in segments_of(value):
                parts[marker[:3]] += text
            for key, text in parts.items():
                client.whole_texts[key].append(text)


def segments_of(text: str) -> list[tuple[Marker, str, int]]:
    """Return each marker, its text up to the next marker, and where the marker ends.

    The space before a marker belongs to the marker's piece, even after a piece of another run.
    """
    found = list(MARKER.finditer(text))
    starts = [each.start() - (each[4] != "1" and text[max(0, each.start() - 1)] == " ") for each in found]
    bounds = [*starts, len(text)]
    return [
        (Marker(each[1], int(each[2]), each[3], int(each[4])), text[bounds[n] : bounds[n + 1]], each.end())
        for n, each in enumerate(found)
    ]


def canaries_of(message: Message) -> set[str]:
    return canaries_in(raw_text(message.value))


def raw_text(value: Any) -> str:
    """Return a value as text, in which markers can be found."""
    return value if isinstance(value, str) else encode_json(value)
