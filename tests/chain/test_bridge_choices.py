"""Link 9: what the bridge does with values, types and errors that are the application's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest

from bridgekit.chain import link_9_bridge
from bridgekit.chain.link_1_startup import create_app
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.counters import NOT_AWAITED
from bridgekit.errors import (
    FrameTooLarge,
    InvalidId,
    PayloadError,
    UnknownEventType,
    WrongEventLoop,
)
from bridgekit.events import AgentEvent, Answer, EventType, Outcome, Receipt
from bridgekit.ids import ThreadId
from bridgekit.mapping import RunThreadMappingService
from bridgekit.thread_resolvers import Carried, Resolver
from bridgekit.transport.hub import Hub
from tests.chain.agents import HubThatStoresLater, config, retained_types, started, subscribe, subscribe_crowded
from tests.factories import OTHER, RUN, THREAD, emitted


def event(kind: EventType = EventType.PROGRESS_UPDATE, **payload: object) -> AgentEvent:
    return AgentEvent(type=kind, run_id=RUN, agent_name="researcher", payload=payload, thread_id=THREAD)


async def test_payload_hook_converts_the_values_of_an_event_that_names_its_thread() -> None:
    application = await started(payload_hook=lambda value: f"converted {value}")
    connection = subscribe(application)
    assert await application.bridge.notify(event(value=1j))
    assert [frame.event.payload for frame in connection.frames] == [{"value": "converted 1j"}]


@pytest.mark.parametrize("by_run_id", [True, False])
async def test_error_of_the_payload_hook_is_raised_and_counted(by_run_id: bool) -> None:
    def fail(value: object) -> object:
        raise ValueError("unknown value")

    application = await started(payload_hook=fail)
    await application.bridge.mapping.register_mapping(RUN, THREAD)
    emitted = event(value=1j)
    emitted.thread_id = None if by_run_id else THREAD
    with pytest.raises(PayloadError, match="payload_hook failed: ValueError: unknown value") as raised:
        await application.bridge.notify(emitted)
    assert isinstance(raised.value.__cause__, ValueError)
    assert application.counters.lost == {(8, "PayloadError"): 1}


async def test_event_of_an_unknown_type_is_refused_with_the_known_types() -> None:
    application = await started()
    with pytest.raises(UnknownEventType, match=r"no event type is called .*undefined.*; known: .*agent_started"):
        application.bridge.notify(event(EventType("undefined")))
    with pytest.raises(UnknownEventType, match=r"no event type \(an EventType, not a text\) is called 'agent_started'"):
        application.bridge.notify(event("agent_started"))  # type: ignore[arg-type]


async def test_tool_call_is_successful_by_default() -> None:
    application = await started()
    connection = subscribe(application)
    await application.bridge.notify_tool_completed(RUN, "researcher", "look_up", tool_call_id="1", thread_id=THREAD)
    assert [frame.event.payload["status"] for frame in connection.frames] == ["success"]


async def test_text_of_an_error_is_the_configured_one() -> None:
    application = await started(error_text=lambda error: f"sorry: {error}")
    assert application.bridge.error_text(ValueError("why")) == "sorry: why"


@pytest.mark.parametrize("method", ["notify", "notify_when_room"])
async def test_event_of_another_thread_of_the_process_is_counted_and_observed(method: str) -> None:
    observed: list[Receipt] = []
    app = create_app(config(observers=(lambda event, receipt: observed.append(receipt),)))
    async with app.router.lifespan_context(app):
        bridge = app.state.agent_websocket_bridge
        with pytest.raises(WrongEventLoop):
            await anyio.to_thread.run_sync(getattr(bridge, method), event())
        assert bridge.counters.lost == {(8, "WrongEventLoop"): 1}
        assert [(receipt.link, receipt.reason) for receipt in observed] == [(8, "WrongEventLoop")]
        assert (await getattr(bridge, method)(event())).kept


async def test_event_for_a_named_thread_is_counted_if_it_comes_from_another_thread_of_the_process() -> None:
    app = create_app(config())
    async with app.router.lifespan_context(app):
        bridge = app.state.agent_websocket_bridge
        notifying = partial(anyio.run, bridge.notify_in_thread, OTHER, event())
        with pytest.raises(WrongEventLoop):
            await anyio.to_thread.run_sync(notifying)
        assert bridge.counters.lost == {(8, "WrongEventLoop"): 1}
        receipt = await bridge.notify_in_thread(OTHER, event())
        assert (receipt.thread_id, receipt.kept) == (OTHER, True)


async def test_call_of_another_thread_of_the_process_is_refused_with_its_name() -> None:
    app = create_app(config())
    async with app.router.lifespan_context(app):
        bridge = app.state.agent_websocket_bridge
        bridge.require_own_loop("open_thread")
        with pytest.raises(WrongEventLoop, match="open_thread"):
            await anyio.to_thread.run_sync(bridge.require_own_loop, "open_thread")


async def test_event_of_another_thread_of_the_process_does_not_wait_for_room() -> None:
    app = create_app(config())
    async with app.router.lifespan_context(app):
        bridge = app.state.agent_websocket_bridge
        subscribe_crowded(app.state.bridgekit)
        with pytest.raises(WrongEventLoop):
            await anyio.to_thread.run_sync(bridge.notify_when_room, event())


def test_event_is_refused_without_the_bridges_event_loop_and_on_a_later_one_of_the_same_thread() -> None:
    bridge = AgentWebSocketBridge(Hub(), Carried(), RunThreadMappingService())

    async def bind() -> None:
        bridge.bind_to_event_loop()
        assert (await bridge.notify(event())).kept

    async def notify() -> None:
        bridge.notify(event())

    asyncio.run(bind())
    with pytest.raises(WrongEventLoop):
        bridge.notify(event())
    with pytest.raises(WrongEventLoop):
        asyncio.run(notify())


@pytest.mark.parametrize("name", ["agent_started", EventType("undefined"), None])
async def test_event_for_a_named_thread_of_a_type_that_is_not_defined_is_refused(name: Any) -> None:
    application = await started()
    with pytest.raises(UnknownEventType):
        await application.bridge.notify_in_thread(OTHER, event(name))
    assert await retained_types(application, OTHER) == []


@pytest.mark.parametrize("thread_id", [THREAD, None], ids=["known thread", "mapped run"])
async def test_event_waits_until_no_outbox_of_its_thread_is_crowded(thread_id: ThreadId | None) -> None:
    application = await started()
    await application.bridge.mapping.register_mapping(RUN, THREAD)
    box = subscribe_crowded(application)
    receipts = list[Receipt]()

    async def notify() -> None:
        receipts.append(await application.bridge.notify_when_room(emitted(thread_id=thread_id)))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(notify)
            await anyio.wait_all_tasks_blocked()
            assert await retained_types(application) == ["agent_thinking"]
            box.next_frames()
    assert [(receipt.outcome, receipt.seq) for receipt in receipts] == [(Outcome.SENT, 2)]
    assert application.counters.sent == {EventType.AGENT_THINKING: 1}


class NotingBridge(AgentWebSocketBridge):
    """Notes each event that `notify` publishes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.notified = list[AgentEvent]()

    def notify(self, event: AgentEvent) -> Answer:
        self.notified.append(event)
        return super().notify(event)


