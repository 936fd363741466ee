"""The rules about runs, messages and calls. Each looks at one frame and the state of what it was attributed to."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from bridgekit_verify.check.answers import Evidence, Findings, Property
from bridgekit_verify.check.frames import Message, ObservedFrame
from bridgekit_verify.check.owners import Owners
from bridgekit_verify.check.protocols import StreamDialect
from bridgekit_verify.check.streams import ClientState, RunState, StreamKey, StreamState, fingerprint, is_json

__all__ = ["Rules"]

KEPT_STREAMS: Final = 20_000
"""Messages and calls that ended and are still compared with later snapshots, over all clients."""
MAX_OPEN_STREAMS: Final = 40_000
MAX_EVICTIONS: Final = 8
"""How many of the oldest are looked at, to find one that ended, when a new one begins."""
KEPT_RUNS: Final = 20_000
CONTRADICTION: Final = "the recording contradicts itself"
CONTENT: Final = frozenset(
    {"text_begin", "text", "text_end", "thinking", "tool_begin", "tool_args", "tool_end", "tool", "tool_result",
     "snapshot", "event"}
)  # fmt: skip
"""The kinds of frames that may not follow the end of their run."""

Handler = Callable[[ClientState, RunState | None, StreamState | None, ObservedFrame], None]


class Rules:
    """The rules that a dialect's frames allow."""

    def __init__(self, dialect: StreamDialect, findings: Findings, owners: Owners) -> None:
        self.dialect, self.findings, self.owners = dialect, findings, owners
        self.forgotten = 0
        self.unattributed = 0
        """Deltas that name no message or call."""
        has, fields = dialect.kinds.__contains__, dialect.fields
        self.knows_runs = "run" in fields or dialect.run_is_connection
        self._knows_calls = "call" in fields and has("tool_begin")
        self._knows_texts = "message" in fields and has("text_begin")
        self._texts_end = "message" in fields and has("text_end")
        self.pairs_runs = self.knows_runs and has("started") and (has("ended") or has("error"))
        self._sums_text = "text" in fields and "message" in fields and has("text")
        self._sums_args = "text" in fields and "call" in fields and has("tool_args")
        self._streams: deque[tuple[ClientState, StreamKey, StreamState]] = deque()
        self._forgot_open = False
        """Whether a message or call that had not ended was forgotten: its later deltas are then not all."""
        self._past_runs: deque[tuple[ClientState, RunState]] = deque()
        self.handlers: dict[str, Handler] = {
            "started": self.start_run,
            "ended": self.end_run,
            "error": self.end_run,
            "text_begin": self.begin,
            "text": self.delta,
            "text_end": self.end,
            "thinking": self.delta,
            "tool_begin": self.begin,
            "tool_args": self.delta,
            "tool_end": self.end,
            "tool": self.whole_call,
            "tool_result": self.result,
            "snapshot": self.snapshot,
        }

    # Runs

    def note_run(self, client: ClientState, run: RunState, frame: ObservedFrame) -> None:
        kind = frame.kind
        if run.thread is None:
            run.thread = frame.thread
        if run.ended and kind not in ("started", "ended", "error", "other"):
            self._after_end(client, run, frame)
        elif run.ended and kind == "other":
            client.unmapped_after_end = frame.origin.index
        run.last_kind, run.last_known = kind, kind != "other"

    def _after_end(self, client: ClientState, run: RunState, frame: ObservedFrame) -> None:
        if frame.kind in CONTENT and self.knows_runs and not run.reported_after_end:
            run.reported_after_end = True
            self.findings.broken(
                Property.END_LAST, "after the end", f"run {run.id}",
                f"a frame of run {run.id} follows its end",
                CONTRADICTION, Evidence(run.ended_at, client.id), frame.origin,
            )  # fmt: skip

    def start_run(self, client: ClientState, run: RunState | None, _: StreamState | None, frame: ObservedFrame) -> None:
        if run is None or not self.knows_runs:
            return
        subject = f"run {run.id}"
        if run.started and not run.ended:
            self.findings.broken(
                Property.DUPLICATED, "started twice", subject, f"{subject} starts again before it ended",
                CONTRADICTION, Evidence(run.first, client.id), frame.origin,
            )  # fmt: skip
        elif not run.started and run.first != frame.origin.index:
            self.findings.broken(
                Property.ORDER, "starts late", subject, f"a frame of {subject} arrives before its start",
                CONTRADICTION, Evidence(run.first, client.id), frame.origin,
            )  # fmt: skip
        elif run.ended:
            run.ended, run.failed, run.reported_after_end = 0, False, False
            client.open_runs[run.id] = run
        run.started = True
        self.owners.began(("run", run.id), client.id)

    def end_run(self, client: ClientState, run: RunState | None, _: StreamState | None, frame: ObservedFrame) -> None:
        if run is None or not self.knows_runs:
            client.unattributed_ends += 1
            return
        run.ended += 1
        subject = f"run {run.id}"
        if run.ended > 1:
            self.findings.broken(
                Property.ENDED, "ended twice", subject, f"{subject} ends {run.ended} times",
                CONTRADICTION, Evidence(run.ended_at, client.id), frame.origin,
            )  # fmt: skip
            return
        run.ended_at, run.failed = frame.origin.index, frame.kind == "error"
        client.open_runs.pop(run.id, None)
        self.settle(client, run, frame.origin)
        self._past_runs.append((client, run))
        if len(self._past_runs) > KEPT_RUNS:
            owner, old = self._past_runs.popleft()
            if owner.runs.get(old.id) is old and old.ended and owner.run is not old:
                del owner.runs[old.id]
                self.owners.forget(("run", old.id))
                numbering = owner.numberings.get(old.id)
                if self.dialect.position_per == "run" and numbering and numbering.complete:
                    del owner.numberings[old.id]

    def settle(self, client: ClientState, run: RunState, message: Message | None) -> None:
        """Judge the texts and calls that are open when their run ends."""
        for stream in sorted(run.open, key=lambda each: each.first):
            if message is not None and not run.failed and not stream.ended:
                self._left_open(client, stream, message)
            stream.ended = True
            self._compare_pending(stream)
            stream.release()
        run.open.clear()

    def _left_open(self, client: ClientState, stream: StreamState, message: Message) -> None:
        if stream.implicit:
            return
        if stream.is_call and stream.begun and self._knows_calls and "tool_end" in self.dialect.kinds:
            which, subject = Property.CALLS, f"call {stream.id}"
        elif not stream.is_call and stream.begun and self._texts_end:
            which, subject = Property.LOST, f"message {stream.id}"
        else:
            return
        self.findings.broken(
            which, "not ended", subject, f"{subject} has begun and has no end, although its run ended",
            CONTRADICTION, Evidence(stream.first, client.id), message,
        )  # fmt: skip

    # Texts and calls

    def begin(
        self, client: ClientState, run: RunState | None, stream: StreamState | None, frame: ObservedFrame
    ) -> None:
        if stream is None:
            return
        known = self._knows_calls if stream.is_call else self._knows_texts
        if not known:
            return
        subject = f"{'call' if stream.is_call else 'message'} {stream.id}"
        if stream.begun and (stream.is_call or not stream.ended):
            self.findings.broken(
                Property.DUPLICATED, "begun twice", subject, f"{subject} begins again",
                CONTRADICTION, Evidence(stream.first, client.id), frame.origin,
            )  # fmt: skip
            return
        if stream.ended:  # its id is used again, for another text
            stream = StreamState(stream.id, stream.is_call, client.id, run, frame.origin.index)
            client.streams["text", stream.id] = stream
            self.remember(client, ("text", stream.id), stream)
        elif not stream.begun and stream.first != frame.origin.index:
            self.findings.broken(
                Property.ORDER, "begins late", subject, f"a frame of {subject} arrives before its beginning",
                CONTRADICTION, Evidence(stream.first, client.id), frame.origin,
            )  # fmt: skip
        stream.begun, stream.run = True, run
        self.owners.began(("call" if stream.is_call else "text", stream.id), client.id)
        if run is not None:
            run.open.add(stream)

    def delta(
        self, client: ClientState, run: RunState | None, stream: StreamState | None, frame: ObservedFrame
    ) -> None:
        if stream is None:
            self.unattributed += 1
            return
        if not stream.begun:
            self._begin_by_delta(client, run, stream, frame)
        elif stream.ended and (self._knows_calls if stream.is_call else self._texts_end):
            subject = f"{'call' if stream.is_call else 'message'} {stream.id}"
            self.findings.broken(
                Property.ARGUMENTS if stream.is_call else Property.ORDER,
                "after its end", subject, f"a delta of {subject} follows its end",
                CONTRADICTION, frame.origin,
            )  # fmt: skip
        if isinstance(frame.text, str):
            stream.append(frame.text)
            if frame.position is None:
                client.unnumbered = True

    def _begin_by_delta(
        self, client: ClientState, run: RunState | None, stream: StreamState, frame: ObservedFrame
    ) -> None:
        if run is not None:
            run.open.add(stream)
        known = self._knows_calls if stream.is_call else self._knows_texts
        if self._forgot_open:
            stream.uncertain = "its first deltas may be forgotten: too many messages and calls had no end"
        if frame.implicit:
            stream.begun = stream.implicit = True
        elif known and stream.first == frame.origin.index and frame.kind != "thinking":
            stream.uncertain = "its beginning is not in the recording"

    def end(self, client: ClientState, run: RunState | None, stream: StreamState | None, frame: ObservedFrame) -> None:
        if stream is None:
            return
        if stream.ended and stream.begun and not frame.implicit:
            self._ended_again(stream, frame)
        elif not stream.begun:
            self._ended_unbegun(client, stream, frame)
        stream.ended = True
        if frame.whole is not None:
            self._compare(stream, frame.whole, frame.origin)
        self._compare_pending(stream)
        if stream.is_call:
            self._check_json(stream, frame.origin)
        if run is not None:
            run.open.discard(stream)
        stream.release()

    def _ended_again(self, stream: StreamState, frame: ObservedFrame) -> None:
        if self._knows_calls if stream.is_call else self._texts_end:
            subject = f"{'call' if stream.is_call else 'message'} {stream.id}"
            self.findings.broken(
                Property.DUPLICATED, "ended twice", subject, f"{subject} ends again", CONTRADICTION, frame.origin
            )

    def _ended_unbegun(self, client: ClientState, stream: StreamState, frame: ObservedFrame) -> None:
        if stream.is_call:
            if self._knows_calls and not frame.implicit:
                self._unbegun(client, stream, frame, Property.CALLS)
        elif self._knows_texts:
            self._unbegun(client, stream, frame, Property.LOST)

    def _unbegun(self, client: ClientState, stream: StreamState, frame: ObservedFrame, which: Property) -> None:
        """A part of a message or call whose beginning did not arrive, although the start of its run did."""
        subject = f"{'call' if stream.is_call else 'message'} {stream.id}"
        if stream.run is not None and stream.run.started:
            self.findings.broken(
                which, "no beginning", subject, f"{subject} ends, but it did not begin here",
                CONTRADICTION, Evidence(stream.first, client.id), frame.origin,
            )  # fmt: skip
        else:
            self.findings.unknown(which, f"{subject} may have begun before the recording")

    def whole_call(
        self, client: ClientState, run: RunState | None, stream: StreamState | None, frame: ObservedFrame
    ) -> None:
        """A call in one frame: its beginning, its arguments and its end."""
        if stream is None:
            return
        if stream.begun and not stream.ended:  # it was announced, and now arrives as a whole
            self.end(client, run, stream, frame)
            return
        if stream.begun:
            self.findings.broken(
                Property.DUPLICATED, "begun twice", f"call {stream.id}", f"call {stream.id} arrives again",
                CONTRADICTION, Evidence(stream.first, client.id), frame.origin,
            )  # fmt: skip
            return
        stream.begun = stream.ended = True
        if frame.whole is not None:
            stream.whole = fingerprint(frame.whole)
        stream.release()

    def result(
        self, client: ClientState, run: RunState | None, stream: StreamState | None, frame: ObservedFrame
    ) -> None:
        if stream is None:
            return
        if stream.resulted:
            self.findings.broken(
                Property.DUPLICATED, "result twice", f"call {stream.id}", f"call {stream.id} has a second result",
                CONTRADICTION, frame.origin,
            )  # fmt: skip
        if not stream.begun:  # the result of a call of an earlier run, which the user has confirmed
            self.findings.unknown(Property.CALLS, f"call {stream.id} may have begun before the recording")
        stream.resulted = True

    def snapshot(
        self, client: ClientState, run: RunState | None, stream: StreamState | None, frame: ObservedFrame
    ) -> None:
        if stream is None:
            if frame.whole is not None:
                self.findings.unknown(
                    Property.SNAPSHOT, "a snapshot holds messages or calls that were not streamed in this recording"
                )
            return
        if frame.whole is None:
            return
        if stream.ended:
            self._compare(stream, frame.whole, frame.origin)
        elif stream.equals(frame.whole):
            stream.status = "equal"
        else:
            stream.pending = (frame.whole, frame.origin.index)

    # Complete values

    def _compare_pending(self, stream: StreamState) -> None:
        if stream.pending is not None:
            (whole, index), stream.pending = stream.pending, None
            self._compare(stream, whole, Message(stream.client, 0, index, whole))

    def _compare(self, stream: StreamState, whole: Any, message: Message) -> None:
        """Compare a complete value with the deltas, or with the complete value that came before."""
        which = Property.ARGUMENTS if stream.is_call else Property.TEXT
        equal = self._equals(stream, whole)
        if equal is None:
            return
        if equal:
            stream.status = stream.status or "equal"
            self.findings.evidence[which] += 1
            return
        stream.status = "different"
        subject = f"{'call' if stream.is_call else 'message'} {stream.id}"
        length = len(whole) if isinstance(whole, str) else "other"
        text = f"the deltas of {subject} have {stream.characters} characters, the complete value has {length}"
        if length == stream.characters:
            text = f"the deltas of {subject} differ from the complete value"
        for each in (which, Property.SNAPSHOT):
            self.findings.broken(
                each, "differs", subject, text, CONTRADICTION, Evidence(stream.first, stream.client), message
            )

    def _equals(self, stream: StreamState, whole: Any) -> bool | None:
        """Return None if the dialect, or the recording, does not allow the comparison."""
        if stream.uncertain is not None:
            return None
        if stream.whole is not None:
            return stream.whole == fingerprint(whole)
        return stream.equals(whole) if (self._sums_args if stream.is_call else self._sums_text) else None

    def _check_json(self, stream: StreamState, message: Message) -> None:
        text = stream.text
        promised = self.dialect.json_arguments or (text or "").startswith(("{", "["))
        if text and text.strip() and promised and stream.uncertain is None and not is_json(text):
            stream.status = "different"
            self.findings.broken(
                Property.ARGUMENTS, "not JSON", f"call {stream.id}",
                f"the arguments of call {stream.id} are not JSON: {text[:60]!r}",
                CONTRADICTION, Evidence(stream.first, stream.client), message,
            )  # fmt: skip

    def remember(self, client: ClientState, key: StreamKey, stream: StreamState) -> None:
        """Keep a message or call. If there are too many, forget the oldest that ended, or the oldest of very many."""
        kept = self._streams
        kept.append((client, key, stream))
        for _ in range(MAX_EVICTIONS if len(kept) > KEPT_STREAMS else 0):
            owner, old_key, old = kept.popleft()
            if not old.ended and len(kept) < MAX_OPEN_STREAMS:
                kept.append((owner, old_key, old))
            elif owner.streams.get(old_key) is old:
                del owner.streams[old_key]
                self.owners.forget(old_key)
                self.forgotten += old.status is None
                self._forgot_open |= not old.ended
                if old.run is not None:
                    old.run.open.discard(old)
                break
