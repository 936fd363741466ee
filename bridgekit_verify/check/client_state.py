"""Holds the state of each client, each run, and each streamed text or call. Long texts are hashed to save memory."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard

from bridgekit_verify.check.frames import Message
from bridgekit_verify.check.numbering import Numbering
from bridgekit_verify.check.property_answers import Property

__all__ = ["ClientState", "RunState", "StreamKey", "StreamState", "fingerprint", "is_json"]

StreamKey = tuple[str, str | None]
"""The channel (text, thinking or call), and the id of the message or call."""

KEPT_CHARACTERS: Final = 16_384
"""Arguments of at most this length (in UTF-16 units) are kept and compared as JSON. Longer arguments are compared as
text."""


class ClientState:
    """The state of one client: its runs, messages and calls."""

    __slots__ = (
        "chunks", "connection", "epochs", "id", "last", "numberings", "open_runs", "placed", "reconnected_at", "run",
        "runs", "starts_inside", "stated_thread", "stated_user", "streams", "subscribed", "thread",
        "unattributed_ends", "unattributed_starts", "unidentified", "unmapped_after_end", "unnumbered", "unplaced",
        "user",
    )  # fmt: skip

    def __init__(self, message: Message) -> None:
        self.id = message.client
        self.user = self.stated_user = message.user
        self.thread = self.stated_thread = message.thread
        self.connection = message.connection
        self.last = message.index
        self.reconnected_at = 0
        """The index of the first message after the latest reconnect, or 0 if there was none."""
        self.runs: dict[str, RunState] = {}
        self.open_runs: dict[str, RunState] = {}
        self.run: RunState | None = None
        """The run of the latest frame that named a run."""
        self.subscribed = set[str | None]()
        """The threads whose subscription the server confirmed for this client."""
        self.streams: dict[StreamKey, StreamState] = {}
        self.numberings: dict[str | None, Numbering] = {}
        self.epochs: dict[str | None, str | None] = {}
        """For each thread, the latest epoch that the server named. A different epoch starts a new numbering."""
        self.unattributed_starts = 0
        """The number of start frames that name no run."""
        self.unattributed_ends = 0
        """The number of end frames that could not be attributed to a run."""
        self.chunks: dict[StreamKey, StreamKey] = {}
        """For each channel and group, the message or call of the latest chunk. The next chunk without an id continues
        this message or call."""
        self.starts_inside: bool | None = None
        """True if the client's first frame belongs to a run that started before the recording."""
        self.unidentified = 0
        """The number of frames that name no run, thread, user, message or call."""
        self.unmapped_after_end: int | None = None
        self.unnumbered = False
        """True if a frame had no position, so that a repeated frame cannot be recognized."""
        self.placed: tuple[object, bool] = (None, False)
        """The place of the latest position, and whether the position repeats an earlier one. The frames of one message
        have the same position, which counts once."""
        self.unplaced = False
        """True if each run numbers its own positions and the run of a frame was unknown. Missing positions are then not
        reported."""

    def restate(self, message: Message) -> None:
        """Take the user and the thread that a message states.

        If messages state different users, `user` becomes None, and likewise `thread`.
        """
        if message.user not in (None, self.stated_user):
            self.user = message.user if self.stated_user is None else None
            self.stated_user = message.user
        if message.thread not in (None, self.stated_thread):
            self.thread = message.thread if self.stated_thread is None else None
            self.stated_thread = message.thread

    @property
    def is_numbered(self) -> bool:
        return bool(self.numberings) and not self.unnumbered

    def may_repeat(self, index: int) -> bool:
        """Return True if message `index` arrived before the latest reconnect, and positions cannot show copies."""
        return index < self.reconnected_at and not self.is_numbered


@dataclass(slots=True, eq=False)
class RunState:
    """The state of one run at one client."""

    id: str
    client: str
    first: int
    first_part: int
    started: bool = False
    ended: int = 0
    ended_at: int = 0
    begins_with_end: bool = False
    """True if the first frame of the run is its end."""
    failed: bool = False
    reported_after_end: bool = False
    last_kind: str = ""
    is_known: bool = False
    """True if the dialect names the kind of a frame of the run."""
    unattributed: bool = False
    """True if a frame of a text or call of the run names no message and no call."""
    open: set[StreamState] = field(default_factory=set)
    """Texts and calls that have begun and have not ended."""

    def __str__(self) -> str:
        return f"run {self.id}"

    def begins_with(self, message: Message) -> bool:
        return message.place == (self.first, self.first_part)