async def test_result_that_is_awaited_twice_publishes_once() -> None:
    application = await started()
    box = subscribe_crowded(application)
    answer = application.bridge.notify_when_room(emitted())
    box.next_frames()
    assert await answer
    with pytest.raises(RuntimeError, match=r"was awaited before$"):
        await answer
    del answer
    assert application.counters.sent == {EventType.AGENT_THINKING: 1}
    assert application.counters.lost == {}


async def test_event_that_must_wait_is_refused_if_its_result_is_discarded() -> None:
    application = await started()
    subscribe_crowded(application)
    answers = {application.bridge.notify_when_room(emitted()) for _ in range(2)}
    assert len(answers) == 2
    answers.clear()
    assert application.counters.lost == {(10, NOT_AWAITED): 2}
    assert await retained_types(application) == ["agent_thinking"]


@pytest.mark.parametrize("cancelled", [False, True])
async def test_overridden_notify_publishes_an_event_that_waited_for_room(cancelled: bool) -> None:
    application = await started(bridge=NotingBridge)
    bridge = application.bridge
    assert isinstance(bridge, NotingBridge)
    bridge.notified.clear()  # events of the self-checks
    box = subscribe_crowded(application)

    async def notify() -> None:
        await bridge.notify_when_room(emitted())

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(notify)
            await anyio.wait_all_tasks_blocked()
            assert bridge.notified == []
            if cancelled:
                tasks.cancel_scope.cancel()
            else:
                box.next_frames()
    assert [each.type for each in bridge.notified] == [EventType.AGENT_THINKING]


