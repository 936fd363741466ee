"""Faults that developers of such backends make: caches, shared state, races, conversions, and wrong ends of runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import anyio.lowlevel

from bridgekit.chain import models_tools_and_owners
from bridgekit.chain.context import enclosing_runs
from bridgekit.chain.link_2_supervisor_agent import SupervisorAgent
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_4_engine import ExecutionEngine
from bridgekit.chain.link_5_execution_core import AgentExecutionCore, _RunEnd
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.chain.models_tools_and_owners import PythonTools, ToolCall
from bridgekit.events import AgentEvent, EventType, Frame
from bridgekit.ids import new_id
from bridgekit.mapping import MemoryMappingStore, RunThreadMappingService
from bridgekit.transport import authorization
from bridgekit.transport.hub import Hub
from bridgekit.transport.outbox import Subscriber
from bridgekit_verify.probes.scenario_agents import AgentFailed
from tests.verify.probes.injected_faults import SENT, Fault, Original, changed, event_of_notify, event_of_publish

__all__ = ["BACKEND_FAULTS"]

Replacement = Callable[..., Any]


def answering_from_a_cache(*names: str) -> Callable[[Original], Replacement]:
    """Return the answer of the first request whose named fields are equal."""

    def replacement(original: Original) -> Replacement:
        answers: dict[Any, Any] = {}

        async def run(self: Any, **request: Any) -> Any:
            key = (id(self), *(request[name] for name in names))
            if key not in answers:
                answers[key] = await original(self, **request)
            return answers[key]

        return run

    return replacement


def answering_equal_requests_once(original: Original) -> Replacement:
    answers: dict[Any, Any] = {}

    async def execute(self: Any, context: Any) -> Any:
        if (id(self), context.request) not in answers:
            answers[id(self), context.request] = await original(self, context)
        return answers[id(self), context.request]

    return execute


def using_the_parents_thread(original: Original) -> Replacement:
    async def open_run(self: Any, **request: Any) -> Any:
        outer = enclosing_runs.get()
        return await original(self, **(request | ({"thread_id": outer[0].thread_id} if outer else {})))

    return open_run


def sharing_a_default_adapter(original: Original) -> Replacement:
    first: dict[int, Any] = {}

    def create(self: Any, name: str) -> Any:
        agent = original(self, name)
        agent._websocket_adapter = first.setdefault(id(self), agent._websocket_adapter)
        return agent

    return create


def measuring_seconds(original: Original) -> Replacement:
    async def completed(self: Any, result: Any) -> None:
        now = time.perf_counter()
        self._started = now - (now - self._started) / 1_000
        await original(self, result)

    return completed


def showing_the_first_request(original: Original) -> Replacement:
    first: list[str] = []

    async def send(self: Any, error: BaseException) -> None:
        first.append(self._context.request)
        self._context = replace(self._context, request=first[0])
        await original(self, error)

    return send


def hiding_the_errors_of_the_platform(original: Original) -> Replacement:
    async def send(self: Any, error: BaseException) -> None:
        await original(self, error if isinstance(error, AgentFailed) else RuntimeError("internal error"))

    return send


def announcing_the_run(original: Original) -> Replacement:
    async def execute(self: Any, context: Any) -> Any:
        await self.websocket_bridge.notify_progress_update(
            context.run_id, context.agent_name, {"queued": True}, thread_id=context.thread_id
        )
        return await original(self, context)

    return execute


def buffering_events(original: Original) -> Replacement:
    def emit(self: Any, kind: EventType, payload: Any) -> Any:
        waiting = vars(self).setdefault("_waiting", [])
        waiting.append((kind, payload))
        if len(waiting) > 4:
            for each in waiting[:-1]:
                original(self, *each)  # the answers are not awaited
            waiting.clear()
        return SENT

    return emit


def announcing_tools_that_have_run(original: Original) -> Replacement:
    async def dispatch(self: Any, tool_name: str, parameters: Any, emitter: Any) -> Any:
        call = ToolCall(emitter, tool_name, new_id())
        result, status, error = None, "success", None
        try:
            result = await self._run(tool_name, parameters)
        except AgentFailed as failure:
            result, status, error = emitter.error_text(failure), "error", failure
        await emitter.emit_tool_executing(tool_name, parameters, tool_call_id=call.tool_call_id)
        await call.completed(result, status)
        if error is not None:
            raise error
        return result

    return dispatch


def running_twice(original: Original) -> Replacement:
    async def run(self: Any, tool_name: str, parameters: Any) -> Any:
        if tool_name == "look_up":
            await original(self, tool_name, parameters)
        return await original(self, tool_name, parameters)

    return run


def trying_again(original: Original) -> Replacement:
    async def run(self: Any, tool_name: str, parameters: Any) -> Any:
        try:
            return await original(self, tool_name, parameters)
        except AgentFailed:
            return await original(self, tool_name, parameters)

    return run


def timed_by(milliseconds: Callable[[float], float]) -> Callable[[Original], Replacement]:
    def replacement(original: Original) -> Replacement:
        async def completed(self: Any, result: Any, status: str) -> None:
            await self.emitter.emit_tool_completed(
                self.tool_name,
                result,
                tool_call_id=self.tool_call_id,
                execution_time_ms=milliseconds(self.started),
                status=status,
            )

        return completed

    return replacement


def caching_tools(*, by_parameters: bool) -> Callable[[Original], Replacement]:
    def replacement(original: Original) -> Replacement:
        results: dict[Any, Any] = {}

        async def run(self: Any, tool_name: str, parameters: Any) -> Any:
            if tool_name != "look_up":
                return await original(self, tool_name, parameters)
            key = id(self), repr(parameters) if by_parameters else ""
            if key not in results:
                results[key] = await original(self, tool_name, parameters)
            return results[key]

        return run

    return replacement


def completing_the_latest_call(original: Any) -> Replacement:
    """Pair the end of a tool call with the agent's latest call, which is wrong for calls at the same time."""
    calls: dict[int, list[str]] = {}

    class StackedCall(original):  # type: ignore[misc]  # the base class is an argument
        __slots__ = ()

        async def completed(self, result: Any, status: str) -> None:
            latest = replace(self, tool_call_id=calls[id(self.emitter)].pop())
            await original.completed(latest, result, status)

    def create(emitter: Any, tool_name: str, tool_call_id: str) -> Any:
        calls.setdefault(id(emitter), []).append(tool_call_id)
        return StackedCall(emitter, tool_name, tool_call_id)

    return create


