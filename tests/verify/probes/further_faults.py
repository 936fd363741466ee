"""More injected faults: of values, of ends and tools, of routes and bindings, and of what a socket reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final

import anyio.lowlevel
import msgspec

from bridgekit.chain import link_2_supervisor_agent
from bridgekit.chain.link_2_supervisor_agent import SupervisorAgent
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_4_engine import ExecutionEngine
from bridgekit.chain.link_5_execution_core import AgentExecutionCore, _RunEnd
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import Emitter, WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.chain.models_tools_and_owners import ToolCall
from bridgekit.cursors_and_gaps import Cursor
from bridgekit.events import AgentEvent, EventType, Frame
from bridgekit.mapping import MemoryMappingStore, RunThreadMappingService
from bridgekit.thread_resolvers import Carried
from bridgekit.transport.coalescing import CoalescingQueue
from bridgekit.transport.hub import Hub
from bridgekit.transport.log import MemoryEventLog
from bridgekit.transport.outbox import Subscriber
from bridgekit_verify.probes.scenario_agents import CONFUSABLE, AgentFailed
from tests.verify.probes.injected_faults import (
    SENT,
    Fault,
    Original,
    changed,
    dropping,
    event_of_notify,
    mapped,
    payload_of_emit,
    reporting_errors_as_sent,
)

__all__ = ["FURTHER_FAULTS"]

Replacement = Callable[..., Any]


def without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_none(each) for key, each in value.items() if each is not None}
    return [without_none(each) for each in value if each is not None] if isinstance(value, list) else value


def without_private_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_private_keys(each) for key, each in value.items() if not key.startswith("_")}
    return [without_private_keys(each) for each in value] if isinstance(value, list) else value


def first_hundred(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: first_hundred(each) for key, each in value.items()}
    return [first_hundred(each) for each in value[:100]] if isinstance(value, list) else value


def without_arabic(text: str) -> str:
    return re.sub("[\u0600-\u06ff]", "", text)


def reusing_the_first_thought(original: Original) -> Replacement:
    first: list[Any] = []

    def emit(self: Any, kind: EventType, payload: Any) -> Any:
        if kind is EventType.AGENT_THINKING:
            first.append(payload)
        return original(self, kind, first[0] if kind is EventType.AGENT_THINKING else payload)

    return emit


def omitting_step_0(original: Original) -> Replacement:
    async def emit_thinking(self: Any, reasoning: str, *, step_number: Any = None, **given: Any) -> Any:
        return await original(self, reasoning, step_number=step_number or None, **given)

    return emit_thinking


def normalizing_lines_of_text(original: Original) -> Replacement:
    async def emit_text(self: Any, delta: str, *, message_id: str) -> Any:
        return await original(self, delta.replace("\r\n", "\n"), message_id=message_id)

    return emit_text


def doing_nothing(original: Original) -> Replacement:
    return lambda self, *given: None


def awaiting_nothing(original: Original) -> Replacement:
    async def method(self: Any, *given: Any) -> None:
        return None

    return method


def answering(answer: bool) -> Callable[[Original], Replacement]:
    def replacement(original: Original) -> Replacement:
        def end_run(self: Any, run_id: Any) -> bool:
            original(self, run_id)
            return answer

        return end_run

    return replacement


def without_begin_of_the_run(original: Original) -> Replacement:
    def prepared(self: Any, context: Any) -> Any:
        agent = self.registry.create(context.agent_name)
        agent.set_websocket_bridge(self.websocket_bridge, context.run_id, thread_id=context.thread_id)
        return agent

    return prepared


def ignoring_the_agents_own_end(original: Original) -> Replacement:
    async def send(self: Any, call: Any) -> None:
        self.close_agent = lambda: True
        await original(self, call)

    return send


def replacing_empty_results(original: Original) -> Replacement:
    async def completed(self: Any, result: Any) -> None:
        await original(self, result or {})

    return completed


def ending_the_first_run_again(original: Original) -> Replacement:
    contexts: list[Any] = []

    async def completed(self: Any, result: Any) -> None:
        contexts.append(self._context)
        if len(contexts) == 3:
            self._context = contexts[0]
        await original(self, result)

    return completed


def without_end_of_cancelled_runs(original: Original) -> Replacement:
    async def failed(self: Any, error: BaseException) -> None:
        if isinstance(error, Exception):
            await original(self, error)

    return failed


def swallowing_cancellation(original: Original) -> Replacement:
    async def execute(self: Any, context: Any) -> Any:
        try:
            return await original(self, context)
        except BaseException as error:
            if isinstance(error, Exception):
                raise
            return None

    return execute


def executing_failed_runs_again(original: Original) -> Replacement:
    async def execute(self: Any, context: Any) -> Any:
        try:
            return await original(self, context)
        except AgentFailed:
            return await original(self, context)

    return execute


def swallowing_tool_errors(original: Original) -> Replacement:
    async def use_tool(self: Any, tool_name: str, /, **parameters: Any) -> Any:
        try:
            return await original(self, tool_name, **parameters)
        except AgentFailed as error:
            return str(error)

    return use_tool


def completing_only_successful_tools(original: Original) -> Replacement:
    async def completed(self: Any, result: Any, status: str) -> None:
        if status == "success":
            await original(self, result, status)

    return completed


def pairing_results_with_the_last_call(original: Original) -> Replacement:
    last: dict[str, str] = {}

    def notify(self: Any, event: AgentEvent) -> Any:
        if event.type is EventType.TOOL_EXECUTING:
            last[event.run_id] = str(event.payload["tool_call_id"])
        if event.type is EventType.TOOL_COMPLETED and event.run_id in last:
            payload = {**event.payload, "tool_call_id": last[event.run_id]}
            event = msgspec.structs.replace(event, payload=payload)
        return original(self, event)

    return notify


def dropping_every_third(original: Original) -> Replacement:
    count = [0]

    def notify(self: Any, event: AgentEvent) -> Any:
        count[0] += 1
        return SENT if count[0] % 3 == 0 else original(self, event)

    return notify


def repeating_the_first_error(original: Original) -> Replacement:
    texts: list[str] = []

    async def notify(self: Any, run_id: Any, agent_name: Any, error_message: str, **options: Any) -> Any:
        texts.append(error_message)
        return await original(self, run_id, agent_name, texts[0], **options)

    return notify


def caching_routes_by_agent(original: Original) -> Replacement:
    cached: dict[str, Any] = {}

    def resolve(self: Any, event: AgentEvent) -> Any:
        route = original(self, event)
        return cached.setdefault(event.agent_name, route) if isinstance(route, str) else route

    return resolve


def routing_to_a_prefix(original: Original) -> Replacement:
    known: list[str] = []

    def resolve(self: Any, event: AgentEvent) -> Any:
        route = original(self, event)
        if isinstance(route, str) and route not in known:
            known.append(route)
        return min((each for each in known if route.startswith(each)), key=len) if isinstance(route, str) else route

    return resolve


def answering_for_the_last_lookup(original: Original) -> Replacement:
    latest: list[Any] = []

    async def get_thread_id(self: Any, run_id: Any) -> Any:
        latest[:] = [run_id]
        await anyio.lowlevel.checkpoint()
        return await original(self, latest[0])

    return get_thread_id


def overwriting_routes(original: Original) -> Replacement:
    def insert(self: Any, run_id: Any, thread_id: Any) -> Any:
        self._routes[run_id] = thread_id
        return thread_id

    return insert


def using_the_users_first_thread(original: Original) -> Replacement:
    threads: dict[str, list[str]] = {}

    async def run(self: Any, **request: Any) -> Any:
        own = threads.setdefault(request["user_id"], [])
        if request["thread_id"] not in own:
            own.append(request["thread_id"])
        second = own.index(request["thread_id"]) == 1
        return await original(self, **(request | {"thread_id": own[0] if second else request["thread_id"]}))

    return run


def cutting_requests(original: Original) -> Replacement:
    async def open_run(self: Any, **request: Any) -> Any:
        return await original(self, **(request | {"request": request["request"][:4_096]}))

    return open_run


def claiming_without_case(original: Original) -> Replacement:
    owners: dict[str, str] = {}

    async def claim(sessions: Any, thread_id: str, user_id: str) -> None:
        if owners.setdefault(thread_id, user_id.lower()) != user_id.lower():
            await original(sessions, thread_id, user_id)

    return claim


def binding_to_the_first_thread(original: Original) -> Replacement:
    threads: list[Any] = []

    def create_bound(self: Any, context: Any) -> Any:
        threads.append(context.thread_id)
        agent = self.create(context.agent_name)
        agent.set_websocket_bridge(self.websocket_bridge, context.run_id, thread_id=threads[0])
        return agent

    return create_bound


def binding_once(original: Original) -> Replacement:
    def bind(self: Any, *given: Any, **options: Any) -> None:
        if self.bridge is None:
            original(self, *given, **options)

    return bind


def keeping_the_first_thread(original: Original) -> Replacement:
    def bind(self: Any, *given: Any, thread_id: Any = None) -> None:
        original(self, *given, thread_id=self.thread_id or thread_id)

    return bind


def delivering_pairs_in_reverse(original: Original) -> Replacement:
    count: dict[str, int] = {}
    held: dict[str, Frame] = {}

    def deliver(self: Any, thread_id: Any, frame: Frame) -> int:
        count[thread_id] = count.get(thread_id, 0) + 1
        if count[thread_id] > 16 and thread_id not in held:
            held[thread_id] = frame
            return len(self.connections(thread_id))
        answer = int(original(self, thread_id, frame))
        if thread_id in held:
            original(self, thread_id, held.pop(thread_id))
        return answer

    return deliver


def omitting_the_first_event_of_other_tabs(original: Original) -> Replacement:
    known: set[int] = set()

    def deliver(self: Any, thread_id: Any, frame: Frame) -> int:
        first, *others = self.connections(thread_id) or (None,)
        read = int(first is not None and first.put(frame))
        for each in others:
            read += int(id(each) in known and each.put(frame))
            known.add(id(each))
        return read

    return deliver


def writing_all_but_every_40th(original: Original) -> Replacement:
    count = [0]

    def deliver(self: Any, thread_id: Any, frame: Frame) -> int:
        count[0] += 1
        sockets = self.connections(thread_id)
        return len(sockets) if sockets and count[0] % 40 == 0 else int(original(self, thread_id, frame))

    return deliver


def sending_earlier_events(original: Original) -> Replacement:
    async def join(self: Any, connection: Any, after: Any = None) -> Any:
        replay = await original(self, connection, after)
        frames = await self.retained(connection.thread_id)
        if after is not None or not frames:
            return replay
        return replay._replace(cursor=Cursor(replay.cursor.epoch, frames[0].seq - 1), frames=frames)

    return join


def replaying_changed_frames(original: Original) -> Replacement:
    async def replay(self: Any, thread_id: Any, after: Any) -> Any:
        found = await original(self, thread_id, after)
        frames = [
            Frame(each.seq, each.type, each.run_id, each.data.replace("𝔘".encode(), b"U"), each.published_at)
            for each in found.frames
        ]
        return found._replace(frames=tuple(frames))

    return replay


def dropping_progress_over_limits(original: Original) -> Replacement:
    def put(self: Any, frame: Frame) -> bool:
        if self._queue is not None and frame.type is EventType.PROGRESS_UPDATE:
            return True
        return bool(original(self, frame))

    return put


def forgetting_joined_deltas(original: Original) -> Replacement:
    return lambda self, frame: frame.type is EventType.TEXT_DELTA and self._tail is not None


def detaching_all_but_the_last(original: Original) -> Replacement:
    def detach(self: Any, connection: Any) -> None:
        if len(self.connections(connection.thread_id)) > 1:
            original(self, connection)

    return detach


def sharing_numbers(original: Original) -> Replacement:
    def publish(self: Any, event: AgentEvent) -> Any:
        log = self._threads.get_or_create(event.thread_id)
        log.seq = max([log.seq, *(each.seq for each in self._with_frames.values())])
        return original(self, event)

    return publish


def rows() -> Iterator[Fault]:
    adapter, bridge, agent = WebSocketBridgeAdapter, AgentWebSocketBridge, BaseAgent
    for name, change in {
        "text trimmed": lambda payload: mapped(payload, str.strip),
        "private keys dropped": without_private_keys,
        "lists cut": first_hundred,
        "arabic dropped": lambda payload: mapped(payload, without_arabic),
    }.items():
        yield Fault(name, 8, adapter, "emit", payload_of_emit(change))
    none = changed(payload=lambda event: without_none(event.payload))
    yield Fault("None removed by bridge", 9, bridge, "notify", event_of_notify(none))
    past = changed(timestamp=lambda event: event.timestamp - timedelta(seconds=len(event.payload) % 2))
    yield Fault("timestamps go backward", 9, bridge, "notify", event_of_notify(past))
    yield Fault("the first thought again", 8, adapter, "emit", reusing_the_first_thought)
    yield Fault("step 0 omitted", 8, Emitter, "emit_thinking", omitting_step_0)
    yield Fault("lines of text normalized", 8, Emitter, "emit_text", normalizing_lines_of_text)
    no_text = dropping(lambda kind, payload: kind is EventType.TEXT_DELTA, 6)
    yield Fault("text dropped by agent", 6, agent, "emit", no_text)
    yield Fault("text not sent", 9, bridge, "notify_text_delta", reporting_errors_as_sent)
    yield Fault("second end allowed", 8, adapter, "begin_run", doing_nothing)
    yield Fault("own end forgotten", 8, adapter, "end_run", answering(True))
    yield Fault("every run has ended", 8, adapter, "end_run", answering(False))
    yield Fault("own end not reported", 6, agent, "end_run", answering(True))
    yield Fault("begin not passed on", 6, agent, "begin_run", doing_nothing)
    yield Fault("second end not prevented", 5, AgentExecutionCore, "_prepared", without_begin_of_the_run)
    yield Fault("agent's end ignored", 5, _RunEnd, "_send", ignoring_the_agents_own_end)
    yield Fault("empty results replaced", 5, _RunEnd, "completed", replacing_empty_results)
    yield Fault("end of another run", 5, _RunEnd, "completed", ending_the_first_run_again)
    yield Fault("no end when cancelled", 5, _RunEnd, "failed", without_end_of_cancelled_runs)
    yield Fault("cancellation swallowed", 4, ExecutionEngine, "execute", swallowing_cancellation)
    yield Fault("failed runs again", 4, ExecutionEngine, "execute", executing_failed_runs_again)
    yield Fault("tool errors swallowed", 6, agent, "use_tool", swallowing_tool_errors)
    yield Fault("failed tools unfinished", 6, ToolCall, "completed", completing_only_successful_tools)
    yield Fault("results of another call", 9, bridge, "notify", pairing_results_with_the_last_call)
    yield Fault("every third event", 9, bridge, "notify", dropping_every_third)
    yield Fault("error of another run", 9, bridge, "notify_agent_error", repeating_the_first_error)
    yield Fault("routes cached by agent", 9, Carried, "resolve", caching_routes_by_agent)
    yield Fault("route to a prefix", 9, Carried, "resolve", routing_to_a_prefix, CONFUSABLE)
    yield Fault("lookups mixed up", 9, RunThreadMappingService, "get_thread_id", answering_for_the_last_lookup)
    yield Fault("routes never closed", 9, RunThreadMappingService, "cleanup_mapping", awaiting_nothing)
    yield Fault("routes overwritten", 9, MemoryMappingStore, "insert", overwriting_routes)
    yield Fault("the user's first thread", 2, SupervisorAgent, "run", using_the_users_first_thread)
    yield Fault("long requests cut", 2, SupervisorAgent, "open_run", cutting_requests)
    yield Fault("users without case", 2, link_2_supervisor_agent, "claim_thread", claiming_without_case)
    yield Fault("bound to another thread", 3, AgentRegistry, "create_bound", binding_to_the_first_thread)
    yield Fault("bound once", 7, adapter, "set_websocket_bridge", binding_once)
    yield Fault("first thread kept", 7, adapter, "set_websocket_bridge", keeping_the_first_thread)
    yield Fault("pairs in reverse", 10, Hub, "deliver", delivering_pairs_in_reverse)
    yield Fault("first event of other tabs", 10, Hub, "deliver", omitting_the_first_event_of_other_tabs)
    yield Fault("kept and not written", 10, Hub, "deliver", writing_all_but_every_40th)
    yield Fault("events before the connection", 10, Hub, "join", sending_earlier_events)
    yield Fault("replay changed", 10, MemoryEventLog, "replay", replaying_changed_frames)
    yield Fault("latest progress dropped", 10, Subscriber, "put", dropping_progress_over_limits)
    yield Fault("joined text lost", 10, CoalescingQueue, "concatenate", forgetting_joined_deltas)
    yield Fault("connections not detached", 10, Hub, "detach", detaching_all_but_the_last)
    yield Fault("numbers shared by threads", 10, MemoryEventLog, "publish", sharing_numbers)


FURTHER_FAULTS: Final = tuple(rows())