@pytest.mark.parametrize("thread_id", [OTHER, None], ids=["known thread", "mapped run"])
async def test_event_does_not_wait_for_another_thread(thread_id: ThreadId | None) -> None:
    application = await started()
    await application.bridge.mapping.register_mapping(RUN, OTHER)
    subscribe_crowded(application)
    with anyio.fail_after(60):
        receipt = await application.bridge.notify_when_room(emitted(thread_id=thread_id))
    assert (receipt.outcome, receipt.thread_id) == (Outcome.NO_SUBSCRIBER, OTHER)


async def test_event_without_a_route_does_not_wait_for_room() -> None:
    bridge = AgentWebSocketBridge(Hub(), Carried(), RunThreadMappingService())
    receipt = await bridge.notify_when_room(emitted(thread_id=None))
    assert (receipt.outcome, receipt.reason) == (Outcome.UNROUTABLE, "the event carries no thread")


@pytest.mark.parametrize("thread_id", [THREAD, None], ids=["known thread", "mapped run"])
async def test_event_that_is_stored_later_is_counted_when_it_is(thread_id: ThreadId | None) -> None:
    application = await started(hub=HubThatStoresLater)
    await application.bridge.mapping.register_mapping(RUN, THREAD)
    subscribe(application)
    answer = application.bridge.notify(emitted(thread_id=thread_id))
    assert application.counters.sent == {}
    assert (await answer).outcome is Outcome.SENT
    assert application.counters.sent == {EventType.AGENT_THINKING: 1}


@pytest.mark.parametrize(
    ("error", "link"),
    [(PayloadError(EventType.AGENT_THINKING, "no"), 8), (FrameTooLarge("event", 2, 1), 8), (OSError("no network"), 10)],
)
async def test_event_that_the_log_refuses_later_is_counted_and_its_error_raised(error: Exception, link: int) -> None:
    application = await started(hub=HubThatStoresLater)
    hub = application.bridge.hub
    assert isinstance(hub, HubThatStoresLater)
    hub.error = error
    with pytest.raises(type(error)):
        await application.bridge.notify(emitted())
    assert application.counters.lost == {(link, type(error).__name__): 1}


async def test_event_whose_caller_is_cancelled_or_closed_is_pending() -> None:
    observed = list[Receipt]()
    application = await started(
        hub=HubThatStoresLater, observers=(lambda event, receipt: observed.append(receipt),), self_checks=()
    )
    with anyio.CancelScope() as scope:
        scope.cancel()
        await application.bridge.notify(emitted())
    closed: Any = application.bridge.notify(emitted()).__await__()
    closed.send(None)
    closed.close()
    assert scope.cancelled_caught
    assert application.counters.lost == {}
    assert application.counters.pending == {EventType.AGENT_THINKING: 2}
    unanswered = (Outcome.PENDING, 10, "the caller did not wait for the store's answer")
    assert [(receipt.outcome, receipt.link, receipt.reason) for receipt in observed] == [unanswered] * 2


class Unanswered:
    """A resolver whose database does not answer."""

    async def resolve(self, event: AgentEvent) -> ThreadId:
        await anyio.sleep_forever()
        raise AssertionError


@pytest.mark.parametrize("method", ["notify", "notify_when_room"])
async def test_event_whose_caller_is_cancelled_or_closed_before_it_has_a_route_is_not_counted(method: str) -> None:
    application = await started(resolver=lambda mapping: Unanswered(), self_checks=())
    notify = getattr(application.bridge, method)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await notify(emitted())
    closed: Any = notify(emitted())
    closed.send(None)
    closed.close()
    assert scope.cancelled_caught
    counters = application.counters
    assert (counters.sent, counters.kept, counters.pending, counters.lost) == ({}, {}, {}, {})


@pytest.mark.parametrize("thread_id", [THREAD, None], ids=["known thread", "mapped run"])
async def test_event_that_waits_for_room_is_not_published_if_its_coroutine_is_closed(
    thread_id: ThreadId | None,
) -> None:
    application = await started()
    await application.bridge.mapping.register_mapping(RUN, THREAD)
    subscribe_crowded(application)
    closed: Any = application.bridge.notify_when_room(emitted(thread_id=thread_id)).__await__()
    closed.send(None)
    closed.close()
    assert await retained_types(application) == ["agent_thinking"]
    assert application.counters.sent == {}


