"""The server process measures garbage-collection pauses, and its messages survive encoding."""

from __future__ import annotations

import gc

import msgspec

from bridgekit_verify.capacity.messages import ClientReport, StartWaitingRuns
from bridgekit_verify.capacity.server_process import GcPauses, Request
from tests.verify.capacity.loads import step


def test_gc_pauses_are_timed_from_start_to_stop() -> None:
    pauses = GcPauses()
    gc.callbacks.append(pauses.on_phase)
    gc.collect()
    gc.callbacks.remove(pauses.on_phase)
    assert len(pauses.seconds) == 1
    assert pauses.seconds[0] > 0


def test_request_survives_encoding_and_decoding() -> None:
    sent: Request = StartWaitingRuns(1, 2)
    assert msgspec.json.decode(msgspec.json.encode(sent), type=Request) == sent


def test_report_survives_encoding_and_decoding_as_one_line() -> None:
    report = step(1_000).client
    line = msgspec.json.encode(report)
    assert len(line) < 2_000
    assert msgspec.json.decode(line, type=ClientReport) == report
