"""The event types and their policies, the fields of a new event, and the truth value of a receipt."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from bridgekit.errors import InvalidId, MalformedFrame
from bridgekit.events import (
    CRITICAL,
    POLICIES,
    EventType,
    Outcome,
    Policy,
    Receipt,
    decode,
    decode_frame,
    define_event_type,
    encode,
)
from bridgekit.invariants.reports import check_stream
from tests.factories import emitted, frame, routed

CITATION = define_event_type("test_citation", Policy.MUST_DELIVER)


@pytest.mark.parametrize("name", [*EventType, CITATION])
def test_event_type_is_found_by_its_value(name: str) -> None:
    assert EventType(str(name)) is name
    assert decode(encode(routed()).replace(b"tool_executing", name.encode())).type is name


@pytest.mark.parametrize("policy", Policy)
def test_application_defines_a_type_with_its_policy_once(policy: Policy) -> None:
    name = f"test_{policy.name.lower()}"
    defined = define_event_type(name, policy)
    assert define_event_type(name, policy) is defined
    assert (str(defined), POLICIES[defined]) == (name, policy)
    assert defined not in list(EventType)


@pytest.mark.parametrize(
    ("name", "policy", "problem"),
    [
        *[(name, Policy.COALESCE, "letter") for name in ("", "Citation", "1st", "a-b", "a b", "a\n", "x" * 65, "é")],
        *[(name, Policy.MUST_DELIVER, "signal") for name in ("subscribed", "gap")],
        *[(name, Policy.MUST_DELIVER, "letter") for name in (None, 1, b"citation", ["citation"])],
        *[(str(name), Policy.CONCATENATE, "has the policy") for name in EventType if name != EventType.TEXT_DELTA],
        (str(CITATION), Policy.COALESCE, "already has the policy 'must deliver'"),
    ],
)
def test_type_that_cannot_be_defined_is_refused_by_name(name: Any, policy: Policy, problem: str) -> None:
    known = dict(POLICIES)
    with pytest.raises(InvalidId, match=problem) as refused:
        define_event_type(name, policy)
    assert repr(name) in refused.value.problem
    assert known == POLICIES


def test_policy_may_be_given_by_its_value_and_no_other_word() -> None:
    assert POLICIES[define_event_type("test_by_value", "coalesce")] is Policy.COALESCE  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'latest' is not a valid Policy"):
        define_event_type("test_by_word", "latest")  # type: ignore[arg-type]
    assert "test_by_word" not in POLICIES


@pytest.mark.parametrize("name", [b"undefined", b"x", b"tool_executing2"])
def test_frame_of_a_type_that_only_another_process_defined_is_read(name: bytes) -> None:
    data = encode(routed()).replace(b"tool_executing", name)
    event = decode(data)
    assert (event.type, encode(event)) == (name.decode(), data)
    assert decode_frame(data).type not in POLICIES


@pytest.mark.parametrize("name", [b"", b"Agent exploded", b"1", b"x" * 65])
def test_frame_whose_type_is_no_name_is_malformed(name: bytes) -> None:
    with pytest.raises(MalformedFrame):
        decode(encode(routed()).replace(b"tool_executing", name))


@pytest.mark.parametrize(("name", "violations"), [(str(CITATION), 0), ("undefined", 1)])
def test_recorded_frame_has_a_type_that_is_defined_here(name: str, violations: int) -> None:
    event = decode(encode(routed()).replace(b"tool_executing", name.encode()))
    [report] = check_stream([event], required=()).values()
    assert len([each for each in report.violations if "the field type" in each.message]) == violations


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
    assert {each: POLICIES[each] for each in EventType if POLICIES[each] is not Policy.MUST_DELIVER} == {
        EventType.AGENT_THINKING: Policy.COALESCE,
        EventType.PROGRESS_UPDATE: Policy.COALESCE,
        EventType.TEXT_DELTA: Policy.CONCATENATE,
    }


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