@pytest.mark.parametrize("thread_id", [THREAD, None], ids=["known thread", "mapped run"])
@pytest.mark.parametrize("error", [None, OSError("no network")])
async def test_store_answers_an_event_whose_wait_for_room_is_cancelled(
    error: Exception | None, thread_id: ThreadId | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    application = await started(hub=HubThatStoresLater, self_checks=())
    hub = application.bridge.hub
    assert isinstance(hub, HubThatStoresLater)
    monkeypatch.setattr(link_9_bridge, "ANSWER_SECONDS", 60.0)
    await application.bridge.mapping.register_mapping(RUN, THREAD)
    box, caller = subscribe_crowded(application), anyio.CancelScope()
    hub.error = error

    async def notify() -> None:
        with caller:
            await application.bridge.notify_when_room(emitted(thread_id=thread_id))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(notify)
            await anyio.wait_all_tasks_blocked()
            caller.cancel()
            await anyio.wait_all_tasks_blocked()
            box.next_frames()
    assert caller.cancelled_caught
    counters = application.counters
    assert (counters.sent, counters.pending) == ({} if error else {EventType.AGENT_THINKING: 1}, {})
    assert counters.lost == ({(10, "OSError"): 1} if error else {})
    assert await retained_types(application) == ["agent_thinking"] * (1 if error else 2)


async def test_observer_is_called_with_an_event_that_a_socket_accepted() -> None:
    application = await started()
    subscribe(application)
    observed = list[tuple[AgentEvent, Receipt]]()
    application.bridge.observers.append(lambda event, receipt: observed.append((event, receipt)))
    sent = emitted()
    receipt = await application.bridge.notify(sent)
    assert observed == [(sent, receipt)]
    assert application.counters.sent == {EventType.AGENT_THINKING: 1}


async def test_event_of_a_mapped_run_is_published_before_anything_can_cancel_it() -> None:
    application = await started()
    await application.bridge.mapping.register_mapping(RUN, THREAD)
    notifying: Any = application.bridge.notify(emitted(thread_id=None))
    with pytest.raises(StopIteration):
        notifying.send(None)
    assert await retained_types(application) == ["agent_thinking"]


@pytest.mark.parametrize("error", [ValueError("why"), KeyboardInterrupt(), SystemExit(3), asyncio.CancelledError()])
async def test_observer_that_raises_is_logged_with_its_event(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def observe(event: AgentEvent, receipt: Receipt) -> None:
        raise error

    application = await started()
    application.bridge.observers.append(observe)
    assert (await application.bridge.notify(emitted())).kept
    assert caplog.messages == ["an observer failed at agent_thinking of run run_1"]


async def test_observer_that_removes_itself_hides_no_event_from_another() -> None:
    application = await started()
    observers, seen = application.bridge.observers, list[str]()

    def once(event: AgentEvent, receipt: Receipt) -> None:
        observers.remove(once)

    observers += [once, lambda event, receipt: seen.append(receipt.outcome)]
    for _ in range(2):
        await application.bridge.notify(emitted())
    assert seen == [Outcome.NO_SUBSCRIBER] * 2


class Interrupting(Mapping[str, object]):
    """Is interrupted when it is read."""

    def __iter__(self) -> Any:
        raise KeyboardInterrupt

    __len__ = __getitem__ = __iter__  # type: ignore[assignment]


ARGUMENTS: dict[str, dict[str, object]] = {
    "notify_agent_thinking": {"reasoning": "hm"},
    "notify_tool_executing": {"tool_name": "t", "tool_call_id": "1"},
    "notify_tool_completed": {"tool_name": "t", "tool_call_id": "1"},
    "notify_agent_error": {"error_message": "no"},
    "notify_progress_update": {"progress": {}},
    "notify_text_delta": {"delta": "x", "message_id": "m"},
}


def notify_with(name: str, field: str, bridge: AgentWebSocketBridge) -> Any:
    """Call the method with one id that is not valid."""
    given = {"run_id": RUN, "agent_name": "a", "thread_id": THREAD, **ARGUMENTS.get(name, {})}
    return getattr(bridge, name)(**given | {field: ""})


class Failing:
    """A resolver whose database fails."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def resolve(self, event: AgentEvent) -> ThreadId:
        raise self.error


REFUSALS: dict[str, tuple[Callable[[AgentWebSocketBridge], Any], type[BaseException]]] = {
    "unknown type": (lambda bridge: bridge.notify(event(EventType("undefined"))), UnknownEventType),
    "unknown type, when room": (
        lambda bridge: bridge.notify_when_room(event(EventType("undefined"))),
        UnknownEventType,
    ),
    "unknown type, in thread": (
        lambda bridge: bridge.notify_in_thread(THREAD, event(EventType("undefined"))),
        UnknownEventType,
    ),
    "type that is plain text": (lambda bridge: bridge.notify(event("agent_started")), UnknownEventType),  # type: ignore[arg-type]
    "value": (lambda bridge: bridge.notify(event(value=object())), PayloadError),
    "value, when room": (lambda bridge: bridge.notify_when_room(event(value=object())), PayloadError),
    "value, in thread": (lambda bridge: bridge.notify_in_thread(THREAD, event(value=object())), PayloadError),
    "value that interrupts": (lambda bridge: bridge.notify(event(value=Interrupting())), KeyboardInterrupt),
    "value that interrupts, when room": (
        lambda bridge: bridge.notify_when_room(event(value=Interrupting())),
        KeyboardInterrupt,
    ),
    "value that interrupts, in thread": (
        lambda bridge: bridge.notify_in_thread(THREAD, event(value=Interrupting())),
        KeyboardInterrupt,
    ),
    "large value": (lambda bridge: bridge.notify(event(value="x" * 2_000_000)), FrameTooLarge),
    "large value, in thread": (
        lambda bridge: bridge.notify_in_thread(THREAD, event(value="x" * 2_000_000)),
        FrameTooLarge,
    ),
    "thread": (lambda bridge: bridge.notify_in_thread("", event()), InvalidId),
    "thread of another type": (lambda bridge: bridge.notify_in_thread(None, event()), InvalidId),  # type: ignore[arg-type]
    "progress that is no object": (
        lambda bridge: bridge.notify_progress_update(RUN, "a", "half", thread_id=THREAD),  # type: ignore[arg-type]
        PayloadError,
    ),
    **{
        f"{field} of {name}": (partial(notify_with, name, field), InvalidId)
        for name in sorted(vars(AgentWebSocketBridge))
        if name.startswith("notify_") and name not in ("notify_in_thread", "notify_when_room")
        for field in ("run_id", "agent_name", "thread_id")
    },
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_every_refusal_is_counted_once_with_its_reason_and_observed(name: str) -> None:
    observed: list[Receipt] = []
    application = await started(observers=(lambda event, receipt: observed.append(receipt),))
    emit, error = REFUSALS[name]
    with pytest.raises(error):
        await emit(application.bridge)
    assert application.counters.lost == {(8, error.__name__): 1}
    assert [(receipt.outcome, receipt.reason) for receipt in observed] == [(Outcome.REFUSED, error.__name__)]


class FailingLater:
    """A resolver whose database fails after a while."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def resolve(self, event: AgentEvent) -> ThreadId:
        raise self.error


@pytest.mark.parametrize("resolver", [Failing, FailingLater])
@pytest.mark.parametrize("method", ["notify", "notify_when_room"])
@pytest.mark.parametrize(("error", "link"), [(OSError("no database"), 9), (KeyboardInterrupt("no database"), 8)])
async def test_error_of_a_resolver_is_counted(
    error: BaseException, link: int, method: str, resolver: Callable[[BaseException], Resolver]
) -> None:
    application = await started(resolver=lambda mapping: resolver(error), self_checks=())
    with pytest.raises(type(error), match="no database"):
        await getattr(application.bridge, method)(event())
    assert application.counters.lost == {(link, type(error).__name__): 1}


@pytest.mark.parametrize("method", ["notify", "notify_when_room"])
@pytest.mark.parametrize("thread", [THREAD, None])
async def test_error_of_a_hub_is_counted(method: str, thread: ThreadId | None) -> None:
    class Broken(Hub):
        def publish(self, event: AgentEvent, thread_id: ThreadId) -> Answer:
            raise OSError("no network")

    application = await started(hub=Broken, self_checks=())
    await application.bridge.mapping.register_mapping(RUN, THREAD)
    emitted = event()
    emitted.thread_id = thread
    with pytest.raises(OSError, match="no network"):
        await getattr(application.bridge, method)(emitted)
    assert application.counters.lost == {(10, "OSError"): 1}
