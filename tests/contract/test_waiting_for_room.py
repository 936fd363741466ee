"""With every store, whatever ends an emitter's wait for room, its event is published and counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import anyio
import pytest

from bridgekit.chain import models_tools_and_owners
from bridgekit.chain.link_1_startup import Application, BridgeConfig, create_app
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.models_tools_and_owners import PythonTools
from bridgekit.counters import NOT_AWAITED
from bridgekit.events import AgentEvent, EventType, Outcome, Receipt
from bridgekit.stores import stores_from
from bridgekit.transport.authorization import OwnerAuthorizer
from bridgekit.transport.outbox import CrowdedOutboxes
from bridgekit_verify.harness.declared_owners import DeclaredOwners
from tests.contract.stores import WAIT_SECONDS, StoreLocation
from tests.factories import RUN, THREAD, emitted

EXECUTING, COMPLETED = EventType.TOOL_EXECUTING, EventType.TOOL_COMPLETED
CALLS = 5


class Crowd:
    """Stands for the outbox of a client that reads. It has no room until `make_room`."""

    thread_id, code = THREAD, None

    def __init__(self, crowded: CrowdedOutboxes) -> None:
        self._crowded, self._room = crowded, anyio.Event()
        crowded.add(self)  # type: ignore[arg-type]

    def is_slow(self) -> bool:
        return False

    def is_full(self) -> bool:
        return False

    def tick(self) -> None:
        """Time does not pass."""

    async def wait_for_room(self) -> None:
        await self._room.wait()

    def make_room(self) -> None:
        self._crowded.remove(self)  # type: ignore[arg-type]
        self._room.set()


class Site:
    """An application with an agent's adapter, and the receipts that its observer got."""

    def __init__(self, application: Application) -> None:
        self.application, self.receipts = application, list[tuple[EventType, Receipt]]()
        application.bridge.observers.append(self.observe)
        self.adapter = WebSocketBridgeAdapter()
        self.adapter.set_websocket_bridge(application.bridge, RUN, "researcher", thread_id=THREAD)

    def observe(self, event: AgentEvent, receipt: Receipt) -> None:
        self.receipts.append((event.type, receipt))

    def crowd(self) -> Crowd:
        return Crowd(self.application.bridge.hub.crowded)

    async def check(self, *expected: EventType) -> None:
        """Check that exactly these events are in the log, and that each was counted and observed once."""
        with anyio.fail_after(WAIT_SECONDS):
            while len(frames := await self.application.bridge.hub.retained(THREAD)) < len(expected):  # noqa: ASYNC110
                await anyio.sleep(0.01)
        assert sorted(frame.type for frame in frames) == sorted(expected)
        assert sorted(event_type for event_type, _ in self.receipts) == sorted(expected)
        counters = self.application.counters
        assert counters.sent.total() + counters.kept.total() + counters.pending.total() == len(expected)
        assert counters.lost == {}


@asynccontextmanager
async def opened(location: StoreLocation) -> AsyncIterator[Site]:
    stores, owners = stores_from(location.url), DeclaredOwners()
    app = create_app(
        BridgeConfig(agents={}, stores=stores, db_session_factory=owners, authorizer=OwnerAuthorizer, self_checks=())
    )
    async with app.router.lifespan_context(app):
        await app.state.bridgekit.bridge.mapping.register_mapping(RUN, THREAD)
        yield Site(app.state.bridgekit)


async def call_tools(site: Site, tool: Callable[[], Awaitable[object]]) -> None:
    async def call() -> None:
        with suppress(ValueError):
            await PythonTools({"look_up": tool}).dispatch("look_up", {}, site.adapter)

    async with anyio.create_task_group() as tasks:
        for _ in range(CALLS):
            tasks.start_soon(call)


async def test_event_whose_answer_is_not_awaited_is_counted(location: StoreLocation) -> None:
    async with opened(location) as site:
        crowd = site.crowd()
        for _ in range(CALLS):
            site.adapter.emit(EXECUTING, {})
        crowd.make_room()
        assert not await site.application.bridge.hub.retained(THREAD)
        assert site.application.counters.lost == {(10, NOT_AWAITED): CALLS}
        assert [receipt.outcome for _, receipt in site.receipts] == [Outcome.REFUSED] * CALLS


async def test_answers_can_be_awaited_together(location: StoreLocation) -> None:
    async with opened(location) as site:
        crowd = site.crowd()
        answers = {site.adapter.emit(EXECUTING, {}) for _ in range(CALLS)}
        crowd.make_room()
        for answer in answers:
            assert not (await answer).lost
        await site.check(*[EXECUTING] * CALLS)


@pytest.mark.parametrize("fails", [False, True])
async def test_every_call_of_a_tool_is_completed_however_long_it_waits(
    location: StoreLocation, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    monkeypatch.setattr(models_tools_and_owners, "END_TIMEOUT_SECONDS", 0.01)
    async with opened(location) as site:
        running, all_run, crowds = 0, anyio.Event(), list[Crowd]()

        async def tool() -> None:
            nonlocal running
            running += 1
            if running == CALLS:
                crowds.append(site.crowd())
                all_run.set()
            await all_run.wait()
            if fails:
                raise ValueError

        async def make_room_later() -> None:
            await all_run.wait()
            await anyio.sleep(0.1)  # longer than the time limit
            await site.check(*[EXECUTING] * CALLS)
            crowds[0].make_room()

        with anyio.fail_after(WAIT_SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(make_room_later)
                await call_tools(site, tool)
        await site.check(*[EXECUTING, COMPLETED] * CALLS)


@pytest.mark.parametrize("at", ["before", "after"])
async def test_every_call_of_a_tool_is_completed_when_its_run_is_cancelled(
    location: StoreLocation, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """The run is cancelled while its calls wait to emit the event before or after the tool."""
    monkeypatch.setattr(models_tools_and_owners, "END_TIMEOUT_SECONDS", 0.01)
    async with opened(location) as site:
        crowd = site.crowd() if at == "before" else None

        async def tool() -> None:
            nonlocal crowd
            crowd = crowd or site.crowd()

        with anyio.fail_after(WAIT_SECONDS), anyio.move_on_after(0.2):
            await call_tools(site, tool)
        assert crowd is not None
        crowd.make_room()
        await site.check(*[EXECUTING, COMPLETED] * CALLS)


async def emit(site: Site) -> object:
    return await site.adapter.emit_tool_executing("look_up", tool_call_id="1")


async def notify_when_room(site: Site) -> object:
    return await site.application.bridge.notify_when_room(emitted(EXECUTING, thread_id=THREAD))


async def notify_in_thread(site: Site) -> object:
    return await site.application.bridge.notify_in_thread(THREAD, emitted(EXECUTING))


async def notify(site: Site) -> object:
    return await site.application.bridge.notify_tool_executing(RUN, "researcher", "look_up", tool_call_id="1")


@pytest.mark.parametrize("call", [emit, notify_when_room, notify_in_thread, notify])
async def test_time_limit_of_the_caller_ends_the_wait_and_not_the_publication(
    location: StoreLocation, call: Callable[[Site], Awaitable[object]]
) -> None:
    async with opened(location) as site:
        crowd = site.crowd()
        with anyio.move_on_after(0.1) as limit:
            await call(site)
        assert limit.cancelled_caught
        crowd.make_room()
        await site.check(EXECUTING)
