"""Test the audit's description of each link, independently of whether the link works.

A description can be true although the link fails: a bridge that is created and stored may still reach no user.
`probes` tests whether a link works.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import anyio
from starlette.applications import Starlette

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import Application, carried_or_mapped, create_app
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.errors import unwrap_single_error
from bridgekit.events import AgentEvent, EventType, Receipt
from bridgekit.ids import RunId, ThreadId, UserId
from bridgekit.mapping import RunThreadMappingService
from bridgekit.serve.in_process import serving
from bridgekit.thread_resolvers import NoRoute, route_of
from bridgekit.transport.hub import Hub
from bridgekit_verify.measure.error_origin import link_of_error, raised_by_harness
from bridgekit_verify.measure.workload import AGENT, seeded, tools
from bridgekit_verify.probes.scenario_agents import thinking
from bridgekit_verify.variants import Variant

__all__ = ["Wording", "check_wording"]

WORDING_TIMEOUT_SECONDS: Final = 20.0
AUDITED_THREAD: Final = ThreadId("thread_123")
"""The thread id in the audit's example."""


@dataclass(frozen=True)
class Wording:
    """The audit's description of a link's code, and whether the code matches it."""

    statement: str
    """A one-clause paraphrase of the audit's description."""
    holds: bool


RUN: Final = RunContext(
    run_id=RunId("run_wording"),
    thread_id=ThreadId("thread_wording"),
    user_id=UserId("user_wording"),
    agent_name=AGENT,
    request="wording",
)
"""A run that the supervisor did not create."""


@dataclass(frozen=True)
class WordingFixture:
    """A started application of the variant, and a sound bridge for tests of single links."""

    variant: Variant
    app: Starlette

    @property
    def application(self) -> Application:
        application: Application = self.app.state.bridgekit
        return application

    @cached_property
    def sound_bridge(self) -> AgentWebSocketBridge:
        """A sound bridge, so that the tests of links 3 to 8 do not fail because of a broken bridge of the variant."""
        mapping = RunThreadMappingService()
        return AgentWebSocketBridge(Hub(), carried_or_mapped(mapping), mapping)

    def registry(self, kind: type[AgentRegistry]) -> AgentRegistry:
        """Return a registry of this class with one sound agent."""
        config = self.application.config
        return kind(config.llm_manager, config.tool_dispatcher, {AGENT: thinking(BaseAgent)})


class BoundAdapter(WebSocketBridgeAdapter):
    """An adapter that records the arguments of its binding."""

    given: tuple[object, ...] = ()

    def set_websocket_bridge(
        self, bridge: AgentWebSocketBridge, run_id: RunId, agent_name: str, *, thread_id: ThreadId | None = None
    ) -> None:
        super().set_websocket_bridge(bridge, run_id, agent_name, thread_id=thread_id)
        self.given = (bridge, run_id, agent_name)


@contextmanager
def record_notifications(bridge: AgentWebSocketBridge) -> Iterator[list[AgentEvent]]:
    """Record every event that reaches the bridge while the block runs."""
    notifications = list[AgentEvent]()

    def on_event(event: AgentEvent, receipt: Receipt) -> None:
        notifications.append(event)

    bridge.observers.append(on_event)
    try:
        yield notifications
    finally:
        bridge.observers.remove(on_event)


async def check_wording(link: int, variant: Variant, *, seed: int = 0) -> Wording:
    """Test the audit's description of one of the links 1 to 9 on a started application of the variant.

    If a link raises an error in the test, the description does not hold. An error of the test itself propagates.
    """
    statement, test = _DESCRIPTIONS[link]
    config = variant.config({AGENT: thinking(variant.agent)}, hex_source=seeded(seed), tools=tools(), seed=seed)
    app = create_app(config, start=variant.start)
    async with serving(app):
        fixture = WordingFixture(variant, app)
        try:
            with unwrap_single_error(), anyio.fail_after(WORDING_TIMEOUT_SECONDS):
                return Wording(statement, await test(fixture))
        except Exception as error:
            if raised_by_harness(error) or link_of_error(error) is None:
                raise
            return Wording(statement, holds=False)


