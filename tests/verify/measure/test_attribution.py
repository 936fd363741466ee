"""Notes at the borders: literal notes in, the one link that did not hand on what it was given out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridgekit.events import EventType, Outcome, Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit_verify.measure.history import BridgeBinding, Emission, Expectation, History, EventKey
from bridgekit_verify.measure.ledger import attribute_misroute, attribute_loss
from tests.verify.measure.histories import ALICES, BOBS, clean, key

THOUGHT = key(ALICES, 3)
EXPECTED = Expectation(THOUGHT, ALICES.thread_id, ALICES.user_id)
STARTED = Expectation(EventKey(THOUGHT.request, EventType.AGENT_STARTED, 0), ALICES.thread_id, ALICES.user_id)
RIGHT = BridgeBinding(bridge=1, run_id=RunId("run of a1"), thread_id=ALICES.thread_id)
OTHER_BRIDGE, OTHER_RUN = replace(RIGHT, bridge=2), replace(RIGHT, run_id=RunId("run of b1"))
OTHER_THREAD = replace(RIGHT, thread_id=BOBS.thread_id)
ALL_ASKED = {2: ALICES.thread_id, 4: ALICES.thread_id, 5: ALICES.thread_id}


def recorded_history(emission: Emission, *, emitted: bool = True) -> History:
    history = clean()
    history.bridge = 1
    history.received_by[THOUGHT.request] = dict(ALL_ASKED)
    history.emissions[THOUGHT] = emission
    history.emitted = {THOUGHT} if emitted else set()
    return history


@pytest.mark.parametrize(
    ("given", "told", "held", "emitted", "link"),
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
def test_event_that_the_bridge_never_heard_is_charged_to_the_first_who_kept_it(
    given: BridgeBinding | None, told: BridgeBinding | None, held: BridgeBinding | None, emitted: bool, link: int
) -> None:
    history = recorded_history(Emission(given, told, held), emitted=emitted)
    del history.acknowledged[THOUGHT]
    assert attribute_loss(history, EXPECTED).link == link


@pytest.mark.parametrize("other", [OTHER_RUN, OTHER_THREAD])
@pytest.mark.parametrize(("place", "link"), [(0, 5), (1, 6), (2, 7)])
def test_event_that_went_astray_is_charged_to_the_first_who_named_another_run_or_thread(
    other: BridgeBinding, place: int, link: int
) -> None:
    history = recorded_history(Emission(*[RIGHT] * place, *[other] * (3 - place)))
    assert attribute_misroute(history, EXPECTED).link == attribute_loss(history, EXPECTED).link == link


def test_agents_that_the_registry_binds_are_its_charge() -> None:
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


@pytest.mark.parametrize(("link", "giver"), [(3, 2), (4, 2), (5, 4)])
def test_run_that_is_handed_on_for_another_thread_is_charged_to_who_handed_it_on(link: int, giver: int) -> None:
    history = recorded_history(Emission(OTHER_THREAD, OTHER_THREAD, OTHER_THREAD))
    history.received_by[THOUGHT.request][link] = BOBS.thread_id
    assert attribute_misroute(history, EXPECTED).link == giver


@pytest.mark.parametrize(("asked", "link"), [({2}, 2), ({2, 4}, 4), ({2, 4, 5}, 5)])
def test_run_that_nobody_was_asked_for_is_charged_to_who_did_not_ask(asked: set[int], link: int) -> None:
    history = clean()
    history.received_by[THOUGHT.request] = dict.fromkeys(asked, ALICES.thread_id)
    assert attribute_loss(history, STARTED).link == link


def test_event_that_is_called_sent_without_a_number_never_reached_the_hub() -> None:
    history = clean()
    receipt = Receipt(outcome=Outcome.SENT, sockets=1, thread_id=ThreadId("a1"))
    history.acknowledged[THOUGHT] = (RunId("run of a1"), receipt)
    assert (attribute_loss(history, EXPECTED).link, attribute_loss(history, EXPECTED).reason) == (
        9,
        "reported as sent, but never passed to the hub",
    )
