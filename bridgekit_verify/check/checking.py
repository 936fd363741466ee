"""Checks one recording: reads its file and returns its verdict."""

from __future__ import annotations

from itertools import chain, islice

import msgspec

from bridgekit_verify.check.dialect_tables import SAMPLE_MESSAGES, detect
from bridgekit_verify.check.dialects import StreamDialect
from bridgekit_verify.check.judge import Judge
from bridgekit_verify.check.live.verdict import judge_live
from bridgekit_verify.check.recording_files import Limits, open_recording
from bridgekit_verify.check.verdict import RecordingVerdict, conclude
from bridgekit_verify.errors import UnusableRecording

__all__ = ["check_recording"]


def check_recording(
    path: str, *, dialect: StreamDialect | None = None, limits: Limits | None = None
) -> RecordingVerdict:
    """Read and judge one recording.

    If `dialect` is None, the dialect is read from the file of a live run, or detected from the first messages.

    Raises UnusableRecording if the file cannot be judged, and OSError if it cannot be read.
    """
    with open_recording(path, reads_text=dialect is not None and dialect.reads_text, limits=limits) as recording:
        if recording.header is not None:
            run = msgspec.structs.replace(recording.header, messages=list(recording.messages))
            run.limit = recording.limits.reached or run.limit
            return judge_live(run, path=path, dialect=dialect)
        head = list(islice(recording.messages, SAMPLE_MESSAGES))
        if not head:
            limit = recording.limits.reached
            raise UnusableRecording(path, f"has no frame before the limit {limit}" if limit else "has no frame")
        judge = Judge(dialect or detect(path, head))
        judge.feed(chain(head, recording.messages))
        if judge.undecoded == judge.frames and not judge.dialect.lacks("kind"):
            raise UnusableRecording(path, "has no frame that is a JSON object: name its prefix in a [dialect] table")
        return conclude(judge, path=path, container=recording.container, limit=recording.limits.reached)
