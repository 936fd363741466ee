"""Link 9: the bridge finds the thread of an event, publishes the event to the thread, and returns an accurate
receipt."""

from __future__ import annotations

import logging
import threading
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final
from weakref import WeakSet

import anyio
import msgspec

from bridgekit import ids
from bridgekit.chain.error_text import ErrorText, bounded_error_text, is_cancellation, user_error_text
from bridgekit.counters import NOT_AWAITED, DeliveryCounters
from bridgekit.errors import BridgekitError, InvalidId, PayloadError, StoreUnavailable, UnknownEventType, WrongEventLoop
from bridgekit.events import POLICIES, AgentEvent, Answer, EventType, Outcome, Payload, Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import MemoryRunRegistry, RunRegistry, RunThreadMappingService
from bridgekit.payload_encoding import PayloadHook, apply_hook
from bridgekit.thread_resolvers import NoRoute, Resolver
from bridgekit.transport.cancellation import ends_task
from bridgekit.transport.hub import LINK, Hub

__all__ = ["AgentWebSocketBridge", "Observer", "open_bridges"]

logger = logging.getLogger(__name__)

_SENT: Final = Outcome.SENT
_UNANSWERED: Final = Receipt(
    outcome=Outcome.PENDING, link=LINK, reason="the caller did not wait for the store's answer"
)
_NOT_AWAITED: Final = Receipt(outcome=Outcome.REFUSED, link=LINK, reason=NOT_AWAITED)

ANSWER_SECONDS: Final = 1.0
"""How long a cancelled caller waits for the store's answer to an event that had waited for room."""

Observer = Callable[[AgentEvent, Receipt], None]
"""A callback for each event and its Receipt. The bridge calls an observer before the emitting call returns, so
observers must be fast. An event that is refused with WrongEventLoop is observed in the OS thread that emitted it. The
bridge logs every exception that an observer raises."""


class _LaterAnswer(msgspec.Struct, eq=False):
    """The result of a call that waits for room. If the caller discards it without awaiting it, `discarded` is called.

    `discarded` runs in the thread that frees the object.
    """

    answer: Callable[[], Awaitable[Receipt]]
    discarded: Callable[[], object] | None

    def __await__(self) -> Generator[Any, Any, Receipt]:
        if self.discarded is None:
            raise RuntimeError("the result of a call was awaited before")  # a second await would publish again
        self.discarded = None
        return self.answer().__await__()

    def __del__(self) -> None:
        if self.discarded is not None:
            with suppress(BaseException):  # an error is counted, and nothing could catch it here
                self.discarded()


