"""Broken versions of links 1 to 5, each the smallest override of a sound link. `localization` must find the broken link
of each version.

The audited defects are in `bridgekit_verify.as_committed`. `OSError` stands for any failure in a link, such as a
store that is down or a full disk.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from bridgekit.chain.context import RunContext, RunResult
from bridgekit.chain.link_1_startup import Application, BridgeConfig, start_application
from bridgekit.chain.link_2_supervisor_agent import SupervisorAgent
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_4_engine import ExecutionEngine
from bridgekit.chain.link_5_execution_core import AgentExecutionCore, AgentSource
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.events import AgentEvent, Receipt
from bridgekit.ids import ThreadId
from bridgekit.stores import Stores
from bridgekit.transport.hub import Hub


def another(bridge: AgentWebSocketBridge) -> AgentWebSocketBridge:
    """Return an equivalent bridge that has no sockets."""
    return type(bridge)(Hub(), bridge.resolver, bridge.mapping)


async def start_without_the_registry(config: BridgeConfig, stores: Stores) -> Application:
    """Link 1, not passed on: the registry does not receive the bridge."""
    kind: Any = config.registry
    return await start_application(
        replace(
            config,
            registry=type("RegistryWithoutBridge", (kind,), {"set_websocket_bridge": lambda registry, bridge: None}),
        ),
        stores,
    )


async def start_with_two_bridges(config: BridgeConfig, stores: Stores) -> Application:
    """Link 1, wrong value: the supervisor's bridge is not the bridge to which the sockets are attached."""
    application = await start_application(config, stores)
    return replace(application, bridge=another(application.bridge))


async def start_that_raises(config: BridgeConfig, stores: Stores) -> Application:
    """Link 1, raises: startup raises an OSError."""
    raise OSError("link 1 is broken")


async def start_that_wires_late(config: BridgeConfig, stores: Stores) -> Application:
    """Link 1, delayed: the links receive the sockets' bridge only after the first event."""
    application = await start_application(config, stores)
    early, supervisor = application.bridge, application.supervisor
    late = another(early)

    def wire(event: AgentEvent, receipt: Receipt) -> None:
        supervisor.websocket_bridge = supervisor.registry.websocket_bridge = late
        supervisor.engine.websocket_bridge = supervisor.engine.agent_core.websocket_bridge = late

    early.observers.append(wire)
    return replace(application, bridge=late)


class SupervisorWithoutBridgeForTheEngine(SupervisorAgent):
    """Link 2, not passed on: the engine receives no bridge."""

    def __init__(self, *given: Any, engine: Any = ExecutionEngine, **choices: Any) -> None:
        def create(registry: Any, bridge: Any, *, core: Any) -> Any:
            return engine(registry, None, core=core)

        super().__init__(*given, engine=cast("Any", create), **choices)


class SupervisorWithTheLastThread(SupervisorAgent):
    """Link 2, wrong value: a run is assigned to the thread of the previous request."""

    previous: ThreadId | None = None

    async def open_run(self, **request: str) -> RunContext:
        context = await super().open_run(**request)
        thread, self.previous = self.previous or context.thread_id, context.thread_id
        return replace(context, thread_id=thread)


class SupervisorThatRaises(SupervisorAgent):
    """Link 2, raises: opening a run raises an OSError."""

    async def open_run(self, **request: str) -> RunContext:
        raise OSError("link 2 is broken")


class SupervisorThatForgetsRuns(SupervisorAgent):
    """Link 2, swallowed: returns a result immediately and does not call the engine."""

    async def run(self, **request: str) -> RunResult:
        return RunResult(await self.open_run(**request), "accepted")


class SupervisorThatWiresLate(SupervisorAgent):
    """Link 2, delayed: the engine receives the bridge after the first run."""

    def __init__(self, sessions: Any, model: Any, websocket_bridge: Any, tools: Any, **choices: Any) -> None:
        super().__init__(sessions, model, another(websocket_bridge), tools, **choices)
        self.websocket_bridge = websocket_bridge

    async def run(self, **request: str) -> RunResult:
        try:
            return await super().run(**request)
        finally:
            self.engine.websocket_bridge = self.engine.agent_core.websocket_bridge = self.websocket_bridge


