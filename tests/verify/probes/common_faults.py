"""Faults that developers of such backends make often, each in one method."""

from __future__ import annotations

import contextvars
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final

import anyio

from bridgekit.chain import link_1_startup, models_tools_and_owners
from bridgekit.chain.context import RunResult, enclosing_runs
from bridgekit.chain.link_2_supervisor_agent import SupervisorAgent
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_4_engine import ExecutionEngine
from bridgekit.chain.link_5_execution_core import AgentExecutionCore, _RunEnd
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.models_tools_and_owners import PythonTools
from bridgekit.counters import DeliveryCounters
from bridgekit.events import EventType, Outcome, Receipt
from bridgekit.transport.hub import Hub
from bridgekit.transport.outbox import OutboxLimits
from tests.verify.probes.common_faults_of_delivery import DELIVERY_FAULTS
from tests.verify.probes.injected_faults import (
    Fault,
    Original,
)

__all__ = ["COMMON_FAULTS", "SERIAL_RUNS", "SOCKETS_OF_ANOTHER_HUB"]

Replacement = Callable[..., Any]


# Link 1: startup


def sockets_with_their_own_hub(original: Original) -> Replacement:
    return lambda hub, *given, **options: original(Hub(), *given, **options)


def sockets_with_their_own_counters(original: Original) -> Replacement:
    return lambda hub, authorizer, counters, **options: original(hub, authorizer, DeliveryCounters(), **options)


def sockets_with_default_limits(original: Original) -> Replacement:
    return lambda *given, outbox, **options: original(*given, outbox=OutboxLimits(), **options)


# Link 2: supervisor


def one_run_at_a_time_for_each_user(original: Original) -> Replacement:
    locks: dict[str, anyio.Lock] = {}

    async def run(self: Any, **request: Any) -> Any:
        async with locks.setdefault(request["user_id"], anyio.Lock()):
            return await original(self, **request)

    return run


def joining_the_run_in_progress(original: Original) -> Replacement:
    active: dict[Any, Any] = {}

    async def open_run(self: Any, **request: Any) -> Any:
        key = id(self), request["thread_id"], request["agent_name"]
        active[key] = active.get(key) or await original(self, **request)
        return active[key]

    return open_run


def trimming_requests(original: Original) -> Replacement:
    return lambda self, **request: original(self, **(request | {"request": request["request"].strip()}))


def not_setting_the_current_run(original: Original) -> Replacement:
    async def run(self: Any, **request: Any) -> Any:
        context = await self.open_run(**request)
        try:
            return RunResult(context, await self.engine.execute(context))
        finally:
            await self.close_run(context)

    return run


def leaving_the_current_run_set(original: Original) -> Replacement:
    async def run(self: Any, **request: Any) -> Any:
        result = await original(self, **request)
        enclosing_runs.set((*enclosing_runs.get(), result.context))
        return result

    return run


def swallowing_errors_of_runs(original: Original) -> Replacement:
    async def run(self: Any, **request: Any) -> Any:
        with suppress(Exception):
            return await original(self, **request)

    return run


def running_failed_requests_again(original: Original) -> Replacement:
    async def run(self: Any, **request: Any) -> Any:
        try:
            return await original(self, **request)
        except Exception:  # noqa: BLE001  # the fault
            return await original(self, **request)

    return run


def closing_only_successful_runs(original: Original) -> Replacement:
    async def run(self: Any, **request: Any) -> Any:
        context = await self.open_run(**request)
        outer = enclosing_runs.get()
        enclosing_runs.set((*outer, context))
        self._executing[id(context)] = context
        result = await self.engine.execute(context)
        enclosing_runs.set(outer)
        await self.close_run(context)
        return RunResult(context, result)

    return run


# Link 3: registry


def falling_back_to_the_first_agent(original: Original) -> Replacement:
    def create(self: Any, name: str) -> Any:
        return original(self, name if name in self.agents else next(iter(self.agents)))

    return create


def named_by(change: Callable[[str], str]) -> Callable[[Original], Replacement]:
    def replacement(original: Original) -> Replacement:
        def create(self: Any, name: str) -> Any:
            agent = original(self, name)
            agent.name = change(name)
            return agent

        return create

    return replacement


