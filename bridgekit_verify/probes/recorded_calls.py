"""Record the calls between the links of a variant: what each link received, passed on and returned.

A link is judged only by its own calls: what it passed on is compared with what it received. A defect of a link is
therefore visible at that link, whether or not other links have the same defect.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import anyio

from bridgekit.chain.context import RunContext, current_run
from bridgekit.events import AgentEvent, EventType, Receipt
from bridgekit_verify.variants import Variant

__all__ = ["ABSENT", "Binding", "EmittedEvent", "RecordedCall", "Recording", "recorded"]

ABSENT: Final = object()
"""The result of a call that has not returned, or that raised an error."""

_IMMUTABLE: Final = frozenset({str, int, float, bool, type(None)})

_EMITTERS: Final = {
    "emit_agent_started": ("message", "context"),
    "emit_thinking": ("reasoning", "step_number", "progress_percentage"),
    "emit_tool_executing": ("tool_name", "parameters", "tool_call_id"),
    "emit_tool_completed": ("tool_name", "result", "tool_call_id", "execution_time_ms", "status"),
    "emit_agent_completed": ("result", "execution_time_ms"),
    "emit_error": ("error_message", "error_context"),
    "emit_progress": ("progress",),
    "emit_text": ("delta",),
}
_NOTIFIERS: Final = {
    "notify_agent_started": ("context", "message"),
    "notify_agent_thinking": ("reasoning", "step_number", "progress_percentage"),
    "notify_tool_executing": ("tool_name", "tool_call_id", "parameters"),
    "notify_tool_completed": ("tool_name", "tool_call_id", "result", "execution_time_ms", "status"),
    "notify_agent_completed": ("result", "execution_time_ms"),
    "notify_agent_error": ("error_message", "error_context"),
    "notify_progress_update": ("progress",),
    "notify_text_delta": ("delta",),
}
PARAMETERS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "supervisor": {
        "__init__": ("db_session_factory", "llm_manager", "websocket_bridge", "tool_dispatcher"),
        "run": (),
        "open_run": (),
        "close_run": ("context",),
    },
    "registry": {
        "__init__": ("llm_manager", "tool_dispatcher", "agents"),
        "set_websocket_bridge": ("bridge",),
        "create": ("name",),
        "create_bound": ("context",),
    },
    "engine": {"__init__": ("registry", "websocket_bridge"), "execute": ("context",)},
    "core": {"__init__": ("registry", "websocket_bridge"), "execute_agent": ("context",)},
    "agent": {
        "set_websocket_bridge": ("bridge", "run_id", "thread_id"),
        "emit": ("event_type", "payload"),
        "use_tool": ("tool_name",),
        "execute": ("context",),
        "begin_run": (),
        "end_run": ("run_id",),
        **_EMITTERS,
    },
    "adapter": {
        "set_websocket_bridge": ("bridge", "run_id", "agent_name", "thread_id"),
        "emit": ("event_type", "payload"),
        "begin_run": (),
        "end_run": ("run_id",),
    },
    "bridge": {
        "notify": ("event",),
        "notify_when_room": ("event",),
        "notify_in_thread": ("thread_id", "event"),
        "record": ("event", "receipt"),
        **{name: ("run_id", "agent_name", *given) for name, given in _NOTIFIERS.items()},
    },
    "mapping": {"register_mapping": ("run_id", "thread_id"), "cleanup_mapping": ("run_id",)},
    "hub": {"publish": ("event", "thread_id")},
    "run_ids": {"new": ("thread_id",)},
}
"""The recorded methods of each part, with the sound chain's parameter names. A variant may name them differently."""


ENCLOSING: Final = frozenset({"supervisor", "engine"})
"""The parts whose calls record the current run."""


class EmittedEvent(NamedTuple):
    """A copy of an event's fields, made when a call begins."""

    type: EventType
    run_id: str
    agent_name: str
    thread_id: str | None
    event_id: str
    timestamp: datetime
    payload: Any

    @classmethod
    def of(cls, event: AgentEvent) -> EmittedEvent:
        return cls(
            event.type,
            event.run_id,
            event.agent_name,
            event.thread_id,
            event.event_id,
            event.timestamp,
            _copied(event.payload),
        )


class Binding(NamedTuple):
    """The bridge, run, agent name and thread that an adapter holds."""

    bridge: object
    run_id: object
    agent_name: object
    thread_id: object

    @classmethod
    def of(cls, adapter: Any) -> Binding:
        return cls(adapter.bridge, adapter.run_id, adapter.agent_name, adapter.thread_id)