class RegistryThatBindsNobody(AgentRegistry):
    """Link 3, not passed on: returns agents without a bridge."""

    def create_bound(self, context: RunContext) -> BaseAgent:
        return self.create(context.agent_name)


class RegistryThatBindsToTheLastRun(AgentRegistry):
    """Link 3, wrong value: binds an agent to the run of the previous request."""

    previous: RunContext | None = None

    def create_bound(self, context: RunContext) -> BaseAgent:
        run, self.previous = self.previous or context, context
        return super().create_bound(run)


class RegistryThatRaises(AgentRegistry):
    """Link 3, raises: creating an agent raises an OSError."""

    def create_bound(self, context: RunContext) -> BaseAgent:
        raise OSError("link 3 is broken")


class RegistryThatBindsLate(AgentRegistry):
    """Link 3, delayed: binds an agent only when the next agent is created."""

    waiting: tuple[BaseAgent, RunContext] | None = None

    def create_bound(self, context: RunContext) -> BaseAgent:
        if self.waiting is not None and self.websocket_bridge is not None:
            agent, run = self.waiting
            agent.set_websocket_bridge(self.websocket_bridge, run.run_id, thread_id=run.thread_id)
        self.waiting = self.create(context.agent_name), context
        return self.waiting[0]


class EngineWithoutBridgeForTheCore(ExecutionEngine):
    """Link 4, not passed on: the core receives no bridge."""

    def __init__(self, registry: AgentSource, websocket_bridge: Any, *, core: Any) -> None:
        def create(source: Any, bridge: Any) -> Any:
            return core(source, None)

        super().__init__(registry, websocket_bridge, core=cast("Any", create))


class EngineThatRaises(ExecutionEngine):
    """Link 4, raises: executing a run raises an OSError."""

    async def execute(self, context: RunContext) -> object:
        raise OSError("link 4 is broken")


class EngineThatForgetsRuns(ExecutionEngine):
    """Link 4, swallowed: returns a result immediately and does not call the core."""

    async def execute(self, context: RunContext) -> object:
        return "accepted"


class EngineThatWiresLate(ExecutionEngine):
    """Link 4, delayed: the core receives the bridge after the first run."""

    def __init__(self, registry: AgentSource, websocket_bridge: Any, *, core: type[AgentExecutionCore]) -> None:
        super().__init__(registry, another(websocket_bridge), core=core)
        self.websocket_bridge = websocket_bridge

    async def execute(self, context: RunContext) -> object:
        try:
            return await super().execute(context)
        finally:
            self.agent_core.websocket_bridge = self.websocket_bridge


class CoreThatBindsNobody(AgentExecutionCore):
    """Link 5, not passed on: executes agents without a bridge."""

    def _prepared(self, context: RunContext) -> BaseAgent:
        return self.registry.create(context.agent_name)


class CoreThatRaises(AgentExecutionCore):
    """Link 5, raises: preparing an agent raises an OSError."""

    def _prepared(self, context: RunContext) -> BaseAgent:
        raise OSError("link 5 is broken")


class CoreThatSaysNothing(AgentExecutionCore):
    """Link 5, swallowed: emits neither the start nor the end of a run."""

    async def execute_agent(self, context: RunContext) -> object:
        return await self._prepared(context).execute(context)


class CoreThatSaysTheStartLast(AgentExecutionCore):
    """Link 5, delayed: emits the start of a run after its end."""

    async def execute_agent(self, context: RunContext) -> object:
        agent, run = self._prepared(context), (context.run_id, context.agent_name)
        result, started = await agent.execute(context), {"request": context.request}
        bridge, thread_id = self.websocket_bridge, context.thread_id
        await bridge.notify_agent_completed(*run, result=result, thread_id=thread_id)
        await bridge.notify_agent_started(*run, context=started, thread_id=thread_id)
        return result