# Link 4: engine


def one_run_at_a_time(original: Original) -> Replacement:
    lock = anyio.Lock()

    async def execute(self: Any, context: Any) -> Any:
        async with lock:
            return await original(self, context)

    return execute


def creating_a_core_with_another_bridge(original: Original) -> Replacement:
    async def execute(self: Any, context: Any) -> Any:
        bridge = self.websocket_bridge
        other = type(bridge)(Hub(), bridge.resolver, bridge.mapping)
        return await type(self.agent_core)(self.registry, other).execute_agent(context)

    return execute


def returning_text(original: Original) -> Replacement:
    async def execute(self: Any, context: Any) -> Any:
        return str(await original(self, context))

    return execute


# Link 5: core


def reporting_errors_as_results(original: Original) -> Replacement:
    async def failed(self: Any, error: BaseException) -> None:
        if isinstance(error, Exception):
            await self.completed({"error": str(error)})
        else:
            await original(self, error)

    return failed


def ending_only_runs_with_a_result(original: Original) -> Replacement:
    async def completed(self: Any, result: Any) -> None:
        if result:
            await original(self, result)

    return completed


def agent_for_each_thread(original: Original) -> Replacement:
    agents: dict[Any, Any] = {}

    def prepared(self: Any, context: Any) -> Any:
        key = id(self), context.thread_id, context.agent_name
        if key in agents:
            agents[key].set_websocket_bridge(self.websocket_bridge, context.run_id, thread_id=context.thread_id)
            agents[key].begin_run()
        else:
            agents[key] = original(self, context)
        return agents[key]

    return prepared


def completing_with_the_latest_result(original: Original) -> Replacement:
    latest: list[Any] = [None]

    async def completed(self: Any, result: Any) -> None:
        previous, latest[0] = latest[0], result
        await original(self, result or previous)

    return completed


# Link 6: agent and tools


def without_none_parameters(original: Original) -> Replacement:
    async def dispatch(self: Any, tool_name: str, parameters: Any, emitter: Any) -> Any:
        given = {key: value for key, value in parameters.items() if value is not None}
        return await original(self, tool_name, given, emitter)

    return dispatch


def swallowing_refusals(original: Original) -> Replacement:
    async def emit(self: Any, kind: EventType, payload: Any) -> Any:
        try:
            return await original(self, kind, payload)
        except Exception as error:  # noqa: BLE001  # the fault
            return Receipt(outcome=Outcome.REFUSED, link=6, reason=type(error).__name__)

    return emit


def always_true(original: Original) -> Replacement:
    return lambda self: True


def one_tool_at_a_time(original: Original) -> Replacement:
    lock = anyio.Lock()

    async def run(self: Any, tool_name: str, parameters: Any) -> Any:
        if tool_name == "delegate":
            return await original(self, tool_name, parameters)
        async with lock:
            return await original(self, tool_name, parameters)

    return run


def reporting_failed_tools_as_successful(original: Original) -> Replacement:
    return lambda self, result, status: original(self, result, "success")


# Link 7: binding of the adapter


def unbinding_at_the_end(original: Original) -> Replacement:
    def end_run(self: Any, run_id: Any) -> bool:
        answer = bool(original(self, run_id))
        self.bridge = None
        return answer

    return end_run


def binding_in_a_context_variable(original: Original) -> Replacement:
    bound: contextvars.ContextVar[Any] = contextvars.ContextVar("bound", default=None)

    def set_bound(self: Any, value: Any) -> None:
        bound.set(value)

    def bind(self: Any, *given: Any, thread_id: Any = None) -> None:
        original(self, *given, thread_id=thread_id)
        bound.set(thread_id)
        type(self).thread_id = property(lambda self: bound.get(), set_bound)

    return bind


def binding_lower_case(original: Original) -> Replacement:
    def bind(self: Any, bridge: Any, run_id: Any, agent_name: str, *, thread_id: Any = None) -> None:
        original(self, bridge, run_id.lower(), agent_name, thread_id=thread_id)

    return bind


