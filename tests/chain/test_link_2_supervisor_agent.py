"""Link 2: the supervisor opens a run for a request, executes it and closes it."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from bridgekit.chain.context import RunContext, current_run
from bridgekit.chain.link_1_startup import Application
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.errors import InvalidId, ThreadNotOwned, UnknownName
from bridgekit.events import EventType
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import MemoryMappingStore, RunThreadMappingService
from bridgekit.thread_resolvers import MappingLookup
from tests.chain.agents import Broken, event_types, payloads, started, subscribe
from tests.factories import ALICE, BOB, OTHER, RUN, THREAD

REQUEST: dict[str, Any] = {
    "agent_name": "researcher",
    "thread_id": THREAD,
    "user_id": ALICE,
    "request": "why?",
}
GRACE = 30.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def with_clock() -> tuple[Application, MemoryMappingStore, Clock]:
    """Start an application and let the self-check's routes expire; return it with its mapping store and clock."""
    clock = Clock()
    store = MemoryMappingStore(clock)
    application = await started(mapping=lambda _: RunThreadMappingService(store, grace_seconds=GRACE))
    clock.now += GRACE
    await application.bridge.mapping.cleanup_mapping(application.supervisor._run_ids.new(THREAD))
    assert len(store) == 0
    return application, store, clock


async def test_run_emits_all_events_and_returns_its_result_when_the_agent_completes() -> None:
    application = await started()
    connection = subscribe(application)
    answer = await application.supervisor.run(**REQUEST)
    assert answer.result == {"answer": "why?!"}
    assert (answer.context.thread_id, answer.context.user_id, answer.context.request) == (THREAD, ALICE, "why?")
    assert event_types(connection) == [
        "agent_started",
        "agent_thinking",
        "tool_executing",
        "tool_completed",
        "agent_completed",
    ]
    assert [frame.event.seq for frame in connection.frames] == [1, 2, 3, 4, 5]
    assert {frame.event.run_id for frame in connection.frames} == {answer.context.run_id}
    assert {frame.event.agent_name for frame in connection.frames} == {"researcher"}
    [started_with] = payloads(connection, EventType.AGENT_STARTED)
    [ended_with] = payloads(connection, EventType.AGENT_COMPLETED)
    assert started_with["context"] == {"request": "why?"}
    assert ended_with["result"] == {"answer": "why?!"}
    assert ended_with["execution_time_ms"] >= 0


class _OneRunId:
    def new(self, thread_id: ThreadId) -> RunId:
        return RUN


async def test_concurrent_runs_both_end_when_they_have_one_run_id() -> None:
    application = await started(run_ids=_OneRunId())
    connection = subscribe(application)
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(partial(application.supervisor.run, **REQUEST))
    assert event_types(connection).count("agent_completed") == 2


async def test_run_ids_differ_and_seq_continues_when_a_thread_has_two_runs() -> None:
    application = await started()
    connection = subscribe(application)
    first = await application.supervisor.run(**REQUEST)
    second = await application.supervisor.run(**REQUEST)
    assert first.context.run_id != second.context.run_id
    assert [frame.event.seq for frame in connection.frames] == list(range(1, 11))


@pytest.mark.parametrize("field", ["agent_name", "thread_id", "user_id"])
@pytest.mark.parametrize("value", ["", "a\nb", None, "x" * 1_025])
async def test_run_is_refused_when_an_id_is_invalid(field: str, value: object) -> None:
    application, store, _ = await with_clock()
    with pytest.raises(InvalidId) as refused:
        await application.supervisor.run(**{**REQUEST, field: value})
    assert refused.value.field == field
    assert len(store) == 0
    assert await application.owner_of(THREAD) is None


async def test_run_is_refused_without_events_when_another_user_owns_the_thread() -> None:
    application, store, _ = await with_clock()
    await application.open_thread(THREAD, BOB)
    connection = subscribe(application)
    with pytest.raises(ThreadNotOwned):
        await application.supervisor.run(**REQUEST)
    assert (connection.frames, len(store)) == ([], 0)


async def test_run_emits_an_error_and_is_closed_when_the_agent_is_unknown() -> None:
    application, store, clock = await with_clock()
    connection = subscribe(application)
    with pytest.raises(UnknownName) as refused:
        await application.supervisor.run(**{**REQUEST, "agent_name": "oracle"})
    assert (refused.value.kind, refused.value.name) == ("agent", "oracle")
    assert "researcher" in refused.value.known
    assert event_types(connection) == ["agent_started", "agent_error"]
    assert await expires_after_grace_period(application, store, clock)


async def test_run_emits_an_error_and_is_closed_when_the_agent_raises() -> None:
    application, store, clock = await with_clock()
    connection = subscribe(application)
    with pytest.raises(Broken, match=r"^why\?$"):
        await application.supervisor.run(**{**REQUEST, "agent_name": "failing"})
    assert event_types(connection) == ["agent_started", "agent_thinking", "agent_error"]
    assert payloads(connection, EventType.AGENT_ERROR) == [
        {"error_message": "Broken: why?", "error_context": {"request": "why?"}}
    ]
    assert await expires_after_grace_period(application, store, clock)