async def _bridge_is_stored(fixture: WordingFixture) -> bool:
    return fixture.app.state.agent_websocket_bridge is fixture.application.bridge


async def _supervisor_receives(fixture: WordingFixture) -> bool:
    return fixture.application.supervisor.websocket_bridge is fixture.application.bridge


async def _registry_sets_on_agents(fixture: WordingFixture) -> bool:
    made = fixture.registry(fixture.variant.registry)
    made.set_websocket_bridge(fixture.sound_bridge)
    agent = made.create_bound(RUN)
    return made.websocket_bridge is fixture.sound_bridge and agent.has_websocket_bridge()


async def _engine_passes(fixture: WordingFixture) -> bool:
    source = fixture.registry(AgentRegistry)
    engine = fixture.variant.engine(source, fixture.sound_bridge, core=fixture.variant.core)
    return engine.agent_core.websocket_bridge is fixture.sound_bridge


async def _core_sets_bridge_and_run(fixture: WordingFixture) -> bool:
    source = fixture.registry(AgentRegistry)
    core = fixture.variant.core(source, fixture.sound_bridge)
    with record_notifications(fixture.sound_bridge) as notifications:
        await core.execute_agent(RUN)
    emitted = [event.run_id for event in notifications if event.type is EventType.AGENT_THINKING]
    return emitted == [RUN.run_id]


async def _agent_delegates(fixture: WordingFixture) -> bool:
    config, adapter = fixture.application.config, BoundAdapter()
    agent = thinking(fixture.variant.agent)(AGENT, config.llm_manager, config.tool_dispatcher, adapter)
    agent.set_websocket_bridge(fixture.sound_bridge, RUN.run_id, thread_id=RUN.thread_id)
    return adapter.given == (fixture.sound_bridge, RUN.run_id, AGENT)


async def _adapter_stores(fixture: WordingFixture) -> bool:
    adapter = fixture.variant.adapter()
    adapter.set_websocket_bridge(fixture.sound_bridge, RUN.run_id, AGENT, thread_id=RUN.thread_id)
    return (adapter.bridge, adapter.run_id, adapter.agent_name) == (fixture.sound_bridge, RUN.run_id, AGENT)


async def _emission_calls_bridge(fixture: WordingFixture) -> bool:
    adapter = fixture.variant.adapter()
    adapter.bridge, adapter.run_id, adapter.agent_name = fixture.sound_bridge, RUN.run_id, AGENT
    adapter.thread_id = RUN.thread_id
    with record_notifications(fixture.sound_bridge) as notifications:
        await adapter.emit_agent_started("hello")
    return [(event.run_id, event.agent_name) for event in notifications] == [(RUN.run_id, AGENT)]


async def _run_id_hides_thread(fixture: WordingFixture) -> bool:
    run_id = fixture.application.config.run_ids.new(AUDITED_THREAD)
    # Like the supervisor, register the run, so that link 9 can look up the run's thread.
    await fixture.application.bridge.mapping.register_mapping(run_id, AUDITED_THREAD)
    event = AgentEvent(type=EventType.AGENT_STARTED, run_id=run_id, agent_name=AGENT, payload={})
    resolved = await route_of(fixture.application.bridge.resolver, event)
    return AUDITED_THREAD not in run_id and isinstance(resolved, NoRoute)


_DESCRIPTIONS: Final[dict[int, tuple[str, Callable[[WordingFixture], Awaitable[bool]]]]] = {
    1: ("startup creates the bridge and stores it in the application's state", _bridge_is_stored),
    2: ("the supervisor receives the bridge", _supervisor_receives),
    3: ("the registry stores the bridge and sets it on its agents", _registry_sets_on_agents),
    4: ("the engine passes the bridge to the core", _engine_passes),
    5: ("the core sets the bridge and the run id on the agent", _core_sets_bridge_and_run),
    6: ("the agent passes the bridge, the run id and its name to its adapter", _agent_delegates),
    7: ("the adapter stores the bridge, the run id and the agent's name", _adapter_stores),
    8: ("the adapter calls the bridge with the run id and the agent's name", _emission_calls_bridge),
    9: ("the run id does not contain the thread id, and the bridge finds no thread for the run", _run_id_hides_thread),
}