def binding_the_class(original: Original) -> Replacement:
    def bind(self: Any, *given: Any, thread_id: Any = None) -> None:
        original(self, *given, thread_id=thread_id)
        del self.thread_id
        type(self).thread_id = thread_id

    return bind


def stamped(timestamp: Callable[[datetime], Any]) -> Callable[[Original], Replacement]:
    def replacement(original: Original) -> Replacement:
        def emit(self: Any, kind: EventType, payload: Any) -> Any:
            if self.bridge is None or (self.guarded and kind in ("agent_completed", "agent_error")):
                return original(self, kind, payload)
            event = AgentEvent(
                type=kind, run_id=self.run_id, agent_name=self.agent_name, payload=payload, thread_id=self.thread_id
            )
            event.timestamp = timestamp(event.timestamp)
            return self.bridge.notify(event)

        return emit

    return replacement


def dropping_equal_neighbours(original: Original) -> Replacement:
    latest: dict[int, tuple[EventType, str]] = {}

    def emit(self: Any, kind: EventType, payload: Any) -> Any:
        event = kind, repr(payload)
        if latest.get(id(self)) == event:
            return SENT
        latest[id(self)] = event
        return original(self, kind, payload)

    return emit


def marking_payloads_as_sent(original: Original) -> Replacement:
    def emit(self: Any, kind: EventType, payload: Any) -> Any:
        answer = original(self, kind, payload)
        if "password" in payload:
            payload["sent"] = True
        return answer

    return emit


def caching_missing_routes(original: Original) -> Replacement:
    missing = set[Any]()

    async def get_thread_id(self: Any, run_id: Any) -> Any:
        if (id(self), run_id) in missing:
            return None
        found = await original(self, run_id)
        if found is None:
            missing.add((id(self), run_id))
        return found

    return get_thread_id


def ignoring_case_of_runs(original: Original) -> Replacement:
    def insert(self: Any, run_id: Any, thread_id: Any) -> Any:
        same = [each for each in self._routes if each.lower() == run_id.lower()]
        return original(self, same[0] if same else run_id, thread_id)

    return insert


def trimming_runs(original: Original) -> Replacement:
    return lambda self, run_id, thread_id: original(self, run_id.strip(), thread_id)


def expiring_reopened_runs(original: Original) -> Replacement:
    def insert(self: Any, run_id: Any, thread_id: Any) -> Any:
        due = self._due.get(run_id)
        stored = original(self, run_id, thread_id)
        if due is not None:
            self._due.setdefault(run_id, due)
        return stored

    return insert


def discarding_waiting_frames(original: Original) -> Replacement:
    def drain(self: Any) -> None:
        self._waiting.clear()
        self._waiting_bytes = 0
        original(self)

    return drain


def attaching_after_the_replay(original: Original) -> Replacement:
    async def join(self: Any, connection: Any, after: Any = None) -> Any:
        await self._log.join(connection.thread_id)
        replay = await self._log.replay(connection.thread_id, after)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        self.attach(connection)
        return replay

    return join


def ending_at_a_closed_socket(original: Original) -> Replacement:
    def deliver(self: Any, thread_id: Any, frame: Frame) -> int:
        accepted = 0
        for connection in self.connections(thread_id):
            if not connection.put(frame):
                break
            accepted += 1
        return accepted

    return deliver


