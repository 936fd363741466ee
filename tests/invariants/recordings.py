"""Literal recordings: a sound run as decoded JSON, and several of them on one thread."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bridgekit.invariants.reports import Invariant, RunReport

Frame = dict[str, Any]
Violations = list[tuple[Invariant, str, int | None]]

SECOND = 1_795_348_800  # 2026-11-22T12:00:00Z

TOOL: dict[str, object] = {"tool_call_id": "call 1", "tool_name": "look_up"}
STEPS: tuple[tuple[str, dict[str, object]], ...] = (
    ("agent_started", {}),
    ("agent_thinking", {"reasoning": "hm"}),
    ("tool_executing", TOOL),
    ("tool_completed", TOOL),
    ("agent_completed", {"result": None}),
)


def frame(event_type: str, payload: dict[str, object], *, run: str, thread: str = "t", seq: int = 0) -> Frame:
    return {
        "type": event_type,
        "thread_id": thread,
        "run_id": run,
        "agent_name": "researcher",
        "seq": seq,
        "event_id": "",
        "timestamp": "2026-11-22T12:00:00.000000Z",
        "payload": dict(payload),
    }


def sound(run: str = "a", thread: str = "t") -> list[Frame]:
    """Return the five critical events, numbered from 1."""
    return numbered(frame(kind, payload, run=run, thread=thread) for kind, payload in STEPS)


def numbered(frames: Iterable[Frame]) -> list[Frame]:
    """Number frames as the hub does, per thread and in the order of sending."""
    latest: dict[str, int] = {}
    sent = []
    for each in frames:
        seq = latest[each["thread_id"]] = latest.get(each["thread_id"], 0) + 1
        sent.append({**each, "seq": seq, "event_id": f"{each['thread_id']}/{seq}"})
    return sent


def violations(report: RunReport) -> Violations:
    """Invariant, sentence and place of each."""
    return [(violation.invariant, violation.message, violation.position) for violation in report.violations]


def run_of(*kinds: str, run: str = "a") -> list[Frame]:
    payloads: dict[str, dict[str, object]] = {
        "agent_error": {"error_message": "no"},
        "progress_update": {},
        **dict(STEPS),
    }
    return numbered(frame(kind, payloads[kind], run=run) for kind in kinds)
