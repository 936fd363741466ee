"""Find the link that did not pass an event on, from the records of the calls between links."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bridgekit.events import EventType
from bridgekit.ids import RunId
from bridgekit_verify.measure.history import BridgeBinding, Emission, EventKey, Expectation, History

__all__ = ["EMITTED_BY_CORE", "Attribution", "misrouted_upstream", "missing_handover", "undelivered_emission"]

EMITTED_BY_CORE: Final = frozenset({EventType.AGENT_STARTED, EventType.AGENT_COMPLETED, EventType.AGENT_ERROR})
"""Types of events that the core itself sends to the bridge. All other events pass through the agent and its adapter."""

HANDOVERS: Final = ((2, 3, "supervisor"), (2, 4, "supervisor"), (4, 5, "engine"))
"""Each handover of a run: the number of the calling link, the number of the called link, and the caller's name."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """The link that lost, misrouted or delayed an event, and the reason."""

    link: int
    reason: str


def missing_handover(history: History, request: str) -> Attribution | None:
    """Return the link (2 or 4) that received a run but did not pass the run on, or None if there is no such link."""
    received_by = history.received_by.get(request)
    if received_by is None or history.bound_by_registry:
        return None
    if 4 not in received_by:
        return Attribution(2, "the supervisor did not call the engine")
    return None if 5 in received_by else Attribution(4, "the engine did not call the core")


def undelivered_emission(history: History, key: EventKey, emission: Emission) -> Attribution:
    """Return the first link that prevented an agent's event from reaching the bridge."""
    if emission.agent_given is None:
        return Attribution(_binding_link(history), "the agent received no bridge")
    if history.bridge not in (None, emission.agent_given.bridge):
        return Attribution(_binding_link(history), "the agent received another bridge")
    if emission.adapter_given is None:
        return Attribution(6, "the agent did not bind its adapter")
    if emission.adapter_given.bridge != emission.agent_given.bridge:
        return Attribution(6, "the agent bound its adapter to another bridge")
    if emission.adapter_held is None:
        return Attribution(7, "the adapter does not hold both a bridge and a run")
    if emission.adapter_held.bridge != emission.adapter_given.bridge:
        return Attribution(7, "the adapter holds another bridge")
    if key not in history.emitted:
        return Attribution(6, "the agent did not call its adapter")
    return Attribution(8, "the adapter did not pass the event to the bridge")


def misrouted_upstream(history: History, expectation: Expectation) -> Attribution | None:
    """Return the first link before the bridge that named a run or thread other than the event's own.

    Return None if every link before the bridge named the event's own run and thread.
    """
    key, thread = expectation.key, expectation.thread_id
    received_by = history.received_by.get(key.request, {})
    for caller, link, name in HANDOVERS:
        if received_by.get(link, thread) != thread:
            return Attribution(caller, f"the {name} passed the run on with another thread")
    handover = history.handovers.get(key.request)
    if handover is not None and (attribution := _wrong_binding(history, expectation, handover.run_id)) is not None:
        return attribution
    if history.thread_on_event.get(key) not in (None, thread):
        return Attribution(5 if key.type in EMITTED_BY_CORE else 8, "the event names another thread")
    return None


def _wrong_binding(history: History, expectation: Expectation, run_id: RunId) -> Attribution | None:
    """Return the first of links 3 to 8 that bound an agent's event to another run or thread."""
    known, emission = history.acknowledged.get(expectation.key), history.emissions.get(expectation.key)
    if emission is not None:
        bindings = (
            (_binding_link(history), "the agent emitted the event for", emission.agent_given),
            (6, "the agent bound its adapter to", emission.adapter_given),
            (7, "the adapter holds", emission.adapter_held),
        )
        for link, what_it_did, bound in bindings:
            if (part := _wrong_part(bound, run_id, expectation)) is not None:
                return Attribution(link, f"{what_it_did} another {part}")
    if known is not None and known[0] != run_id:
        # Without a record of the agent's binding, the run id on the event is the only evidence.
        other = Attribution(_binding_link(history), "the agent emitted the event for another run")
        return other if emission is None else Attribution(8, "the adapter emitted the event for another run")
    return None


def _wrong_part(bound: BridgeBinding | None, run_id: RunId, expectation: Expectation) -> str | None:
    if bound is None:
        return None
    if bound.run_id != run_id:
        return "run"
    return None if bound.thread_id in (None, expectation.thread_id) else "thread"


def _binding_link(history: History) -> int:
    """Return the link that gives agents their bridge: 3 (registry) or 5 (core)."""
    return 3 if history.bound_by_registry else 5
