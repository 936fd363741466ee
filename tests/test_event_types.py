"""The event types and their policies, the fields of a new event, and the truth value of a receipt."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bridgekit.errors import UnknownEventType
from bridgekit.events import (
    COALESCIBLE,
    CRITICAL,
    POLICIES,
    EventType,
    Outcome,
    Policy,
    Receipt,
    event_type,
)
from tests.factories import emitted, frame, routed


@pytest.mark.parametrize("name", list(EventType))
def test_event_type_is_found_by_its_value(name: str) -> None:
    assert event_type(str(name)) is EventType(name)


@pytest.mark.parametrize("value", ["agent_exploded", "", None, 7, []])
def test_error_names_the_known_types_when_the_event_type_is_unknown(value: object) -> None:
    with pytest.raises(UnknownEventType) as refused:
        event_type(value)
    assert refused.value.name == value
    assert refused.value.known == tuple(EventType)


def test_event_types_are_those_of_the_wire_format() -> None:
    assert [str(name) for name in EventType] == [
        "agent_started",
        "agent_thinking",
        "tool_executing",
        "tool_completed",
        "agent_completed",
        "agent_error",
        "progress_update",
        "text_delta",
    ]
    assert [str(name) for name in CRITICAL] == [str(name) for name in EventType][:5]


def test_every_event_type_has_a_policy() -> None:
    assert set(POLICIES) == set(EventType)
    assert {EventType.AGENT_THINKING, EventType.PROGRESS_UPDATE} == COALESCIBLE
    assert [each for each in EventType if POLICIES[each] is Policy.CONCATENATE] == [EventType.TEXT_DELTA]
    assert sum(policy is Policy.MUST_DELIVER for policy in POLICIES.values()) == 5


def test_event_has_a_unique_id_and_its_emission_time_when_it_is_created() -> None:
    before = datetime.now(UTC)
    first, second = emitted(), emitted()
    assert first.event_id != second.event_id
    assert before <= first.timestamp <= second.timestamp <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("thing", "field"),
    [(routed(), "timestamp"), (frame(), "seq"), (Receipt(outcome=Outcome.SENT), "sockets")],
    ids=["routed event", "frame", "receipt"],
)
def test_struct_is_immutable(thing: object, field: str) -> None:
    """`AgentEvent` is the exception, because its thread's log assigns `seq`."""
    with pytest.raises(AttributeError):
        setattr(thing, field, None)


async def test_receipt_returns_itself_when_it_is_awaited() -> None:
    receipt = Receipt(outcome=Outcome.SENT, sockets=1)
    assert await receipt is receipt


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("sockets", [0, 1, 3])
def test_receipt_is_true_only_when_a_socket_accepted_the_event(outcome: Outcome, sockets: int) -> None:
    assert bool(Receipt(outcome=outcome, sockets=sockets)) is (outcome is Outcome.SENT and sockets > 0)