@dataclass(eq=False, slots=True)
class RecordedCall:
    """One call of a recorded method."""

    part: str
    name: str
    owner: Any
    given: dict[str, Any]
    """Arguments by name. Values that a callee could change are copied."""
    within: RecordedCall | None
    """The recorded call that made this call, or None for an outermost call."""
    entered: int
    """Position of the call's start in the order of all starts and ends of calls."""
    entered_at: datetime
    started: float
    """Start of the call by `time.perf_counter`, which measures durations."""
    left: int | None = None
    left_at: datetime | None = None
    ended: float | None = None
    result: Any = ABSENT
    raised: BaseException | None = None
    run: RunContext | None = None
    """What `current_run` returned when the call began. Recorded for the supervisor and the engine."""
    run_after: RunContext | None = None
    changed_payload: bool = False
    """Whether an adapter's `emit` changed the payload of its caller."""
    held: Binding | None = None
    """The adapter's binding when the call began, for calls of an adapter."""
    held_after: Binding | None = None

    @property
    def has_event(self) -> bool:
        """Whether an argument of the call is an event."""
        return isinstance(self.given.get("event"), EmittedEvent)

    @property
    def event(self) -> EmittedEvent:
        event: EmittedEvent = self.given["event"]
        return event


@dataclass(eq=False)
class Recording:
    """All recorded calls of one application, in the order in which they began."""

    calls: list[RecordedCall] = field(default_factory=list)
    position: int = 0
    unfinished: list[RecordedCall] = field(default_factory=list)
    """Calls that had not returned when the recording ended."""
    limit: anyio.CancelScope | None = None
    """The cancel scope that ends a scenario that takes too long."""
    judged_from: int = 0
    """Calls before this position belong to startup."""
    _current: ContextVar[RecordedCall | None] = field(default_factory=lambda: ContextVar("current call", default=None))
    _indexed: list[RecordedCall] | None = None
    """The list whose first `_indexed_count` calls are in `_by_part`. Calls are only appended to the list."""
    _indexed_count: int = 0
    _by_part: dict[tuple[str, int | None], list[RecordedCall]] = field(default_factory=dict)
    """Index of the calls by part and by the caller's position (None: any caller). Judges look up thousands of calls."""

    def of(self, part: str, *names: str, startup: bool = False) -> list[RecordedCall]:
        """Return the calls of a part's methods. Include calls during startup only with `startup`."""
        first = 0 if startup else self.judged_from
        return [call for call in self._of_part(part, None) if call.entered >= first and call.name in names]

    def within(self, call: RecordedCall, part: str, *names: str) -> list[RecordedCall]:
        """Return the calls of a part's methods that `call` made directly."""
        return [made for made in self._of_part(part, call.entered) if made.within is call and made.name in names]

    def _of_part(self, part: str, within: int | None) -> list[RecordedCall]:
        """Return the calls of a part. With `within`, return only calls made by the call that began at this position."""
        if self._indexed is not self.calls:
            self._indexed, self._indexed_count, self._by_part = self.calls, 0, {}
        for call in self.calls[self._indexed_count :]:
            self._by_part.setdefault((call.part, None), []).append(call)
            if call.within is not None:
                self._by_part.setdefault((call.part, call.within.entered), []).append(call)
        self._indexed_count = len(self.calls)
        return self._by_part.get((part, within), [])

    def enter(
        self, part: str, name: str, owner: object, args: tuple[Any, ...], options: Mapping[str, Any]
    ) -> RecordedCall:
        given = dict(zip(PARAMETERS[part][name], args, strict=False)) | dict(options)
        call = RecordedCall(
            part,
            name,
            owner,
            {key: _snapshot(value) for key, value in given.items()},
            self._current.get(),
            self._next(),
            datetime.now(UTC),
            time.perf_counter(),
        )
        if part == "adapter":
            call.held = Binding.of(owner)
        elif part in ENCLOSING:
            call.run = current_run()
        if not self._stopped:
            self.calls.append(call)
        return call

    def leave(self, call: RecordedCall, result: object = ABSENT, raised: BaseException | None = None) -> None:
        if self._stopped:
            return  # cancelled: the call did not end by itself
        call.result, call.raised = result, raised
        call.left, call.left_at, call.ended = self._next(), datetime.now(UTC), time.perf_counter()
        if call.part == "adapter":
            call.held_after = Binding.of(call.owner)
        elif call.part in ENCLOSING:
            call.run_after = current_run()

    @property
    def _stopped(self) -> bool:
        return self.limit is not None and self.limit.cancel_called

    def _next(self) -> int:
        self.position += 1
        return self.position

    @contextmanager
    def making(self, call: RecordedCall) -> Iterator[None]:
        """Attribute the calls made in the block to `call`, and record an error that ends `call`."""
        token = self._current.set(call)
        try:
            yield
        except BaseException as error:
            self.leave(call, raised=error)
            raise
        finally:
            self._current.reset(token)

    def emit(self, call: RecordedCall, payload: object, method: Callable[[], Any]) -> Any:
        """Invoke an adapter's `emit`, and record whether it changed its caller's payload."""
        try:
            return self.invoke(call, method)
        finally:
            call.changed_payload = payload != call.given.get("payload")

    def invoke(self, call: RecordedCall, method: Callable[[], Any]) -> Any:
        """Call the method, and record its result or, if the result is an awaitable, the awaitable's result."""
        with self.making(call):
            answer = method()
        if isinstance(answer, Awaitable) and not isinstance(answer, Receipt):
            return self._awaited(call, answer)
        self.leave(call, answer)
        return answer

    async def _awaited(self, call: RecordedCall, answer: Awaitable[Any]) -> Any:
        with self.making(call):
            result = await answer
        self.leave(call, result)
        return result

    def subclass(self, part: str, base: Any) -> Any:
        """Return a subclass of a part's class that records calls and otherwise behaves like `base`."""
        methods = {name: self._method(part, name, base) for name in PARAMETERS[part]}
        return type(f"Recorded{base.__name__}", (base,), methods)

    def _method(self, part: str, name: str, base: Any) -> Callable[..., Any]:
        def method(owner: Any, /, *args: Any, **options: Any) -> Any:
            call = self.enter(part, name, owner, args, options)
            invoked = lambda: getattr(base, name)(owner, *args, **options)  # noqa: E731
            if (part, name) == ("adapter", "emit"):
                return self.emit(call, args[1] if len(args) > 1 else options.get("payload"), invoked)
            return self.invoke(call, invoked)

        return method

    def instance(self, part: str, owner: Any) -> Any:
        """Record the calls of an object that the variant creates, and return the object."""
        for name in PARAMETERS[part]:
            setattr(owner, name, self._bound(part, name, owner, getattr(owner, name)))
        return owner

    def _bound(self, part: str, name: str, owner: object, original: Callable[..., Any]) -> Callable[..., Any]:
        def method(*args: Any, **options: Any) -> Any:
            call = self.enter(part, name, owner, args, options)
            return self.invoke(call, lambda: original(*args, **options))

        return method


