"""Faults that are injected from outside the package, by replacing one method, each with the link that must be named."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from types import ModuleType
from typing import Any, Final

import msgspec
import pytest

from bridgekit.chain.context import RunResult
from bridgekit.chain.link_2_supervisor_agent import SupervisorAgent
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_4_engine import ExecutionEngine
from bridgekit.chain.link_5_execution_core import AgentExecutionCore
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import Emitter, WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.counters import DeliveryCounters
from bridgekit.cursors_and_gaps import Gap, GapReason
from bridgekit.events import AgentEvent, EventType, Outcome, Receipt
from bridgekit.ids import SignedRunIds
from bridgekit.mapping import MemoryMappingStore, RunThreadMappingService
from bridgekit.thread_resolvers import Carried
from bridgekit.transport.hub import Hub
from bridgekit.transport.log import MemoryEventLog
from bridgekit.transport.outbox import Subscriber
from bridgekit_verify.probes.scenario_agents import CONFUSABLE

__all__ = ["FAULTS", "Fault", "inject"]

SENT: Final = Receipt(outcome=Outcome.SENT, sockets=1)
Original = Callable[..., Any]


@dataclass(frozen=True)
class Fault:
    """One replaced method of one class, or one replaced function of a module."""

    name: str
    link: int
    """The link that must be named, and no other."""
    owner: type | ModuleType
    method: str
    replacement: Callable[[Original], Callable[..., Any]]
    """Creates the faulty method from the original one."""
    family: str = "thread_123"
    """The thread ids with which the first verification step shows it."""


def inject(fault: Fault, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fault.owner, fault.method, fault.replacement(getattr(fault.owner, fault.method)))


def mapped(value: Any, text: Callable[[str], str] = str, number: Callable[[Any], Any] = lambda each: each) -> Any:
    """Return a JSON value with every text and number changed."""
    if isinstance(value, dict):
        return {text(key): mapped(each, text, number) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [mapped(each, text, number) for each in value]
    return text(value) if type(value) is str else number(value)


def without_astral(text: str) -> str:
    return "".join(letter for letter in text if ord(letter) <= 0xFFFF)


def payload_of_emit(change: Callable[[Any], Any]) -> Callable[[Original], Callable[..., Any]]:
    return lambda original: lambda self, kind, payload: original(self, kind, change(payload))


def event_of_notify(change: Callable[[AgentEvent], AgentEvent]) -> Callable[[Original], Callable[..., Any]]:
    return lambda original: lambda self, event: original(self, change(event))


def event_of_publish(change: Callable[[AgentEvent], AgentEvent]) -> Callable[[Original], Callable[..., Any]]:
    return lambda original: lambda self, event, thread_id: original(self, change(event), thread_id)


def changed(**fields: Callable[[AgentEvent], Any]) -> Callable[[AgentEvent], AgentEvent]:
    return lambda event: msgspec.structs.replace(event, **{name: value(event) for name, value in fields.items()})


def caching_second_agent(original: Original) -> Callable[..., Any]:
    names: list[str] = []
    cached: dict[str, Any] = {}

    def create(self: Any, name: str) -> Any:
        if name not in names:
            names.append(name)
        if len(names) < 2 or name != names[1]:
            return original(self, name)
        return cached.setdefault(name, original(self, name))

    return create


def ignoring_case(original: Original) -> Callable[..., Any]:
    def create(self: Any, name: str) -> Any:
        return original(self, next(each for each in self.agents if each.lower() == name.lower()))

    return create


def completing_before_the_last_tool(original: Original) -> Callable[..., Any]:
    held: dict[str, AgentEvent] = {}

    def notify(self: Any, event: AgentEvent) -> Any:
        waiting = held.pop(event.run_id, None)
        if waiting is not None and event.type is EventType.AGENT_COMPLETED:
            answer = original(self, event)
            original(self, waiting)
            return answer
        if waiting is not None:
            original(self, waiting)
        if event.type is EventType.TOOL_COMPLETED and event.thread_id:
            held[event.run_id] = event
            return SENT
        return original(self, event)

    return notify


def to_all_threads_of_the_user(original: Original) -> Callable[..., Any]:
    def deliver(self: Any, thread_id: Any, frame: Any) -> int:
        users = {each.user_id for each in self.connections(thread_id)}
        threads = [thread for thread, all_of in list(self._connections.items()) if all_of[0].user_id in users]
        return sum(original(self, thread, frame) for thread in threads)

    return deliver


def to_first_socket(original: Original) -> Callable[..., Any]:
    return lambda self, thread_id, frame: sum(each.put(frame) for each in self.connections(thread_id)[:1])


def ignoring_case_of_threads(original: Original) -> Callable[..., Any]:
    def deliver(self: Any, thread_id: Any, frame: Any) -> int:
        threads = [thread for thread in list(self._connections) if thread.lower() == thread_id.lower()]
        return sum(original(self, thread, frame) for thread in threads)

    return deliver


def skipping_numbers(original: Original) -> Callable[..., Any]:
    def publish(self: Any, event: AgentEvent) -> Any:
        answer = original(self, event)
        if answer.seq % 5 == 0:
            self._threads.get_or_create(event.thread_id).seq += 1
        return answer

    return publish


def forgetting_the_oldest_of_three(original: Original) -> Callable[..., Any]:
    def insert(self: Any, run_id: Any, thread_id: Any) -> Any:
        stored = original(self, run_id, thread_id)
        if len(self) > 3:
            self.evict(next(iter(self._routes)))
        return stored

    return insert


def returning_the_previous_answer(original: Original) -> Callable[..., Any]:
    last: list[Any] = []

    def resolve(self: Any, event: AgentEvent) -> Any:
        route = original(self, event)
        last.append(route)
        return last[-2] if len(last) > 1 and isinstance(last[-2], str) and isinstance(route, str) else route

    return resolve


def counting_at_another_link(original: Original) -> Callable[..., Any]:
    def count(self: Any, event: Any, receipt: Receipt) -> None:
        original(self, event, msgspec.structs.replace(receipt, link=receipt.link and receipt.link - 1))

    return count


def counting_delivered_as_lost(original: Original) -> Callable[..., Any]:
    def count(self: Any, event: Any, receipt: Receipt) -> None:
        original(self, event, receipt)
        if receipt.outcome is Outcome.UNROUTABLE:
            self.lost[10, "lost"] += 1

    return count


def forgetting_the_third_run(original: Original) -> Callable[..., Any]:
    runs: dict[str, int] = {}

    async def run(self: Any, **request: Any) -> Any:
        thread = request["thread_id"]
        runs[thread] = runs.get(thread, 0) + 1
        if runs[thread] == 3:
            return RunResult(await self.open_run(**request), "accepted")
        return await original(self, **request)

    return run


def forgetting_the_third_context(original: Original) -> Callable[..., Any]:
    runs: dict[str, int] = {}

    async def execute(self: Any, context: Any) -> Any:
        runs[context.thread_id] = runs.get(context.thread_id, 0) + 1
        return "accepted" if runs[context.thread_id] == 3 else await original(self, context)

    return execute


def passing_the_previous_context(original: Original) -> Callable[..., Any]:
    seen: list[Any] = []

    async def execute(self: Any, context: Any) -> Any:
        seen.append(context)
        return await original(self, seen[-2] if len(seen) == 12 else context)

    return execute


def naming_the_first_agent(original: Original) -> Callable[..., Any]:
    names: list[str] = []

    def bind(self: Any, bridge: Any, run_id: Any, agent_name: str, **given: Any) -> None:
        names.append(agent_name)
        original(self, bridge, run_id, names[0], **given)

    return bind


def truncating_the_thread(original: Original) -> Callable[..., Any]:
    def bind(self: Any, bridge: Any, run_id: Any, agent_name: str, *, thread_id: Any = None) -> None:
        original(self, bridge, run_id, agent_name, thread_id=thread_id and thread_id[:64])

    return bind


def truncating_the_route(original: Original) -> Callable[..., Any]:
    def resolve(self: Any, event: AgentEvent) -> Any:
        route = original(self, event)
        return route[:64] if isinstance(route, str) else route

    return resolve


def reusing_event_ids(original: Original) -> Callable[..., Any]:
    def emit(self: Any, kind: EventType, payload: Any) -> Any:
        if self.bridge is None:
            return original(self, kind, payload)
        event = AgentEvent(
            type=kind, run_id=self.run_id, agent_name=self.agent_name, payload=payload, thread_id=self.thread_id,
            event_id=self.run_id,
        )  # fmt: skip
        return self.bridge.notify(event)

    return emit


def losing_the_name(original: Original) -> Callable[..., Any]:
    def emit(self: Any, kind: EventType, payload: Any) -> Any:
        answer = original(self, kind, payload)
        self.agent_name = ""
        return answer

    return emit


def dropping(condition: Callable[[EventType, Any], bool], link: int) -> Callable[[Original], Callable[..., Any]]:
    def replacement(original: Original) -> Callable[..., Any]:
        def emit(self: Any, kind: EventType, payload: Any) -> Any:
            if condition(kind, payload):
                return Receipt(outcome=Outcome.REFUSED, link=link, reason="dropped")
            return original(self, kind, payload)

        return emit

    return replacement


def dropping_large_frames(original: Original) -> Callable[..., Any]:
    return lambda self, thread_id, frame: 0 if len(frame.data) > 16_384 else original(self, thread_id, frame)


def reporting_closed_sockets(original: Original) -> Callable[..., Any]:
    def deliver(self: Any, thread_id: Any, frame: Any) -> int:
        original(self, thread_id, frame)
        return len(self.connections(thread_id))

    return deliver


def ignoring_late_sockets(original: Original) -> Callable[..., Any]:
    def attach(self: Any, connection: Any) -> None:
        if len(self._log._with_frames) < 3 or connection.user_id == "self-check":
            original(self, connection)

    return attach


def replacing_the_first_socket(original: Original) -> Callable[..., Any]:
    def attach(self: Any, connection: Any) -> None:
        for other in self.connections(connection.thread_id):
            self.detach(other)
        original(self, connection)

    return attach


def resuming_at_the_end(original: Original) -> Callable[..., Any]:
    return lambda self, connection, after=None: original(self, connection, None)


def signalling_a_gap(original: Original) -> Callable[..., Any]:
    async def join(self: Any, connection: Any, after: Any = None) -> Any:
        replay = await original(self, connection, after)
        if after is None:
            return replay
        thread, epoch = connection.thread_id, after.epoch
        gap = Gap(thread_id=thread, epoch=epoch, first=1, last=after.seq + 1, reason=GapReason.LOST)
        return replay._replace(gap=gap)

    return join


def putting_twice(original: Original) -> Callable[..., Any]:
    def put(self: Any, frame: Any) -> bool:
        if frame.seq % 7 == 0 and self._last_seq:
            self._last_seq = 0
            original(self, frame)
            self._last_seq = 0
        return bool(original(self, frame))

    return put


def completing_twice(original: Original) -> Callable[..., Any]:
    async def execute(self: Any, context: Any) -> Any:
        result = await original(self, context)
        await self.websocket_bridge.notify_agent_completed(
            context.run_id, context.agent_name, result=result, execution_time_ms=1.0, thread_id=context.thread_id
        )
        return result

    return execute


def reporting_errors_as_sent(original: Original) -> Callable[..., Any]:
    async def notify(self: Any, *given: Any, **options: Any) -> Any:
        return SENT

    return notify


def opening_for_every_user(original: Original) -> Callable[..., Any]:
    async def open_run(self: Any, **request: Any) -> Any:
        async with self.db_session_factory() as session:
            owner = await session.owner_of(request["thread_id"])
        return await original(self, **(request | {"user_id": owner or request["user_id"]}))

    return open_run


def closing_every_route(original: Original) -> Callable[..., Any]:
    async def cleanup(self: Any, run_id: Any) -> None:
        for each in list(self._store._routes):
            self._store.evict(each)

    return cleanup


def without_grace(original: Original) -> Callable[..., Any]:
    async def cleanup(self: Any, run_id: Any) -> None:
        await self._store.expire(run_id, 0)

    return cleanup


def repeating_run_ids(original: Original) -> Callable[..., Any]:
    made: dict[str, Any] = {}
    return lambda self, thread_id: made.setdefault(thread_id, original(self, thread_id))


def losing_tool_results(original: Original) -> Callable[..., Any]:
    async def use_tool(self: Any, tool_name: str, /, **parameters: Any) -> Any:
        await original(self, tool_name, **parameters)

    return use_tool


def stripping_reasoning(original: Original) -> Callable[..., Any]:
    async def emit_thinking(self: Any, reasoning: str, **given: Any) -> Any:
        return await original(self, reasoning.strip("\x00 \U0001f6f0\ufe0f").replace("ﬁ", "fi"), **given)

    return emit_thinking


def losing_the_error_context(original: Original) -> Callable[..., Any]:
    async def notify(self: Any, run_id: Any, agent_name: Any, *given: Any, **options: Any) -> Any:
        options["error_context"] = {}
        return await original(self, run_id, agent_name, *given, **options)

    return notify


def rows() -> Iterator[Fault]:
    adapter, bridge = WebSocketBridgeAdapter, AgentWebSocketBridge
    # The ten that the requirements list, some of them in several links.
    yield Fault("the registry caches its second agent", 3, AgentRegistry, "create", caching_second_agent)
    yield Fault("completed before the last tool", 9, bridge, "notify", completing_before_the_last_tool)
    yield Fault("to all threads of a user", 10, Hub, "deliver", to_all_threads_of_the_user)
    yield Fault("to the first socket only", 10, Hub, "deliver", to_first_socket)
    yield Fault("a number is skipped", 10, MemoryEventLog, "publish", skipping_numbers)
    yield Fault("routes of old runs forgotten", 9, MemoryMappingStore, "insert", forgetting_the_oldest_of_three)
    astral = changed(payload=lambda event: mapped(event.payload, without_astral))
    cut = payload_of_emit(lambda payload: mapped(payload, without_astral))
    yield Fault("astral text dropped by agent", 6, BaseAgent, "emit", cut)
    yield Fault("astral text dropped by adapter", 8, adapter, "emit", cut)
    yield Fault("astral text dropped by bridge", 9, bridge, "notify", event_of_notify(astral))
    yield Fault("astral text dropped by hub", 10, Hub, "publish", event_of_publish(astral))
    late = changed(timestamp=lambda event: datetime.now(UTC))
    yield Fault("timestamp overwritten by bridge", 9, bridge, "notify", event_of_notify(late))
    yield Fault("timestamp overwritten by hub", 10, Hub, "publish", event_of_publish(late))
    yield Fault("loss counted at another link", 9, DeliveryCounters, "count", counting_at_another_link)
    yield Fault("the resolver's previous answer", 9, Carried, "resolve", returning_the_previous_answer)
    # Others of the same kinds.
    yield Fault("self-checks are counted", 1, DeliveryCounters, "clear", lambda original: lambda self: None)
    yield Fault("the third run of a thread is lost", 2, SupervisorAgent, "run", forgetting_the_third_run)
    yield Fault("a run in another user's thread", 2, SupervisorAgent, "open_run", opening_for_every_user)
    yield Fault("agent names without case", 3, AgentRegistry, "create", ignoring_case)
    yield Fault("the third run is lost by the engine", 4, ExecutionEngine, "execute", forgetting_the_third_context)
    yield Fault("the previous run again", 4, ExecutionEngine, "execute", passing_the_previous_context)
    yield Fault("completed twice", 5, AgentExecutionCore, "execute_agent", completing_twice)
    yield Fault("tool results lost", 6, BaseAgent, "use_tool", losing_tool_results)
    no_progress = dropping(lambda kind, payload: kind is EventType.PROGRESS_UPDATE, 6)
    yield Fault("progress dropped by agent", 6, BaseAgent, "emit", no_progress)
    yield Fault("the first agent's name for all", 7, adapter, "set_websocket_bridge", naming_the_first_agent)
    yield Fault("64 characters of the thread", 7, adapter, "set_websocket_bridge", truncating_the_thread, CONFUSABLE)
    yield Fault("event ids reused", 8, adapter, "emit", reusing_event_ids)
    yield Fault("name lost after the first event", 8, adapter, "emit", losing_the_name)
    with_dot = dropping(lambda kind, payload: "." in payload.get("tool_name", "") and kind == "tool_executing", 8)
    yield Fault("tool names with a dot", 8, adapter, "emit", with_dot)
    yield Fault("empty payloads dropped", 8, adapter, "emit", dropping(lambda kind, payload: not payload, 8))
    yield Fault("keys sorted", 8, adapter, "emit", payload_of_emit(lambda p: dict(sorted(p.items()))))
    yield Fault("reasoning stripped", 8, Emitter, "emit_thinking", stripping_reasoning)
    rounded = changed(payload=lambda event: mapped(event.payload, number=_rounded))
    yield Fault("floats rounded", 9, bridge, "notify", event_of_notify(rounded))
    yield Fault("error context lost", 9, bridge, "notify_agent_error", losing_the_error_context)
    yield Fault("error of a run not sent", 9, bridge, "notify_agent_error", reporting_errors_as_sent)
    yield Fault("delivered counted as lost", 9, DeliveryCounters, "count", counting_delivered_as_lost)
    yield Fault("64 characters of the route", 9, Carried, "resolve", truncating_the_route, CONFUSABLE)
    yield Fault("every route closed", 9, RunThreadMappingService, "cleanup_mapping", closing_every_route)
    yield Fault("no grace period", 9, RunThreadMappingService, "cleanup_mapping", without_grace)
    yield Fault("run ids repeated", 9, SignedRunIds, "new", repeating_run_ids)
    composed = changed(payload=lambda event: mapped(event.payload, lambda text: unicodedata.normalize("NFC", text)))
    yield Fault("text composed", 10, Hub, "publish", event_of_publish(composed))
    yield Fault("thread ids without case", 10, Hub, "deliver", ignoring_case_of_threads, CONFUSABLE)
    yield Fault("frames over 16 kB dropped", 10, Hub, "deliver", dropping_large_frames)
    yield Fault("closed sockets reported as sent", 10, Hub, "deliver", reporting_closed_sockets)
    yield Fault("late sockets ignored", 10, Hub, "attach", ignoring_late_sockets)
    yield Fault("second socket replaces the first", 10, Hub, "attach", replacing_the_first_socket)
    yield Fault("resumes at the end", 10, Hub, "join", resuming_at_the_end)
    yield Fault("gap without a loss", 10, Hub, "join", signalling_a_gap)
    yield Fault("frames repeated", 10, Subscriber, "put", putting_twice)


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) and value == value else value


FAULTS: Final = tuple(rows())
