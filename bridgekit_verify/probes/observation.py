"""The recordings of one run of the scenario."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from starlette.applications import Starlette

from bridgekit.chain.link_1_startup import Application, BridgeConfig
from bridgekit.counters import DeliveryCounters
from bridgekit.errors import FrameTooLarge, PayloadError, UnknownAgent, UnknownEventType
from bridgekit.events import AgentEvent, Outcome, Receipt
from bridgekit.ids import RunId, ThreadId, UserId
from bridgekit.transport.connections import ConnectionRegistry
from bridgekit_verify.measure.error_origin import link_of_error, raised_by_harness
from bridgekit_verify.measure.workload import OwnedThread
from bridgekit_verify.probes.judgement import ViolationKind
from bridgekit_verify.probes.recorded_calls import Recording
from bridgekit_verify.probes.scenario_agents import AgentFailed, RunPlan, ToolCalls
from bridgekit_verify.probes.scenario_clients import Client

__all__ = ["Observation"]

PROVOKED: Final = (AgentFailed, PayloadError, FrameTooLarge, UnknownAgent, UnknownEventType)
"""Errors that the scenario or a broken link provokes. The rules judge how each link handles them."""

LAST_PARTS: Final = ("bridge", "mapping", "run_ids", "hub")
"""The parts that call no code of the suite. They may be of any class, so that their errors are found by their calls."""


@dataclass
class Observation:
    """All recordings of one run of the scenario."""

    app: Starlette
    config: BridgeConfig
    """The configuration that startup received."""
    url: str
    recording: Recording
    threads: tuple[OwnedThread, ...]
    plans: dict[str, RunPlan]
    """The plan of each run, by the first words of its request (see `label`)."""
    tools: ToolCalls
    clients: list[Client] = field(default_factory=list)
    lookups: list[tuple[RunId, ThreadId, ThreadId | None]] = field(default_factory=list)
    """For each run in progress: its id, its thread, and the thread that the mapping service returned."""
    late: list[tuple[RunId, ThreadId]] = field(default_factory=list)
    """Runs that had already ended when one of their events was emitted."""
    errors: list[tuple[int, Exception]] = field(default_factory=list)
    """Errors that links raised, each with the number of the link."""
    accepted_users: list[UserId] = field(default_factory=list)
    """Users for whom the chain accepted a run in another user's thread."""
    observed: Counter[tuple[str, Outcome]] = field(default_factory=Counter)
    """The events that an observer of the application received, by event id and outcome."""
    observed_between: tuple[int, int] = (0, 0)
    """The positions in the recording between which the observer was registered."""
    unbound: Receipt | None = None
    """The receipt of an event that an adapter without a bridge emitted."""
    intruders: list[tuple[str, Client]] = field(default_factory=list)
    """The clients that tried to subscribe to a thread that is not theirs, each with what it tried."""
    kept_access: int = 0
    """How many sockets stayed open after the application had ended their access."""
    first_counters: DeliveryCounters | None = None
    lifetimes: list[tuple[ViolationKind, str]] = field(default_factory=list)
    """The violations that were found in a second mapping service, which has a simulated clock."""
    ended: int | None = None
    """The position in the recording when every socket was closed. No socket reads events published later."""
    attached: int = 0
    """How many connections the hub has after every socket was closed."""
    complete: bool = False
    """Whether the scenario reached its end."""

    @property
    def application(self) -> Application:
        application: Application = self.app.state.bridgekit
        return application

    @property
    def edge(self) -> ConnectionRegistry:
        """The registry of the application's sockets."""
        edge: ConnectionRegistry = self.app.state.bridgekit_connections
        return edge

    def observe(self, event: AgentEvent, receipt: Receipt) -> None:
        """Count an event. The bridge calls this method for each event while it is registered as an observer."""
        self.observed[event.event_id, receipt.outcome] += 1

    def note(self, error: Exception) -> bool:
        """Record an error that a link raised. Return False for an error of the suite itself, which must propagate."""
        if isinstance(error, PROVOKED):
            return True
        # Python replaces a StopIteration that leaves a coroutine.
        cause = error.__cause__ if isinstance(error.__cause__, StopIteration) else error
        link = None if raised_by_harness(cause) else link_of_error(cause)
        if link is None and any(call.raised is error and call.part in LAST_PARTS for call in self.recording.calls):
            link = 9  # `judge` finds the link by the call
        if link is not None:
            self.errors.append((link, error))
        return link is not None