class StreamState:
    """The state of one message or call: its deltas, and the complete values to compare the deltas with."""

    __slots__ = (
        "_digest", "_fingerprint", "_hash", "_pieces", "begun", "characters", "client", "ended", "first",
        "first_part", "id", "implicit", "is_again", "is_call", "left_open", "pending", "resulted", "run", "status",
        "uncertain", "whole",
    )  # fmt: skip

    def __init__(self, stream_id: str | None, is_call: bool, client: str, run: RunState | None, first: Message) -> None:
        self.id, self.is_call, self.client, self.run = stream_id, is_call, client, run
        self.first, self.first_part = first.place
        self.begun = self.ended = self.resulted = False
        self.implicit = False
        """True if the message or call began with its first delta, and therefore needs no end frame."""
        self.is_again = False
        """True if the same id was used before, for another text or for another part of the text."""
        self.characters = 0
        self.uncertain: str | None = None
        """The reason why the received deltas may be incomplete."""
        self.whole: bytes | None = None
        """The fingerprint of the complete value of a call that has no deltas."""
        self.pending: tuple[Any, int] | None = None
        """A complete value that arrived before the end of the message or call, with the `Message.index` of the
        value."""
        self.left_open: Message | None = None
        """The end of the run that ended before this message or call, or None."""
        self.status: str | None = None
        """`equal` or `different`, once a complete value was compared with the deltas."""
        self._hash: Any = None
        self._digest: bytes | None = None
        self._fingerprint: bytes | None = None
        self._pieces: list[str] | None = []

    def __str__(self) -> str:
        return f"{'call' if self.is_call else 'message'} {self.id}"

    def begins_with(self, message: Message) -> bool:
        return message.place == (self.first, self.first_part)

    @property
    def key(self) -> StreamKey:
        return "call" if self.is_call else "text", self.id

    @property
    def content(self) -> Property:
        """The property that is broken if the deltas differ from the complete value."""
        return Property.ARGUMENTS if self.is_call else Property.TEXT

    @property
    def completeness(self) -> Property:
        """The property that is broken if the message or call has no beginning or no end."""
        return Property.CALLS if self.is_call else Property.LOST

    def append(self, text: str) -> None:
        self.characters += _length(text)
        if self._pieces is not None:
            self._pieces.append(text)
            if self.characters > KEPT_CHARACTERS or len(self._pieces) > 64:
                self._shorten()
        elif self._hash is not None:
            self._hash.update(_bytes(text))

    def _shorten(self) -> None:
        """Join the pieces of a short call's arguments. Replace the pieces of a message or a long call with a hash."""
        assert self._pieces is not None
        text = "".join(self._pieces)
        if self.is_call and self.characters <= KEPT_CHARACTERS:
            self._pieces = [text]
        else:
            self._hash, self._pieces = hashlib.blake2b(_bytes(text), digest_size=16), None

    def _sum(self) -> bytes | None:
        return self._digest if self._hash is None else self._hash.digest()

    def release(self) -> None:
        """Replace the text or the arguments with a hash, because the message or call has ended."""
        if self._pieces is not None:
            text = "".join(self._pieces)
            if self.is_call:
                self._fingerprint = fingerprint(text)
            self._hash, self._pieces = hashlib.blake2b(_bytes(text), digest_size=16), None
        self._digest, self._hash = self._sum(), None

    @property
    def text(self) -> str | None:
        """The text or the arguments, or None if only a hash is kept."""
        return None if self._pieces is None else "".join(self._pieces)

    def equals(self, whole: Any) -> bool | None:
        """Return whether a complete value equals the deltas.

        Arguments are equal if they are the same JSON. Return None if the values cannot be compared.
        """
        if isinstance(whole, str) and _length(whole) == self.characters:
            data = _bytes(whole)
            if self._pieces is not None:
                if _bytes("".join(self._pieces)) == data:
                    return True
            elif self._sum() == hashlib.blake2b(data, digest_size=16).digest():
                return True
        if not self.is_call:
            return False if isinstance(whole, str) else None
        own = self._fingerprint if self._pieces is None else fingerprint("".join(self._pieces))
        return None if own is None else own == fingerprint(whole)


def fingerprint(value: Any) -> bytes:
    """Return a hash of arguments, which are text or decoded JSON. Equal JSON values have equal hashes."""
    decoded = _decoded(value)
    text = repr(value) if decoded is None else json.dumps(decoded, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _decoded(value: Any) -> Any:
    """Return a tuple with the decoded value, or None if the text is not JSON.

    Empty arguments count as an empty object.
    """
    if not isinstance(value, str):
        return (value,)
    try:
        return (json.loads(value),) if value.strip() else ({},)
    except (ValueError, RecursionError):
        return None


def is_json(text: str) -> TypeGuard[str]:
    return _decoded(text) is not None


def _length(text: str) -> int:
    """Return the length in UTF-16 units, so that two halves of a surrogate pair are as long as the pair."""
    return len(text) if text.isascii() else len(_bytes(text)) // 2


def _bytes(text: str) -> bytes:
    # Two halves of a surrogate pair in two deltas encode to the same bytes as the pair in a complete value.
    return text.encode("utf-16-le", "surrogatepass")
