"""The table of breakages: each row is the sound chain with one link broken in one way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bridgekit_verify.validation import broken_links_1_to_5 as handover
from bridgekit_verify.validation import broken_links_6_to_8 as emission
from bridgekit_verify.validation import broken_links_9_and_10 as routing
from bridgekit_verify.variants import BROKEN, SOUND, WITHOUT_HANDOVER, WITHOUT_ROUTING, Variant

__all__ = ["BREAKAGES", "WAYS", "Breakage"]

WAYS: Final[Mapping[str, str]] = {
    "not passed on": "the next link receives nothing",
    "wrong value": "the next link receives something else",
    "raises": "the link raises an error",
    "swallowed": "the link fails and reports success",
    "delayed": "the next link receives the value too late",
}


@dataclass(frozen=True)
class Breakage:
    """A variant with one link broken in one way, and the links that a measurement may name for this breakage."""

    link: int
    """1 to 10."""
    way: str
    """One of WAYS."""
    variant: Variant
    also_named: Mapping[int, str] = field(default_factory=dict)
    """For each other link that a measurement may name, the reason."""
    outside_core: bool = False
    """Whether the breakage has an effect only if the registry binds the agents, as for a webhook."""

    @property
    def name(self) -> str:
        return f"link {self.link} {self.way}"


def _broken(link: int, way: str, summary: str, **choices: Any) -> Breakage:
    """Return a row. The variants of links 2, 4 and 9 lack the startup check that would refuse them."""
    checks = {2: {"self_checks": WITHOUT_HANDOVER}, 4: {"self_checks": WITHOUT_HANDOVER}}.get(link, {})
    if link == 9:
        checks = {"self_checks": WITHOUT_ROUTING}
    variant = replace(SOUND, name=f"link {link} {way}", summary=summary, **(checks | choices))
    return Breakage(link, way, variant, outside_core=variant.start is handover.start_without_the_registry or link == 3)


def _known(link: int, way: str, also_named: Mapping[int, str] | None = None) -> Breakage:
    """Return a row for a broken variant that the notebooks use as well."""
    variant = replace(BROKEN[link], name=f"link {link} {way}")
    return Breakage(link, way, variant, {} if also_named is None else also_named, outside_core=link == 3)


_UNNOTICED: Final = (
    "If link 1 fails and reports success, link 10 is named as well. Link 1's check does not detect that no socket is"
    " assigned to a thread, so events are lost at link 10."
)
_NO_BRIDGE: Final = "passes on no bridge"
_WIRES_LATE: Final = "passes the bridge on after the first run"

BREAKAGES: Final[tuple[Breakage, ...]] = (
    _broken(
        1,
        "not passed on",
        "startup gives the registry no bridge",
        start=handover.start_without_the_registry,
        self_checks=WITHOUT_HANDOVER,
    ),
    _broken(1, "wrong value", "startup passes on another bridge", start=handover.start_with_two_bridges),
    _broken(1, "raises", "startup raises", start=handover.start_that_raises),
    _known(1, "swallowed", {10: _UNNOTICED}),
    _broken(1, "delayed", "startup passes the bridge on after the first event", start=handover.start_that_wires_late),
    _broken(2, "not passed on", _NO_BRIDGE, supervisor=handover.SupervisorWithoutBridgeForTheEngine),
    _broken(2, "wrong value", "the thread of the previous run", supervisor=handover.SupervisorWithTheLastThread),
    _broken(2, "raises", "the supervisor raises", supervisor=handover.SupervisorThatRaises),
    _broken(2, "swallowed", "the run does not reach the engine", supervisor=handover.SupervisorThatForgetsRuns),
    _broken(2, "delayed", _WIRES_LATE, supervisor=handover.SupervisorThatWiresLate),
    _broken(3, "not passed on", "agents get no bridge", registry=handover.RegistryThatBindsNobody),
    _broken(3, "wrong value", "the previous run", registry=handover.RegistryThatBindsToTheLastRun),
    _broken(3, "raises", "the registry raises", registry=handover.RegistryThatRaises),
    _known(3, "swallowed"),
    _broken(3, "delayed", "an agent is bound when the next one is created", registry=handover.RegistryThatBindsLate),
    _broken(4, "not passed on", _NO_BRIDGE, engine=handover.EngineWithoutBridgeForTheCore),
    _known(4, "wrong value"),
    _broken(4, "raises", "the engine raises", engine=handover.EngineThatRaises),
    _broken(4, "swallowed", "the run does not reach the core", engine=handover.EngineThatForgetsRuns),
    _broken(4, "delayed", _WIRES_LATE, engine=handover.EngineThatWiresLate),
    _broken(5, "not passed on", "the agent gets no bridge", core=handover.CoreThatBindsNobody),
    _known(5, "wrong value"),
    _broken(5, "raises", "the core raises", core=handover.CoreThatRaises),
    _broken(5, "swallowed", "the core emits no start event and no end event", core=handover.CoreThatSaysNothing),
    _broken(5, "delayed", "emits the start event last", core=handover.CoreThatSaysTheStartLast),
    _known(6, "not passed on"),
    _broken(6, "wrong value", "the run id instead of the thread id", agent=emission.AgentThatTakesTheRunForTheThread),
    _broken(6, "raises", "the agent raises", agent=emission.AgentThatRaises),
    _broken(6, "swallowed", "a TypeError, logged", agent=emission.AgentThatSwallowsItsMistake),
    _broken(6, "delayed", "bound after the first event", agent=emission.AgentThatTellsLate),
    _known(7, "not passed on"),
    _broken(
        7,
        "wrong value",
        "the run id instead of the thread id",
        adapter=emission.AdapterThatTakesTheRunForTheThread,
    ),
    _broken(7, "raises", "the adapter raises", adapter=emission.AdapterThatRefusesItsBridge),
    _broken(7, "swallowed", "a TypeError, logged", adapter=emission.AdapterThatSwallowsItsMistake),
    _broken(7, "delayed", "stored after the first event", adapter=emission.AdapterThatKeepsLate),
    _broken(8, "not passed on", "the adapter drops events", adapter=emission.AdapterThatDropsEvents),
    _broken(8, "wrong value", "another thread on the event", adapter=emission.AdapterThatNamesTheRunAsThread),
    _broken(8, "raises", "the adapter raises", adapter=emission.AdapterThatRaises),
    _known(8, "swallowed"),
    _broken(8, "delayed", "each pair of events is swapped", adapter=emission.AdapterThatEmitsLate),
    _known(9, "not passed on"),
    _broken(9, "wrong value", "the thread of the previous event", resolver=routing.route_of_the_last_event),
    _broken(9, "raises", "the bridge raises", bridge=routing.BridgeThatRaises),
    _broken(9, "swallowed", "reported as sent, but not sent", bridge=routing.BridgeThatOnlySaysSent),
    _broken(9, "delayed", "each pair of events is swapped", bridge=routing.BridgeThatSendsLate),
    _broken(10, "not passed on", "sockets registered under no thread", hub=routing.HubWithoutThreadsForSockets),
    _broken(10, "wrong value", "the sockets of another thread", hub=routing.HubThatGivesToTheNeighbour),
    _broken(10, "raises", "the hub raises", hub=routing.HubThatRaises),
    _broken(10, "swallowed", "accepted, then dropped", hub=routing.HubThatSwallows),
    _broken(10, "delayed", "each pair of frames is swapped", hub=routing.HubThatDeliversLate),
)