def recorded(variant: Variant, recording: Recording) -> Variant:
    """Return the variant with parts that record their calls. The caller must record the agents with `subclass`."""
    return replace(
        variant,
        run_ids=lambda source: recording.instance("run_ids", variant.run_ids(source)),
        mapping=lambda store: recording.instance("mapping", variant.mapping(store)),
        hub=lambda log: recording.instance("hub", variant.hub(log)),
        bridge=recording.subclass("bridge", variant.bridge),
        supervisor=recording.subclass("supervisor", variant.supervisor),
        registry=recording.subclass("registry", variant.registry),
        engine=recording.subclass("engine", variant.engine),
        core=recording.subclass("core", variant.core),
        adapter=recording.subclass("adapter", variant.adapter),
    )


def _snapshot(value: Any) -> Any:
    if isinstance(value, AgentEvent):
        return EmittedEvent.of(value)
    return _copied(value) if isinstance(value, (dict, list)) else value


def _copied(value: Any) -> Any:
    try:
        return _copy(value)
    except (AttributeError, RecursionError, TypeError, ValueError, copy.Error):
        return value  # values that cannot be copied are compared by identity


def _copy(value: Any) -> Any:
    """Return a deep copy. For JSON values, this function is several times as fast as `copy.deepcopy`."""
    kind = type(value)
    if kind is dict:
        return {key: _copy(each) for key, each in value.items()}
    if kind is list:
        return [_copy(each) for each in value]
    if kind in _IMMUTABLE:
        return value
    copied = copy.deepcopy(value)
    return copied if copied == value else value  # an object of a class without `__eq__` equals only itself
