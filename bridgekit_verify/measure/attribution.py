"""What the notes at the links' borders prove: which link did not hand on what it was given itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bridgekit.events import EventType
from bridgekit.ids import RunId
from bridgekit_verify.measure.history import Bound, Emission, Expectation, History, Key

__all__ = ["SAID_BY_CORE", "Charge", "astray_before_the_bridge", "missing_handover", "unheard"]

SAID_BY_CORE: Final = frozenset({EventType.AGENT_STARTED, EventType.AGENT_COMPLETED, EventType.AGENT_ERROR})
"""What the core tells the bridge itself; the rest goes through the agent and its adapter."""

HOPS: Final = ((2, 3, "supervisor"), (2, 4, "supervisor"), (4, 5, "engine"))
"""Who asks whom to carry a run."""


@dataclass(frozen=True, slots=True)
class Charge:
    """Where an event stopped, was sent astray, or was held back."""

    link: int
    reason: str


def missing_handover(history: History, request: str) -> Charge | None:
    """The link that took a run and did not hand it on."""
    asked = history.asked.get(request)
    if asked is None or history.bound_by_registry:
        return None
    if 4 not in asked:
        return Charge(2, "the supervisor did not ask the engine")
    return None if 5 in asked else Charge(4, "the engine did not ask the core")


def unheard(history: History, key: Key, saying: Emission) -> Charge:
    """The first link that kept an agent's words from the bridge."""
    if saying.given is None:
        return Charge(_binder(history), "the agent was given no bridge")
    if history.bridge not in (None, saying.given.bridge):
        return Charge(_binder(history), "the agent was given another bridge")
    if saying.told is None:
        return Charge(6, "the agent did not tell its adapter")
    if saying.told.bridge != saying.given.bridge:
        return Charge(6, "the agent told its adapter another bridge")
    if saying.held is None:
        return Charge(7, "the adapter does not hold bridge and run")
    if saying.held.bridge != saying.told.bridge:
        return Charge(7, "the adapter holds another bridge")
    if key not in history.emitted:
        return Charge(6, "the agent did not ask its adapter")
    return Charge(8, "the adapter did not reach the bridge")


def astray_before_the_bridge(history: History, expectation: Expectation) -> Charge | None:
    """The first link that named another run or another thread than the event's own."""
    key, thread = expectation.key, expectation.thread_id
    asked = history.asked.get(key.request, {})
    for giver, link, name in HOPS:
        if asked.get(link, thread) != thread:
            return Charge(giver, f"the {name} handed on the run for another thread")
    handover = history.handovers.get(key.request)
    if handover is not None and (charge := _other_run(history, expectation, handover.run_id)) is not None:
        return charge
    if history.carried.get(key) not in (None, thread):
        return Charge(5 if key.type in SAID_BY_CORE else 8, "the event names another thread")
    return None


def _other_run(history: History, expectation: Expectation, run_id: RunId) -> Charge | None:
    """The first of links 3 to 8 that put another run, or another thread, into an agent's mouth."""
    known, saying = history.acknowledged.get(expectation.key), history.emissions.get(expectation.key)
    if saying is not None:
        holders = (
            (_binder(history), "the agent spoke for", saying.given),
            (6, "the agent told its adapter", saying.told),
            (7, "the adapter holds", saying.held),
        )
        for link, does, bound in holders:
            if (what := _other(bound, run_id, expectation)) is not None:
                return Charge(link, f"{does} another {what}")
    if known is not None and known[0] != run_id:
        # Without notes of what the agent held, it is taken at its word: it spoke for another run.
        other = Charge(_binder(history), "the agent spoke for another run")
        return other if saying is None else Charge(8, "the adapter named another run")
    return None


def _other(bound: Bound | None, run_id: RunId, expectation: Expectation) -> str | None:
    if bound is None:
        return None
    if bound.run_id != run_id:
        return "run"
    return None if bound.thread_id in (None, expectation.thread_id) else "thread"


def _binder(history: History) -> int:
    """Who gives agents their bridge."""
    return 3 if history.bound_by_registry else 5