class AgentWebSocketBridge:
    """Publishes the events of runs to their threads. An application has exactly one bridge, created at startup."""

    def __init__(
        self, hub: Hub, resolver: Resolver, mapping: RunThreadMappingService, counters: DeliveryCounters | None = None
    ) -> None:
        self.hub = hub
        self.crowded = hub.crowded.by_thread
        """The threads that have a crowded outbox. Usually empty."""
        self.resolver = resolver
        self.mapping = mapping
        self.counters = DeliveryCounters() if counters is None else counters
        self.observers: list[Observer] = []
        self.runs: RunRegistry = MemoryRunRegistry()
        """The registry of active runs. Startup replaces the default with the store's registry."""
        self.choose_error_text: ErrorText = user_error_text
        """Creates the text of errors for users. Startup replaces the default with the application's function."""
        self.payload_hook: PayloadHook | None = None
        """Converts the application's own types in payloads. Startup sets it."""
        self._locate: Callable[[], object] = int
        self._home: object = 0
        """The bridge refuses events while `_locate()` differs from `_home`. Until `bind_to_event_loop` is called,
        `_locate()` and `_home` are 0."""

    def bind_to_event_loop(self) -> None:
        """Bind the bridge to the caller's event loop, or to the caller's OS thread if no event loop is running.

        After this call, the bridge refuses events from other loops and threads, which would arrive late or never.
        """
        self._locate = threading.get_ident if _get_running_loop() is None else _get_running_loop
        self._home = self._locate()

    def require_own_loop(self, call: str) -> None:
        """Raise WrongEventLoop if the caller is not on the event loop or OS thread that the bridge is bound to."""
        if self._locate() != self._home:
            raise WrongEventLoop(call)

    def error_text(self, error: BaseException) -> str:
        """Return the text that the application chooses for an error, shortened to `ERROR_BYTES` bytes."""
        return bounded_error_text(self.choose_error_text, error)

    def notify(self, event: AgentEvent) -> Answer:
        """Publish the event to its thread without waiting for a socket. Await the result to get the Receipt.

        The result is an awaitable if the route must be looked up or the store must answer first, and otherwise the
        Receipt itself. While an outbox of the thread is crowded, awaiting the result lets the event loop write frames
        first. Raises UnknownEventType, PayloadError, FrameTooLarge or WrongEventLoop if the caller made a mistake, and
        StoreUnavailable if the store does not answer. If the method raises an error, the event counts as lost, and the
        error's type is the reason. If the run's thread is known, an event that carries another thread gets no route:
        use `notify_in_thread`. A missing route raises no error, so that the agent's run continues. The Receipt and the
        counters record the missing route. If the result is not awaited, an event
        whose route must be looked up is lost, and an event that a store has accepted is delivered and not counted.
        """
        link = 9
        try:
            if type(event.type) is not EventType or event.type not in POLICIES or self._locate() != self._home:
                self._reject(event)
            route = self.resolver.resolve(event)
            if not isinstance(route, str):
                if not isinstance(route, NoRoute):
                    return self._notify_when_resolved(event, route)
                answer: Answer = _unroutable(route)
            else:
                if self.payload_hook is not None:
                    event.payload = _converted(event, self.payload_hook)
                link = LINK
                answer = self.hub.publish(event, route)
        except BaseException as error:
            self._count_refusal(event, error, link)
            raise
        if not isinstance(answer, Receipt):
            return self._recorded(event, answer)
        if answer.outcome is _SENT and not self.observers:
            self.counters.sent[event.type] += 1
        else:
            self.record(event, answer)
        return answer

    async def notify_in_thread(self, thread_id: str, event: AgentEvent) -> Receipt:
        """Publish the event as `notify` does, but in the named thread, even if its run belongs to another thread.

        Raises InvalidId if the thread id is not valid. The caller must check that the thread's owner may see the event.
        """

        async def named() -> ThreadId:
            if type(event.type) is not EventType or event.type not in POLICIES or self._locate() != self._home:
                self._reject(event)
            return ids.thread_id(thread_id)

        return await self._notify_when_resolved(event, named())

    def notify_when_room(self, event: AgentEvent) -> Answer:
        """Publish the event when no outbox of its thread is crowded, other than those of slow clients.

        If a time limit or a cancellation ends the wait, the event is published although an outbox is crowded.
        """
        try:
            if type(event.type) is not EventType or event.type not in POLICIES or self._locate() != self._home:
                self._reject(event)
            route = self.resolver.resolve(event)
        except BaseException as error:
            self._count_refusal(event, error, 9)
            raise
        if isinstance(route, str):
            if route in self.crowded:
                publish = partial(self._publish_when_room, route, partial(self.notify, event))
                return _LaterAnswer(publish, partial(self.record, event, _NOT_AWAITED))
            return self.notify(event)
        return self.notify(event) if isinstance(route, NoRoute) else self._notify_when_resolved(event, route)

    def _reject(self, event: AgentEvent) -> None:
        """Raise UnknownEventType if the event's type is unknown, and WrongEventLoop otherwise."""
        if type(event.type) is not EventType or event.type not in POLICIES:
            kind = "event type" if type(event.type) is EventType else "event type (an EventType, not a text)"
            raise UnknownEventType(kind, event.type, tuple(POLICIES))
        raise WrongEventLoop(f"{event.type} of run {event.run_id!r}")

    def _count_refusal(self, event: AgentEvent, error: BaseException, link: int) -> None:
        """Count an event that was not published because of an error, unless its caller was cancelled.

        `link` applies to errors whose type does not determine the link.
        """
        if is_cancellation(error) or isinstance(error, GeneratorExit):
            return
        if isinstance(error, BridgekitError) or not isinstance(error, Exception):
            link = 9 if isinstance(error, StoreUnavailable) else 8
        self.record(event, Receipt(outcome=Outcome.REFUSED, link=link, reason=type(error).__name__))

    async def _publish_when_room(self, thread_id: ThreadId, publish: Callable[[], Answer]) -> Receipt:
        """Wait until no outbox of the thread is crowded, and then publish. A cancelled wait publishes without room."""
        try:
            await self.hub.wait_for_room(thread_id)
        except GeneratorExit:
            raise
        except BaseException:
            # An error is counted, and must not replace the cancellation.
            with suppress(Exception), anyio.move_on_after(ANSWER_SECONDS, shield=True):
                await publish()
            raise
        return await publish()

    async def _notify_when_resolved(self, event: AgentEvent, resolving: Awaitable[ThreadId | NoRoute]) -> Receipt:
        try:
            route = await resolving
        except BaseException as error:
            self._count_refusal(event, error, 9)
            raise
        if isinstance(route, NoRoute):
            self.record(event, receipt := _unroutable(route))
            return receipt
        if route in self.crowded:
            return await self._publish_when_room(route, lambda: self._recorded(event, self._publish(event, route)))
        return await self._recorded(event, self._publish(event, route))

    def _publish(self, event: AgentEvent, thread_id: ThreadId) -> Answer:
        try:
            if self.payload_hook is not None:
                event.payload = _converted(event, self.payload_hook)
            return self.hub.publish(event, thread_id)
        except BaseException as error:
            self._count_refusal(event, error, LINK)
            raise

    async def _recorded(self, event: AgentEvent, answer: Answer) -> Receipt:
        try:
            receipt = answer if isinstance(answer, Receipt) else await answer
        except BaseException as error:
            if ends_task(error):
                self.record(event, _UNANSWERED)  # the store has the event
            else:
                self._count_refusal(event, error, LINK)
            raise
        self.record(event, receipt)
        return receipt

    def record(self, event: AgentEvent, receipt: Receipt) -> None:
        """Count the event by its receipt, and call the observers with the event and the receipt."""
        self.counters.count(event, receipt)
        for observe in self.observers[:]:  # an observer may remove itself
            try:
                observe(event, receipt)
            except BaseException:
                # The event already has its receipt, and an observer must not end or cancel the run.
                logger.exception("an observer failed at %s of run %s", event.type, event.run_id)

    async def notify_agent_started(
        self,
        run_id: RunId,
        agent_name: str,
        *,
        context: Payload | None = None,
        message: str | None = None,
        thread_id: ThreadId | None = None,
    ) -> Receipt:
        payload = {"status": "started", "context": context or {}, "message": message}
        return await self._notify(EventType.AGENT_STARTED, run_id, agent_name, payload, thread_id)

    async def notify_agent_thinking(
        self,
        run_id: RunId,
        agent_name: str,
        reasoning: str,
        *,
        step_number: int | None = None,
        progress_percentage: float | None = None,
        thread_id: ThreadId | None = None,
    ) -> Receipt:
        payload = {"reasoning": reasoning, "step_number": step_number, "progress_percentage": progress_percentage}
        return await self._notify(EventType.AGENT_THINKING, run_id, agent_name, payload, thread_id)

    async def notify_tool_executing(
        self,
        run_id: RunId,
        agent_name: str,
        tool_name: str,
        *,
        tool_call_id: str,
        parameters: Mapping[str, object] | None = None,
        thread_id: ThreadId | None = None,
    ) -> Receipt:
        payload = {"tool_call_id": tool_call_id, "tool_name": tool_name, "parameters": parameters or {}}
        return await self._notify(EventType.TOOL_EXECUTING, run_id, agent_name, payload, thread_id)

    async def notify_tool_completed(
        self,
        run_id: RunId,
        agent_name: str,
        tool_name: str,
        *,
        tool_call_id: str,
        result: object = None,
        execution_time_ms: float | None = None,
        status: str = "success",
        thread_id: ThreadId | None = None,
    ) -> Receipt:
        payload = {
            "tool_call_id": tool_call_id,
            "tool_name": tool_name,
            "result": result,
            "execution_time_ms": execution_time_ms,
            "status": status,
        }
        return await self._notify(EventType.TOOL_COMPLETED, run_id, agent_name, payload, thread_id)

    async def notify_agent_completed(
        self,
        run_id: RunId,
        agent_name: str,
        *,
        result: object = None,
        execution_time_ms: float | None = None,
        thread_id: ThreadId | None = None,
    ) -> Receipt:
        payload = {"status": "completed", "result": result, "execution_time_ms": execution_time_ms}
        return await self._notify(EventType.AGENT_COMPLETED, run_id, agent_name, payload, thread_id)

    async def notify_agent_error(
        self,
        run_id: RunId,
        agent_name: str,
        error_message: str,
        *,
        error_context: Payload | None = None,
        thread_id: ThreadId | None = None,
    ) -> Receipt:
        payload = {"error_message": error_message, "error_context": error_context or {}}
        return await self._notify(EventType.AGENT_ERROR, run_id, agent_name, payload, thread_id)

    async def notify_progress_update(
        self, run_id: RunId, agent_name: str, progress: Payload, *, thread_id: ThreadId | None = None
    ) -> Receipt:
        return await self._notify(EventType.PROGRESS_UPDATE, run_id, agent_name, progress, thread_id)

    async def notify_text_delta(
        self, run_id: RunId, agent_name: str, delta: str, *, message_id: str, thread_id: ThreadId | None = None
    ) -> Receipt:
        payload = {"message_id": message_id, "delta": delta}
        return await self._notify(EventType.TEXT_DELTA, run_id, agent_name, payload, thread_id)

    async def _notify(
        self,
        event_type: EventType,
        run_id: RunId,
        agent_name: str,
        payload: Payload,
        thread_id: ThreadId | None,
    ) -> Receipt:
        """Validate the event's ids, and publish the event.

        Raises InvalidId, which names the invalid field, and the errors of `notify`.
        """
        event = AgentEvent(type=event_type, run_id=run_id, agent_name=agent_name, payload=payload, thread_id=thread_id)
        try:
            ids.run_id(run_id)
            ids.agent_name(agent_name)
            if thread_id is not None:
                ids.thread_id(thread_id)
        except InvalidId as error:
            self._count_refusal(event, error, 8)
            raise
        return await self.notify(event)


open_bridges: Final = WeakSet[AgentWebSocketBridge]()
"""The bridges of this process's applications. Each bridge records the events of an adapter that has no bridge."""


def _converted(event: AgentEvent, hook: PayloadHook) -> Payload:
    try:
        payload: Payload = apply_hook(hook, event.payload)
    except Exception as error:
        raise PayloadError(event.type, f"payload_hook failed: {user_error_text(error)}") from error
    return payload


def _unroutable(route: NoRoute) -> Receipt:
    return Receipt(outcome=Outcome.UNROUTABLE, link=9, reason=route.reason)