def accepting_unknown_threads(original: Original) -> Replacement:
    async def authorize(threads: Any, subscription: Any) -> Any:
        owner = await threads.owner_of(subscription.thread_id)
        return subscription if owner is None else await original(threads, subscription)

    return authorize


def trusting_clients_that_resume(original: Original) -> Replacement:
    async def authorize(self: Any, handshake: Any) -> Any:
        if handshake.after is None:
            return await original(self, handshake)
        return authorization.Subscription(handshake.query["user_id"], handshake.query["thread_id"])

    return authorize


def removing_one_frame_too_many(original: Original) -> Replacement:
    def take(self: Any, limit: int) -> Any:
        frames = original(self, limit)
        if len(frames) == limit and self._queue is None:
            del self._waiting[:1]
        return frames

    return take


def rows() -> Iterator[Fault]:
    adapter, bridge, supervisor = WebSocketBridgeAdapter, AgentWebSocketBridge, SupervisorAgent
    by_request = answering_from_a_cache("agent_name", "request")
    yield Fault("answers cached for all users", 2, supervisor, "run", by_request)
    by_user = answering_from_a_cache("agent_name", "request", "user_id")
    yield Fault("answers cached by user", 2, supervisor, "run", by_user)
    yield Fault("sub-agent in its parent's thread", 2, supervisor, "open_run", using_the_parents_thread)
    yield Fault("adapter in a default argument", 3, AgentRegistry, "create", sharing_a_default_adapter)
    yield Fault("equal requests once", 4, ExecutionEngine, "execute", answering_equal_requests_once)
    yield Fault("durations in seconds", 5, _RunEnd, "completed", measuring_seconds)
    yield Fault("request of another user's run", 5, _RunEnd, "_send_error", showing_the_first_request)
    yield Fault("errors hidden", 5, _RunEnd, "_send_error", hiding_the_errors_of_the_platform)
    yield Fault("event before the start", 5, AgentExecutionCore, "execute_agent", announcing_the_run)
    yield Fault("last event of a buffer lost", 6, BaseAgent, "emit", buffering_events)
    yield Fault("tools announced after they ran", 6, PythonTools, "dispatch", announcing_tools_that_have_run)
    yield Fault("tools run twice", 6, PythonTools, "_run", running_twice)
    yield Fault("tools tried again", 6, PythonTools, "_run", trying_again)
    seconds = timed_by(lambda started: time.perf_counter() - started)
    yield Fault("tool times in seconds", 6, ToolCall, "completed", seconds)
    since_boot = timed_by(lambda started: time.perf_counter() * 1_000)
    yield Fault("tool times since the start", 6, ToolCall, "completed", since_boot)
    yield Fault("results cached by tool", 6, PythonTools, "_run", caching_tools(by_parameters=False))
    yield Fault("results cached by parameters", 6, PythonTools, "_run", caching_tools(by_parameters=True))
    yield Fault("latest call completed", 6, models_tools_and_owners, "ToolCall", completing_the_latest_call)
    yield Fault("thread in a class attribute", 7, adapter, "set_websocket_bridge", binding_the_class)
    yield Fault("no time zone", 8, adapter, "emit", stamped(lambda each: each.replace(tzinfo=None)))
    yield Fault("timestamps as text", 8, adapter, "emit", stamped(lambda each: each.isoformat()))
    yield Fault("no timestamps", 8, adapter, "emit", stamped(lambda each: None))
    yield Fault("equal neighbours dropped", 8, adapter, "emit", dropping_equal_neighbours)
    yield Fault("payloads marked as sent", 8, adapter, "emit", marking_payloads_as_sent)
    yield Fault("missing routes cached", 9, RunThreadMappingService, "get_thread_id", caching_missing_routes)
    yield Fault("run ids without case", 9, MemoryMappingStore, "insert", ignoring_case_of_runs)
    yield Fault("run ids trimmed", 9, MemoryMappingStore, "insert", trimming_runs)
    yield Fault("reopened runs expire", 9, MemoryMappingStore, "insert", expiring_reopened_runs)
    local = changed(timestamp=lambda event: event.timestamp.replace(tzinfo=None))
    yield Fault("time zone removed by bridge", 9, bridge, "notify", event_of_notify(local))
    yield Fault("time zone removed by hub", 10, Hub, "publish", event_of_publish(local))
    yield Fault("waiting frames lost at drain", 10, Subscriber, "drain", discarding_waiting_frames)
    yield Fault("attached after the replay", 10, Hub, "join", attaching_after_the_replay)
    yield Fault("closed tab ends delivery", 10, Hub, "deliver", ending_at_a_closed_socket)
    yield Fault("unknown threads accepted", 10, authorization, "authorize_owner", accepting_unknown_threads)
    resumed = trusting_clients_that_resume
    yield Fault("resumed without a check", 10, authorization.OwnerAuthorizer, "authorize", resumed)
    yield Fault("one frame too many removed", 10, Subscriber, "_take_frames", removing_one_frame_too_many)


BACKEND_FAULTS: Final = tuple(rows())