async def test_run_emits_an_error_and_is_closed_when_it_is_cancelled() -> None:
    application, store, clock = await with_clock()
    connection = subscribe(application)
    ended = False
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                nonlocal ended
                try:
                    await application.supervisor.run(**{**REQUEST, "agent_name": "waiting"})
                finally:
                    ended = True

            tasks.start_soon(run)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    assert ended
    assert scope.cancelled_caught
    assert event_types(connection) == ["agent_started", "agent_error"]
    assert await expires_after_grace_period(application, store, clock)


async def test_run_emits_an_error_and_is_closed_when_it_is_cancelled_and_the_store_is_slow() -> None:
    """A store in another process is slow in this way."""

    class Remote(MemoryMappingStore):
        async def get(self, run_id: RunId) -> ThreadId | None:
            await checkpoint()
            return await super().get(run_id)

        async def expire(self, run_id: RunId, seconds: float) -> None:
            await checkpoint()
            await super().expire(run_id, seconds)

    application = await started(
        mapping=lambda _: RunThreadMappingService(Remote(), grace_seconds=0), resolver=MappingLookup, self_checks=()
    )
    connection = subscribe(application)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(application.supervisor.run, **{**REQUEST, "agent_name": "waiting"}))
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert event_types(connection) == ["agent_started", "agent_error"]
    assert await application.bridge.mapping.get_thread_id(connection.frames[0].event.run_id) is None


async def test_late_event_arrives_when_the_grace_period_has_not_ended() -> None:
    application, _, clock = await with_clock()
    connection = subscribe(application)
    run_id = (await application.supervisor.run(**REQUEST)).context.run_id
    clock.now += GRACE - 1
    assert await application.bridge.notify_progress_update(run_id, "researcher", {"late": True})
    clock.now += 1
    assert not await application.bridge.notify_progress_update(run_id, "researcher", {"late": True})
    assert event_types(connection)[-1] == "progress_update"
    assert len(connection.frames) == 6


@pytest.mark.parametrize("at_once", [2, 5])
async def test_events_reach_only_their_thread_when_runs_are_concurrent(at_once: int) -> None:
    application = await started()
    threads = [ThreadId(f"thread_{number}") for number in range(at_once)]
    connections = [subscribe(application, thread) for thread in threads]

    async def run(thread: ThreadId) -> None:
        await application.supervisor.run(
            agent_name="researcher", thread_id=thread, user_id=f"user of {thread}", request=f"ask {thread}"
        )

    async with anyio.create_task_group() as runs:
        for thread in threads:
            runs.start_soon(run, thread)
    for thread, connection in zip(threads, connections, strict=True):
        assert len(connection.frames) == 5
        assert payloads(connection, EventType.AGENT_THINKING)[0]["reasoning"] == f"about ask {thread}"
        assert len({frame.event.run_id for frame in connection.frames}) == 1


async def test_run_completes_and_counts_no_event_as_sent_when_there_is_no_subscriber() -> None:
    application = await started()
    other = subscribe(application, OTHER)
    answer = await application.supervisor.run(**REQUEST)
    assert answer.result == {"answer": "why?!"}
    assert sum(application.counters.sent.values()) == 0
    assert application.counters.lost == {}
    assert sum(application.counters.kept.values()) == 5
    assert other.frames == []


async def expires_after_grace_period(application: Application, store: MemoryMappingStore, clock: Clock) -> bool:
    """Return whether the store holds exactly one route, and none after the grace period."""
    routes_in_grace_period = len(store)
    clock.now += GRACE
    await application.bridge.mapping.cleanup_mapping(application.supervisor._run_ids.new(THREAD))
    return (routes_in_grace_period, len(store)) == (1, 0)


class Naming(BaseAgent):
    """Returns the request of the current run: its own, in an OS thread, and in a sub-agent and after it."""

    application: Application

    async def execute(self, context: RunContext) -> object:
        names: list[object] = [request_of_current_run(), await anyio.to_thread.run_sync(request_of_current_run)]
        if context.request == "outer":
            inner = await self.application.supervisor.run(**REQUEST | {"agent_name": "naming", "request": "inner"})
            names += [inner.result, request_of_current_run()]
        return names


def request_of_current_run() -> str | None:
    run = current_run()
    return None if run is None else run.request


async def test_current_run_is_the_innermost_one_and_none_outside() -> None:
    Naming.application = application = await started(agents={"naming": Naming})
    run = await application.supervisor.run(**REQUEST | {"agent_name": "naming", "request": "outer"})
    assert run.result == ["outer", "outer", ["inner", "inner"], "outer"]
    assert current_run() is None