def binding_name(change: Callable[[str], str]) -> Callable[[Original], Replacement]:
    def replacement(original: Original) -> Replacement:
        def bind(self: Any, bridge: Any, run_id: Any, agent_name: str, *, thread_id: Any = None) -> None:
            original(self, bridge, run_id, change(agent_name), thread_id=thread_id)

        return bind

    return replacement


def rows() -> Iterator[Fault]:
    adapter, agent = WebSocketBridgeAdapter, BaseAgent
    supervisor, engine, registry = SupervisorAgent, ExecutionEngine, AgentRegistry
    for name, change in {
        "sockets have their own counters": sockets_with_their_own_counters,
        "limits of outboxes ignored": sockets_with_default_limits,
    }.items():
        yield Fault(name, 1, link_1_startup, "ConnectionRegistry", change)
    for name, change in {
        "current run not set": not_setting_the_current_run,
        "current run not reset": leaving_the_current_run_set,
        "errors of runs swallowed": swallowing_errors_of_runs,
        "failed requests run again": running_failed_requests_again,
        "failed runs not closed": closing_only_successful_runs,
    }.items():
        yield Fault(name, 2, supervisor, "run", change)
    yield Fault("run in progress joined", 2, supervisor, "open_run", joining_the_run_in_progress)
    yield Fault("requests trimmed", 2, supervisor, "open_run", trimming_requests)
    yield Fault("first agent by default", 3, registry, "create", falling_back_to_the_first_agent)
    yield Fault("names trimmed by registry", 3, registry, "create", named_by(str.strip))
    composed = partial(unicodedata.normalize, "NFC")
    yield Fault("names composed by registry", 3, registry, "create", named_by(composed))
    yield Fault("a core with another bridge", 4, engine, "execute", creating_a_core_with_another_bridge)
    yield Fault("results as text", 4, engine, "execute", returning_text)
    yield Fault("errors as results", 5, _RunEnd, "failed", reporting_errors_as_results)
    yield Fault("no end without a result", 5, _RunEnd, "completed", ending_only_runs_with_a_result)
    yield Fault("agent for each thread", 5, AgentExecutionCore, "_prepared", agent_for_each_thread)
    yield Fault("the latest result", 5, _RunEnd, "completed", completing_with_the_latest_result)
    yield Fault("one id for all tool calls", 6, models_tools_and_owners, "new_id", lambda original: lambda: "call")
    yield Fault("parameters without None", 6, PythonTools, "dispatch", without_none_parameters)
    yield Fault("refusals swallowed by agent", 6, agent, "emit", swallowing_refusals)
    yield Fault("agent always has a bridge", 6, agent, "has_websocket_bridge", always_true)
    yield Fault("one tool at a time", 6, PythonTools, "_run", one_tool_at_a_time)
    failed = reporting_failed_tools_as_successful
    yield Fault("failed tools successful", 6, models_tools_and_owners.ToolCall, "completed", failed)
    yield Fault("unbound at the end", 7, adapter, "end_run", unbinding_at_the_end)
    yield Fault("bound in a context variable", 7, adapter, "set_websocket_bridge", binding_in_a_context_variable)
    yield Fault("run ids in lower case", 7, adapter, "set_websocket_bridge", binding_lower_case)
    yield Fault("names trimmed by adapter", 7, adapter, "set_websocket_bridge", binding_name(str.strip))
    yield Fault("names composed by adapter", 7, adapter, "set_websocket_bridge", binding_name(composed))


COMMON_FAULTS: Final = (*rows(), *DELIVERY_FAULTS)
SOCKETS_OF_ANOTHER_HUB: Final = Fault(
    "sockets have their own hub", 1, link_1_startup, "ConnectionRegistry", sockets_with_their_own_hub
)
"""No event can reach a socket, so that link 10 cannot be judged."""
SERIAL_RUNS: Final = (
    Fault("one run of a user at a time", 2, SupervisorAgent, "run", one_run_at_a_time_for_each_user),
    Fault("one run at a time", 4, ExecutionEngine, "execute", one_run_at_a_time),
)
"""A run that starts another one waits for it forever, so that the scenario reaches its time limit."""
