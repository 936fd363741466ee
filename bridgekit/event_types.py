"""The types of events, and what a full outbox does with events of each type."""

from __future__ import annotations

import enum
import re
from typing import Final

from bridgekit.errors import InvalidId

__all__ = ["CRITICAL", "END_EVENTS", "POLICIES", "EventType", "Policy", "define_event_type"]

_TYPE_NAME: Final = re.compile(r"(?!(?:subscribed|gap)\Z)[a-z][a-z0-9_]{0,63}")
"""The names that an event type may have. `subscribed` and `gap` are excluded, because they are the types of signals."""


class EventType(enum.StrEnum):
    """The event types. The first five types are the audit's critical events.

    A frame of another process may have a type that this process did not define. For an unknown type, `EventType`
    creates a value that is not a member of the enum. Only a process that defined a type with `define_event_type` can
    emit events of that type.
    """

    AGENT_STARTED = "agent_started"
    AGENT_THINKING = "agent_thinking"
    TOOL_EXECUTING = "tool_executing"
    TOOL_COMPLETED = "tool_completed"
    AGENT_COMPLETED = "agent_completed"
    AGENT_ERROR = "agent_error"
    PROGRESS_UPDATE = "progress_update"
    TEXT_DELTA = "text_delta"

    @classmethod
    def _missing_(cls, value: object) -> EventType | None:
        if not isinstance(value, str) or not _TYPE_NAME.fullmatch(value):
            return None
        if value in _defined:
            return _defined[value]
        further = str.__new__(cls, value)
        further._name_ = further._value_ = value
        return further


_defined: Final[dict[str, EventType]] = {}
"""The event types that the application defined, by name."""


class Policy(enum.StrEnum):
    """What a full outbox does with waiting events of a type.

    If a slow client's outbox has no room for an event, the server closes the socket. The client gets the event when it
    resumes.
    """

    MUST_DELIVER = "must deliver"
    """The outbox keeps every event."""
    COALESCE = "coalesce"
    """The outbox keeps only the latest event of each run and type. The client gets a gap for the superseded events."""
    CONCATENATE = "concatenate"
    """The outbox joins adjacent events of one message into one frame that contains all of their text. The payload of
    each event is a `TextDelta`."""


POLICIES: Final[dict[EventType, Policy]] = dict.fromkeys(EventType, Policy.MUST_DELIVER) | {
    EventType.AGENT_THINKING: Policy.COALESCE,
    EventType.PROGRESS_UPDATE: Policy.COALESCE,
    EventType.TEXT_DELTA: Policy.CONCATENATE,
}
"""The policy of each type that this process may emit. A type that only another process defines has the policy
MUST_DELIVER."""
CRITICAL: Final = tuple(EventType)[:5]
END_EVENTS: Final = frozenset({EventType.AGENT_COMPLETED, EventType.AGENT_ERROR})
"""The end events: a run has exactly one event of these types. Only a task that the agent left may emit events after
it."""


def define_event_type(name: str, policy: Policy) -> EventType:
    """Define an event type of the application, so that `emit` and `notify` accept it.

    Call this function in each process that serves or emits the type.

    Raises InvalidId if the name is not valid or already has another policy, and ValueError for an unknown policy.
    """
    if not _TYPE_NAME.fullmatch(str(name)):
        rule = "must be a letter, then at most 63 of a-z, 0-9 and _, and not the type of a signal"
        raise InvalidId("event type", f"{name!r} {rule}")
    defined, policy = EventType(name), Policy(policy)
    if POLICIES.setdefault(defined, policy) is not policy:
        raise InvalidId("event type", f"{name!r} already has the policy {POLICIES[defined].value!r}")
    return _defined.setdefault(name, defined)
