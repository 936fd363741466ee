"""Tests what the audit says about each link word for word, apart from whether the link works.

The audit describes what a link's code does, and concludes that the link works. A description can be true while the
link fails: a bridge that is created and stored may still reach no user. The probes test the conclusion, and this
module tests the description.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import anyio

from bridgekit.chain.link_1_startup import create_app
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_6_agent import BaseAgent
from bridgekit.errors import unwrap_single_error
from bridgekit.events import AgentEvent, EventType
from bridgekit.ids import ThreadId
from bridgekit.resolution import NoRoute, route_of
from bridgekit.serve.in_process import serving
from bridgekit_verify.measure.error_origin import link_of_error, raised_by_harness
from bridgekit_verify.measure.workload import AGENT, seeded, tools
from bridgekit_verify.probes.probe_fixture import (
    ProbeFixture,
    RecordingAdapter,
    record_notifications,
    registry,
    thinking,
)
from bridgekit_verify.variants import Variant

__all__ = ["Wording", "check_wording"]

WORDING_TIMEOUT_SECONDS: Final = 20.0
AUDITED_THREAD: Final = ThreadId("thread_123")
"""The audit's own example."""


@dataclass(frozen=True)
class Wording:
    """What the audit says about a link's code, and whether the code does that."""

    statement: str
    """The audit's description of the link, paraphrased as one clause."""
    holds: bool


async def check_wording(link: int, variant: Variant, *, seed: int = 0) -> Wording:
    """Test the audit's description of link 1 to 9 on a started application of the variant.

    A description does not hold if a link raises an error in the test; an error of the test itself propagates.
    """
    statement, test = _DESCRIPTIONS[link]
    config = variant.config({AGENT: thinking(variant.agent)}, hex_source=seeded(seed), tools=tools(), seed=seed)
    app = create_app(config, start=variant.start)
    async with serving(app) as url:
        fixture = ProbeFixture(variant, app, url, seed, threads=1)
        try:
            with unwrap_single_error(), anyio.fail_after(WORDING_TIMEOUT_SECONDS):
                return Wording(statement, await test(fixture))
        except Exception as error:
            if raised_by_harness(error) or link_of_error(error) is None:
                raise
            return Wording(statement, holds=False)


async def _bridge_is_stored(fixture: ProbeFixture) -> bool:
    return fixture.app.state.agent_websocket_bridge is fixture.bridge


async def _supervisor_receives(fixture: ProbeFixture) -> bool:
    return fixture.application.supervisor.websocket_bridge is fixture.bridge


async def _registry_sets_on_agents(fixture: ProbeFixture) -> bool:
    made = registry(fixture, fixture.variant.registry, thinking(BaseAgent))
    made.set_websocket_bridge(fixture.frame_recorder)
    agent = made.create_bound(fixture.context(1))
    return made.websocket_bridge is fixture.frame_recorder and agent.has_websocket_bridge()


async def _engine_passes(fixture: ProbeFixture) -> bool:
    source = registry(fixture, AgentRegistry, thinking(BaseAgent))
    engine = fixture.variant.engine(source, fixture.frame_recorder, core=fixture.variant.core)
    return engine.agent_core.websocket_bridge is fixture.frame_recorder


async def _core_sets_bridge_and_run(fixture: ProbeFixture) -> bool:
    source, run = registry(fixture, AgentRegistry, thinking(BaseAgent)), fixture.context(1)
    core = fixture.variant.core(source, fixture.frame_recorder)
    with record_notifications(fixture.frame_recorder) as notifications:
        await core.execute_agent(run)
    emitted = [event.run_id for event, _ in notifications if event.type is EventType.AGENT_THINKING]
    return emitted == [run.run_id]


async def _agent_delegates(fixture: ProbeFixture) -> bool:
    config, run, adapter = fixture.application.config, fixture.context(1), RecordingAdapter()
    agent = thinking(fixture.variant.agent)(AGENT, config.llm_manager, config.tool_dispatcher, adapter)
    agent.set_websocket_bridge(fixture.frame_recorder, run.run_id, thread_id=run.thread_id)
    return adapter.given[:3] == (fixture.frame_recorder, run.run_id, AGENT)


async def _adapter_stores(fixture: ProbeFixture) -> bool:
    run, adapter = fixture.context(1), fixture.variant.adapter()
    adapter.set_websocket_bridge(fixture.frame_recorder, run.run_id, AGENT, thread_id=run.thread_id)
    return (adapter.bridge, adapter.run_id, adapter.agent_name) == (fixture.frame_recorder, run.run_id, AGENT)


async def _emission_calls_bridge(fixture: ProbeFixture) -> bool:
    run, adapter = fixture.context(1), fixture.variant.adapter()
    adapter.bridge, adapter.run_id, adapter.agent_name = fixture.frame_recorder, run.run_id, AGENT
    adapter.thread_id = run.thread_id
    with record_notifications(fixture.frame_recorder) as notifications:
        await adapter.emit_agent_started("hello")
    return [(event.run_id, event.agent_name) for event, _ in notifications] == [(run.run_id, AGENT)]


async def _run_id_hides_thread(fixture: ProbeFixture) -> bool:
    run_id = fixture.application.config.run_ids.new(AUDITED_THREAD)
    # The supervisor registers each run, so the thread could be found if link 9 looked it up.
    await fixture.bridge.mapping.register_mapping(run_id, AUDITED_THREAD)
    event = AgentEvent(type=EventType.AGENT_STARTED, run_id=run_id, agent_name=AGENT, payload={})
    resolved = await route_of(fixture.bridge.resolver, event)
    return AUDITED_THREAD not in run_id and isinstance(resolved, NoRoute)


_DESCRIPTIONS: Final[dict[int, tuple[str, Callable[[ProbeFixture], Awaitable[bool]]]]] = {
    1: ("startup creates the bridge and stores it in the application's state", _bridge_is_stored),
    2: ("the supervisor receives the bridge", _supervisor_receives),
    3: ("the registry stores the bridge and sets it on its agents", _registry_sets_on_agents),
    4: ("the engine passes the bridge to the core", _engine_passes),
    5: ("the core sets the bridge and the run id on the agent", _core_sets_bridge_and_run),
    6: ("the agent passes the bridge, the run id and its name to its adapter", _agent_delegates),
    7: ("the adapter stores the bridge, the run id and the agent's name", _adapter_stores),
    8: ("the adapter calls the bridge with the run id and the agent's name", _emission_calls_bridge),
    9: ("the run id does not contain the thread id, and no thread is found for it", _run_id_hides_thread),
}
