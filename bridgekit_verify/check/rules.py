"""The rules about runs, messages and calls.

Each rule judges one frame by the state of the run, message or call to which the frame was attributed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from bridgekit_verify.check.client_state import ClientState, RunState, StreamKey, StreamState, fingerprint, is_json
from bridgekit_verify.check.dialects import StreamDialect
from bridgekit_verify.check.frames import Message, ObservedFrame
from bridgekit_verify.check.id_owners import Owners
from bridgekit_verify.check.property_answers import Evidence, Findings, Property

__all__ = ["BEGINNINGS", "CONTENT", "CONTRADICTION", "NO_BEGINNING", "NO_END", "Rules"]

KEPT_STREAMS: Final = 20_000
"""How many ended messages and calls of all clients together are kept, to compare them with later snapshots."""
MAX_OPEN_STREAMS: Final = 40_000
MAX_EVICTIONS: Final = 8
"""When a new message or call begins, at most this many old ones are examined to find one to forget."""
KEPT_RUNS: Final = 5_000
CONTRADICTION: Final = "the recording contradicts itself"
CONTENT: Final = frozenset(
    {"text_begin", "text", "text_end", "thinking", "tool_begin", "tool_args", "tool_end", "tool", "tool_result",
     "snapshot", "event"}
)  # fmt: skip
"""The kinds of frames that must not follow the end of their run."""
NO_BEGINNING: Final = "its beginning is not in the recording"
NO_END: Final = "it has no end"
NOT_STREAMED: Final = "a snapshot holds messages or calls that were not streamed in this recording"
UNNAMED: Final = "the dialect does not name the kind of some of its frames"
BEGINNINGS: Final = {"text_begin", "tool_begin"}

Handler = Callable[[ClientState, RunState | None, StreamState, ObservedFrame], None]


class Rules:
    """The rules that apply to the frames of a dialect."""

    def __init__(self, dialect: StreamDialect, findings: Findings, owners: Owners) -> None:
        self.dialect, self.findings, self.owners = dialect, findings, owners
        self.forgotten = 0
        self.unattributed_texts = self.unattributed_calls = 0
        """The numbers of frames that belong to a message or call, but name none."""
        self.unnamed_texts = self.unnamed_calls = self.unnamed_early = 0
        """The numbers of frames whose kind the dialect does not name: with a text or an id, and before a start."""
        has, fields = dialect.kinds.__contains__, dialect.fields
        self.knows_runs = "run" in fields or dialect.run_is_connection
        self._knows_calls = "call" in fields and has("tool_begin")
        self._knows_texts = "message" in fields and has("text_begin")
        self._calls_end = self._knows_calls and has("tool_end")
        self._texts_end = "message" in fields and has("text_end")
        self.pairs_runs = self.knows_runs and has("started") and (has("ended") or has("error"))
        self._sums_text = "text" in fields and "message" in fields and has("text")
        self._sums_args = "text" in fields and "call" in fields and has("tool_args")
        self._streams: deque[tuple[ClientState, StreamKey, StreamState]] = deque()
        self._forgot_open = False
        """True if a message or call was forgotten before its end, so that its deltas may be incomplete."""
        self._past_runs: deque[tuple[ClientState, RunState]] = deque()
        self._handlers: dict[str, Handler] = {
            "text_begin": self._begin, "text": self._delta, "text_end": self._end, "thinking": self._delta,
            "tool_begin": self._begin, "tool_args": self._delta, "tool_end": self._end, "tool": self._whole_call,
            "tool_result": self._result, "snapshot": self._snapshot,
        }  # fmt: skip
        """The rule for each kind of frame of a text or call."""

    def judge(
        self, client: ClientState, run: RunState | None, stream: StreamState | None, frame: ObservedFrame
    ) -> None:
        """Judge a frame. `run` or `stream` is None if the frame could not be attributed."""
        kind = frame.kind
        if client.reconnected_at and self._is_repeated(client, run, stream, kind):
            return
        if run is not None:
            self._note_run(client, run, frame)
        handler = self._handlers.get(kind)
        if kind == "other" or (stream is None and handler is not None):
            self._leave(run, stream, frame)
        elif stream is not None and handler is not None:
            handler(client, run, stream, frame)
        elif kind in ("ended", "error"):
            self._end_run(client, run, frame)
        elif kind == "started" and self.knows_runs:
            self._start_run(client, run, frame)

    def _leave(self, run: RunState | None, stream: StreamState | None, frame: ObservedFrame) -> None:
        """Count a frame whose kind, message or call is unknown, and record which answers become uncertain."""
        if frame.kind == "other":
            if stream is not None:
                stream.uncertain = UNNAMED
            of_text = frame.message is not None or frame.text is not None
            self.unnamed_calls += frame.call is not None or (of_text and frame.message is None)
            self.unnamed_texts += of_text and frame.call is None
            names_none = frame.text is not None and frame.message is frame.call is None
        else:
            names_none = frame.kind != "snapshot"
            self.unattributed_calls += frame.kind.startswith("tool")
            self.unattributed_texts += frame.kind.startswith("text")
        if run is not None:
            run.unattributed |= names_none
        if frame.kind == "snapshot" and frame.whole is not None:
            self.findings.unknown(Property.SNAPSHOT, NOT_STREAMED)

    def _is_repeated(self, client: ClientState, run: RunState | None, stream: StreamState | None, kind: str) -> bool:
        """Return True if a frame may repeat one from before a reconnect, and no position shows whether it does."""
        if kind == "snapshot":
            return False
        if stream is not None:
            done = stream.resulted if kind == "tool_result" else stream.ended and kind not in BEGINNINGS
            return done and client.may_repeat(stream.first)
        if run is None:
            return False
        if kind == "started":
            return run.started and not run.ended and client.may_repeat(run.first)
        if run.ended and client.may_repeat(run.ended_at):
            self.findings.unknown(Property.END_LAST, f"after a reconnect, frames of {run} follow its end, or repeat it")
            return True
        return False

    def _contradicts(
        self, which: Property, rule: str, subject: RunState | StreamState, text: str, message: Message,
        earlier: int | None = None,
    ) -> None:  # fmt: skip
        """Report that a message contradicts what its client received before, for example in the message `earlier`."""
        if isinstance(subject, StreamState) and (reason := self._doubt(subject)) is not None:
            self.findings.unknown(which, f"{subject}: {reason}")
            return
        frames = (message,) if earlier is None else (Evidence(earlier, subject.client), message)
        self.findings.broken(which, rule, str(subject), text, CONTRADICTION, *frames)

    def _doubt(self, stream: StreamState) -> str | None:
        """Return the reason why the frames of a message or call may be incomplete, or may be those of several."""
        if not self.knows_runs:
            return "without a run, several messages or calls may have its id"
        if stream.uncertain == UNNAMED:
            return UNNAMED
        return "frames of its run name no message and no call" if stream.run and stream.run.unattributed else None

    # Runs

    def _note_run(self, client: ClientState, run: RunState, frame: ObservedFrame) -> None:
        if not run.is_known:  # frames of another kind may precede the start, such as a reply
            self.unnamed_early += run.last_kind == "other" and frame.kind == "started"
            run.first, run.first_part = frame.origin.place
        run.last_kind, run.is_known = frame.kind, run.is_known or frame.kind != "other"
        if run.ended and frame.kind == "other":
            client.unmapped_after_end = frame.origin.index
        elif run.ended and frame.kind in CONTENT and self.knows_runs and not run.reported_after_end:
            run.reported_after_end = True
            text = f"a frame of {run} follows its end"
            self._contradicts(Property.END_LAST, "after the end", run, text, frame.origin, run.ended_at)

    def _start_run(self, client: ClientState, run: RunState | None, frame: ObservedFrame) -> None:
        if run is None:
            client.unattributed_starts += 1
            return
        if run.started and not run.ended:
            text = f"{run} starts again before it ended"
            self._contradicts(Property.DUPLICATED, "started twice", run, text, frame.origin, run.first)
        elif not run.started and not run.begins_with(frame.origin):
            text = f"a frame of {run} arrives before its start"
            self._contradicts(Property.ORDER, "starts late", run, text, frame.origin, run.first)
        elif run.ended:
            run.ended, run.failed, run.reported_after_end = 0, False, False
            client.open_runs[run.id] = run
        run.started = True
        self.owners.began(("run", run.id), client.id)

    def _end_run(self, client: ClientState, run: RunState | None, frame: ObservedFrame) -> None:
        if run is None or not self.knows_runs:
            client.unattributed_ends += 1
            return
        if frame.implicit:  # its end may follow
            run.failed = True
            return
        run.ended += 1
        if run.ended > 1:
            text = f"{run} ends {run.ended} times"
            self._contradicts(Property.ENDED, "ended twice", run, text, frame.origin, run.ended_at)
            return
        run.ended_at, run.failed = frame.origin.index, run.failed or frame.kind == "error"
        run.begins_with_end = run.begins_with(frame.origin)
        client.open_runs.pop(run.id, None)
        if not client.open_runs:
            client.chunks.clear()
        self.settle(run, frame.origin)
        self._past_runs.append((client, run))
        if len(self._past_runs) > KEPT_RUNS:
            owner, old = self._past_runs.popleft()
            if owner.runs.get(old.id) is old and old.ended and owner.run is not old:
                del owner.runs[old.id]
                self.owners.forget(("run", old.id))
                numbering = owner.numberings.get(old.id)
                if self.dialect.position_per == "run" and numbering and numbering.complete:
                    del owner.numberings[old.id]

    def settle(self, run: RunState, message: Message | None) -> None:
        """Judge the texts and calls that are still open when their run ends."""
        for stream in sorted(run.open, key=lambda each: each.first):
            left_open = not stream.ended and stream.begun and not stream.implicit and self._knows_end(stream)
            if left_open and not run.failed:
                stream.left_open = message
            stream.ended = True
            self._compare_pending(stream)
            if left_open:
                stream.uncertain = stream.uncertain or NO_END
            stream.release()
        run.open.clear()

    def conclude(self, stream: StreamState) -> None:
        """Report a text or call that has no end, not even after the end of its run."""
        if stream.left_open is not None:
            text = f"{stream} has begun and has no end, although its run ended"
            self._contradicts(stream.completeness, "not ended", stream, text, stream.left_open, stream.first)

    def expects_result(self, stream: StreamState) -> bool:
        """Return whether a call has no result so far, although the dialect has results."""
        return stream.is_call and not stream.resulted and "tool_result" in self.dialect.kinds

    def _knows_begin(self, stream: StreamState) -> bool:
        return self._knows_calls if stream.is_call else self._knows_texts

    def _knows_end(self, stream: StreamState) -> bool:
        return self._calls_end if stream.is_call else self._texts_end

    # Texts and calls

    def _begin(self, client: ClientState, run: RunState | None, stream: StreamState, frame: ObservedFrame) -> None:
        if not self._knows_begin(stream):
            return
        again = stream.begun and client.may_repeat(stream.first)
        if stream.begun and not again and (stream.is_call or not stream.ended):
            text = f"{stream} begins again"
            self._contradicts(Property.DUPLICATED, "begun twice", stream, text, frame.origin, stream.first)
            return
        if stream.ended or again:  # The id is reused for another text, or the whole text is sent again.
            if stream.run is not None:
                stream.run.open.discard(stream)
            self.conclude(stream)
            stream = StreamState(stream.id, stream.is_call, client.id, run, frame.origin)
            stream.is_again = True
            self.remember(client, stream.key, stream)
        elif not stream.begun and not stream.begins_with(frame.origin):
            text = f"a frame of {stream} arrives before its beginning"
            self._contradicts(Property.ORDER, "begins late", stream, text, frame.origin, stream.first)
        stream.begun, stream.run = True, run
        self.owners.began(stream.key, client.id)
        if run is not None:
            run.open.add(stream)

    def _delta(self, client: ClientState, run: RunState | None, stream: StreamState, frame: ObservedFrame) -> None:
        if not stream.begun:
            self._begin_by_delta(run, stream, frame)
        elif stream.ended and not stream.left_open and not stream.implicit and self._knows_end(stream):
            which = Property.ARGUMENTS if stream.is_call else Property.ORDER
            self._contradicts(which, "after its end", stream, f"a delta of {stream} follows its end", frame.origin)
        if isinstance(frame.text, str):
            stream.append(frame.text)
            stream.pending = None
            if stream.status == "equal":  # a further delta follows the compared value
                stream.status = None

    def _begin_by_delta(self, run: RunState | None, stream: StreamState, frame: ObservedFrame) -> None:
        if run is not None:
            run.open.add(stream)
        if self._forgot_open:
            stream.uncertain = "its first deltas may be forgotten: too many messages and calls had no end"
        if frame.implicit or frame.kind == "thinking":
            stream.begun = stream.implicit = True
        elif self._knows_begin(stream) and stream.begins_with(frame.origin):
            stream.uncertain = NO_BEGINNING

    def _end(self, client: ClientState, run: RunState | None, stream: StreamState, frame: ObservedFrame) -> None:
        if frame.implicit and not stream.begun and not stream.characters:
            self._whole_call(client, run, stream, frame)
            return
        if not stream.begun:
            self._ended_unbegun(stream, frame)
        elif stream.left_open is not None:
            stream.left_open = None
        elif stream.ended and not frame.implicit and self._knows_end(stream):
            self._contradicts(Property.DUPLICATED, "ended twice", stream, f"{stream} ends again", frame.origin)
        stream.ended = True
        if frame.whole is not None:
            self._compare(stream, frame.whole, frame.origin)
        self._compare_pending(stream)
        if stream.is_call:
            self._check_json(stream, frame.origin)
        if run is not None:
            run.open.discard(stream)
        stream.release()

    def _ended_unbegun(self, stream: StreamState, frame: ObservedFrame) -> None:
        """Report a message or call whose beginning did not arrive, unless the start of its run may be missing too."""
        if not self._knows_begin(stream) or (stream.is_call and frame.implicit):
            return
        if stream.run is not None and stream.run.started:
            text = f"{stream} ends, but it did not begin here"
            self._contradicts(stream.completeness, "no beginning", stream, text, frame.origin, stream.first)
        else:
            self.findings.unknown(stream.completeness, f"{stream} may have begun before the recording")

    def _whole_call(self, client: ClientState, run: RunState | None, stream: StreamState, frame: ObservedFrame) -> None:
        """Judge a frame that holds a whole call: its beginning, its arguments and its end."""
        if stream.begun and not stream.ended:  # The call was announced, and now arrives complete.
            self._end(client, run, stream, frame)
            return
        if stream.begun:
            text = f"{stream} arrives again"
            self._contradicts(Property.DUPLICATED, "begun twice", stream, text, frame.origin, stream.first)
            return
        stream.begun = stream.ended = True
        if frame.whole is not None:
            stream.whole = fingerprint(frame.whole)
        stream.release()

    def _result(self, client: ClientState, run: RunState | None, stream: StreamState, frame: ObservedFrame) -> None:
        if stream.resulted:
            self._contradicts(Property.DUPLICATED, "result twice", stream, f"{stream} has two results", frame.origin)
        if not stream.begun:  # The result may belong to a call of an earlier run.
            self.findings.unknown(Property.CALLS, f"{stream} may have begun before the recording")
        stream.resulted = True

    def _snapshot(self, client: ClientState, run: RunState | None, stream: StreamState, frame: ObservedFrame) -> None:
        if frame.whole is None:
            return
        if stream.ended:
            self._compare(stream, frame.whole, frame.origin)
        elif stream.equals(frame.whole):  # equal so far, which is final only if no frame marks the end
            stream.status = "equal" if stream.implicit else None
        else:
            stream.pending = (frame.whole, frame.origin.index)

    # Complete values

    def _compare_pending(self, stream: StreamState) -> None:
        if stream.pending is not None:
            (whole, index), stream.pending = stream.pending, None
            self._compare(stream, whole, Message(stream.client, 0, index, whole))

    def _compare(self, stream: StreamState, whole: Any, message: Message) -> None:
        """Compare a complete value with the deltas, or with an earlier complete value."""
        equal = self._equals(stream, whole)
        if equal is None:
            return
        if equal:
            stream.status = stream.status or "equal"
            return
        if stream.is_again or stream.uncertain is not None:
            reason = stream.uncertain or "several parts have its id"
            self.findings.unknown(Property.SNAPSHOT, f"{stream}: {reason}")
            return
        stream.status = "different"
        length = len(whole) if isinstance(whole, str) else "other"
        sizes = f"have {stream.characters} characters, but the complete value has {length}"
        text = f"the deltas of {stream} {sizes if length != stream.characters else 'differ from the complete value'}"
        for which in (stream.content, Property.SNAPSHOT):
            self._contradicts(which, "differs", stream, text, message, stream.first)

    def _equals(self, stream: StreamState, whole: Any) -> bool | None:
        """Return whether a complete value equals what was received, or None if the two cannot be compared."""
        if stream.whole is not None:
            return stream.whole == fingerprint(whole)
        return stream.equals(whole) if (self._sums_args if stream.is_call else self._sums_text) else None

    def _check_json(self, stream: StreamState, message: Message) -> None:
        text = stream.text
        promised = self.dialect.json_arguments or (text or "").startswith(("{", "["))
        delivered = stream.status == "equal" or stream.uncertain is not None  # the model may have sent invalid JSON
        if text and text.strip() and promised and not delivered and not is_json(text):
            stream.status = "different"
            problem = f"the arguments of {stream} are not JSON: {text[:60]!r}"
            self._contradicts(Property.ARGUMENTS, "not JSON", stream, problem, message, stream.first)

    def remember(self, client: ClientState, key: StreamKey, stream: StreamState) -> None:
        """Keep a message or call.

        If more than KEPT_STREAMS are kept, forget the oldest that has ended. If more than MAX_OPEN_STREAMS are kept,
        forget the oldest even if it has not ended.
        """
        client.streams[key] = stream
        kept = self._streams
        kept.append((client, key, stream))
        for _ in range(MAX_EVICTIONS if len(kept) > KEPT_STREAMS else 0):
            owner, old_key, old = kept.popleft()
            if not old.ended and len(kept) < MAX_OPEN_STREAMS:
                kept.append((owner, old_key, old))
            elif owner.streams.get(old_key) is old:
                del owner.streams[old_key]
                self.owners.forget(old_key)
                self.conclude(old)
                self.forgotten += old.status is None or self.expects_result(old)
                self._forgot_open |= not old.ended
                if old.run is not None:
                    old.run.open.discard(old)
                break
