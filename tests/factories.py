"""Factories for events, frames and ids in tests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from bridgekit.events import AgentEvent, EventType, Frame, RoutedEvent, encode
from bridgekit.ids import RunId, ThreadId, UserId

ALICE = UserId("alice")
BOB = UserId("bob")
THREAD = ThreadId("thread_123")
OTHER = ThreadId("thread_456")
RUN = RunId("run_1")
NOON = datetime(2026, 11, 22, 12, 0, 0, 1, tzinfo=UTC)


def emitted(
    type: EventType = EventType.AGENT_THINKING,  # noqa: A002  # the field name on the wire
    *,
    run_id: RunId = RUN,
    payload: Mapping[str, object] | None = None,
    thread_id: ThreadId | None = THREAD,
) -> AgentEvent:
    return AgentEvent(type=type, run_id=run_id, agent_name="researcher", payload=payload or {}, thread_id=thread_id)


def routed(payload: dict[str, object] | None = None, *, seq: int = 1) -> RoutedEvent:
    return RoutedEvent(
        type=EventType.TOOL_EXECUTING,
        thread_id=THREAD,
        run_id=RUN,
        agent_name="researcher",
        seq=seq,
        event_id="e1",
        timestamp=NOON,
        payload=payload or {},
    )


def frame(seq: int = 1, *, payload: dict[str, object] | None = None) -> Frame:
    event = routed(payload, seq=seq)
    return Frame(seq, event.type, event.run_id, encode(event))
