"""Attribution: literal records in, and the link that did not pass on what it received out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridgekit.events import EventType, Outcome, Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit_verify.measure.history import BridgeBinding, Emission, EventKey, Expectation, History
from bridgekit_verify.measure.ledger import attribute_loss, attribute_misroute
from tests.verify.measure.histories import ALICES, BOBS, clean, key

THOUGHT = key(ALICES, 3)
EXPECTED = Expectation(THOUGHT, ALICES.thread_id, ALICES.user_id)
STARTED = Expectation(EventKey(THOUGHT.request, EventType.AGENT_STARTED, 0), ALICES.thread_id, ALICES.user_id)
RIGHT = BridgeBinding(bridge=1, run_id=RunId("run of a1"), thread_id=ALICES.thread_id)
OTHER_BRIDGE, OTHER_RUN = replace(RIGHT, bridge=2), replace(RIGHT, run_id=RunId("run of b1"))
OTHER_THREAD = replace(RIGHT, thread_id=BOBS.thread_id)
ALL_RECEIVED = {2: ALICES.thread_id, 4: ALICES.thread_id, 5: ALICES.thread_id}


def recorded_history(emission: Emission, *, emitted: bool = True) -> History:
    history = clean()
    history.bridge = 1
    history.received_by[THOUGHT.request] = dict(ALL_RECEIVED)
    history.emissions[THOUGHT] = emission
    history.emitted = {THOUGHT} if emitted else set()
    return history


@pytest.mark.parametrize(
    ("agent_given", "adapter_given", "adapter_held", "emitted", "link"),
    [
        (None, None, None, True, 5),
        (OTHER_BRIDGE, OTHER_BRIDGE, OTHER_BRIDGE, True, 5),
        (RIGHT, None, None, True, 6),
        (RIGHT, OTHER_BRIDGE, OTHER_BRIDGE, True, 6),
        (RIGHT, RIGHT, None, True, 7),
        (RIGHT, RIGHT, OTHER_BRIDGE, True, 7),
        (RIGHT, RIGHT, RIGHT, False, 6),
        (RIGHT, RIGHT, RIGHT, True, 8),
    ],
)
def test_event_that_did_not_reach_the_bridge_is_attributed_to_the_first_link_that_lost_it(
    agent_given: BridgeBinding | None,
    adapter_given: BridgeBinding | None,
    adapter_held: BridgeBinding | None,
    emitted: bool,
    link: int,
) -> None:
    history = recorded_history(Emission(agent_given, adapter_given, adapter_held), emitted=emitted)
    del history.acknowledged[THOUGHT]
    assert attribute_loss(history, EXPECTED).link == link


@pytest.mark.parametrize("other", [OTHER_RUN, OTHER_THREAD])
@pytest.mark.parametrize(("index", "link"), [(0, 5), (1, 6), (2, 7)])
def test_misrouted_event_is_attributed_to_the_first_link_that_named_another_run_or_thread(
    other: BridgeBinding, index: int, link: int
) -> None:
    history = recorded_history(Emission(*[RIGHT] * index, *[other] * (3 - index)))
    assert attribute_misroute(history, EXPECTED).link == attribute_loss(history, EXPECTED).link == link


def test_wrong_binding_is_attributed_to_link_3_where_the_registry_binds() -> None:
    history = recorded_history(Emission(OTHER_RUN, OTHER_RUN, OTHER_RUN))
    history.bound_by_registry = True
    assert attribute_misroute(history, EXPECTED).link == 3


def test_adapter_that_names_another_run_or_thread_than_it_holds_is_link_8() -> None:
    history = recorded_history(Emission(RIGHT, RIGHT, RIGHT))
    history.thread_on_event[THOUGHT] = BOBS.thread_id
    assert attribute_misroute(history, EXPECTED).link == 8
    history = recorded_history(Emission(RIGHT, RIGHT, RIGHT))
    history.acknowledged[THOUGHT] = (RunId("run of b1"), history.acknowledged[THOUGHT][1])
    assert attribute_misroute(history, EXPECTED).link == 8


def test_core_that_names_another_thread_is_link_5() -> None:
    history = recorded_history(Emission(RIGHT, RIGHT, RIGHT))
    history.thread_on_event[STARTED.key] = BOBS.thread_id
    assert attribute_misroute(history, STARTED).link == 5


@pytest.mark.parametrize(("link", "caller"), [(3, 2), (4, 2), (5, 4)])
def test_handover_with_another_thread_is_attributed_to_the_calling_link(link: int, caller: int) -> None:
    history = recorded_history(Emission(OTHER_THREAD, OTHER_THREAD, OTHER_THREAD))
    history.received_by[THOUGHT.request][link] = BOBS.thread_id
    assert attribute_misroute(history, EXPECTED).link == caller


@pytest.mark.parametrize(("received_by", "link"), [({2}, 2), ({2, 4}, 4), ({2, 4, 5}, 5)])
def test_missing_handover_is_attributed_to_the_last_link_that_received_the_run(
    received_by: set[int], link: int
) -> None:
    history = clean()
    history.received_by[THOUGHT.request] = dict.fromkeys(received_by, ALICES.thread_id)
    assert attribute_loss(history, STARTED).link == link


def test_event_reported_as_sent_without_a_number_never_reached_the_hub() -> None:
    history = clean()
    receipt = Receipt(outcome=Outcome.SENT, sockets=1, thread_id=ThreadId("a1"))
    history.acknowledged[THOUGHT] = (RunId("run of a1"), receipt)
    assert (attribute_loss(history, EXPECTED).link, attribute_loss(history, EXPECTED).reason) == (
        9,
        "reported as sent, but never passed to the hub",
    )


@pytest.mark.parametrize(
    ("bindings", "emitted", "reason"),
    [
        ((None, None, None), True, "the agent received no bridge"),
        ((OTHER_BRIDGE,) * 3, True, "the agent received another bridge"),
        ((RIGHT, None, None), True, "the agent did not bind its adapter"),
        ((RIGHT, OTHER_BRIDGE, OTHER_BRIDGE), True, "the agent bound its adapter to another bridge"),
        ((RIGHT, RIGHT, None), True, "the adapter does not hold both a bridge and a run"),
        ((RIGHT, RIGHT, OTHER_BRIDGE), True, "the adapter holds another bridge"),
        ((RIGHT, RIGHT, RIGHT), False, "the agent did not call its adapter"),
        ((RIGHT, RIGHT, RIGHT), True, "the adapter did not pass the event to the bridge"),
    ],
)
def test_loss_before_the_bridge_has_this_reason(
    bindings: tuple[BridgeBinding | None, ...], emitted: bool, reason: str
) -> None:
    history = recorded_history(Emission(*bindings), emitted=emitted)
    del history.acknowledged[EXPECTED.key]
    assert attribute_loss(history, EXPECTED).reason == reason


@pytest.mark.parametrize(
    ("bindings", "reason"),
    [
        ((OTHER_RUN,) * 3, "the agent emitted the event for another run"),
        ((RIGHT, OTHER_RUN, OTHER_RUN), "the agent bound its adapter to another run"),
        ((RIGHT, RIGHT, OTHER_THREAD), "the adapter holds another thread"),
    ],
)
def test_misroute_has_this_reason(bindings: tuple[BridgeBinding, ...], reason: str) -> None:
    assert attribute_misroute(recorded_history(Emission(*bindings)), EXPECTED).reason == reason


def test_misroute_by_the_adapter_has_this_reason() -> None:
    named = recorded_history(Emission(RIGHT, RIGHT, RIGHT))
    named.thread_on_event[EXPECTED.key] = BOBS.thread_id
    assert attribute_misroute(named, EXPECTED).reason == "the event names another thread"
    mismatched = recorded_history(Emission(RIGHT, RIGHT, RIGHT))
    mismatched.acknowledged[EXPECTED.key] = (RunId("run of b1"), mismatched.acknowledged[EXPECTED.key][1])
    assert attribute_misroute(mismatched, EXPECTED).reason == "the adapter emitted the event for another run"


@pytest.mark.parametrize(("link", "caller"), [(3, "supervisor"), (4, "supervisor"), (5, "engine")])
def test_handover_with_another_thread_names_the_caller(link: int, caller: str) -> None:
    history = recorded_history(Emission(OTHER_THREAD, OTHER_THREAD, OTHER_THREAD))
    history.received_by[EXPECTED.key.request][link] = BOBS.thread_id
    assert attribute_misroute(history, EXPECTED).reason == f"the {caller} passed the run on with another thread"


@pytest.mark.parametrize(
    ("received_by", "reason"),
    [({2}, "the supervisor did not call the engine"), ({2, 4}, "the engine did not call the core")],
)
def test_missing_handover_names_the_caller(received_by: set[int], reason: str) -> None:
    history = clean()
    history.received_by[STARTED.key.request] = dict.fromkeys(received_by, ALICES.thread_id)
    assert attribute_loss(history, STARTED).reason == reason
