"""Link 2: a request enters the chain, and its run is opened, carried through and closed."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from bridgekit.chain.link_1_startup import Application
from bridgekit.errors import InvalidId, ThreadNotOwned, UnknownName
from bridgekit.events import EventType
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import MemoryMappingStore, RunThreadMappingService
from bridgekit.resolution import MappingLookup
from tests.chain.agents import Broken, listener, payloads, said, started
from tests.factories import ALICE, BOB, OTHER, THREAD

ASKED: dict[str, Any] = {
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
    """A started application, its routes when those of the self-check have lapsed, and its time."""
    clock = Clock()
    store = MemoryMappingStore(clock)
    application = await started(mapping=lambda _: RunThreadMappingService(store, grace_seconds=GRACE))
    clock.now += GRACE
    await application.bridge.mapping.cleanup_mapping(application.supervisor._run_ids.new(THREAD))
    assert len(store) == 0
    return application, store, clock


async def test_run_is_told_from_its_start_to_its_end_and_answers_its_result() -> None:
    application = await started()
    inbox = listener(application)
    answer = await application.supervisor.run(**ASKED)
    assert answer.result == {"answer": "why?!"}
    assert (answer.context.thread_id, answer.context.user_id, answer.context.request) == (THREAD, ALICE, "why?")
    assert said(inbox) == [
        "agent_started",
        "agent_thinking",
        "tool_executing",
        "tool_completed",
        "agent_completed",
    ]
    assert [frame.event.seq for frame in inbox.frames] == [1, 2, 3, 4, 5]
    assert {frame.event.run_id for frame in inbox.frames} == {answer.context.run_id}
    assert {frame.event.agent_name for frame in inbox.frames} == {"researcher"}
    [started_with] = payloads(inbox, EventType.AGENT_STARTED)
    [ended_with] = payloads(inbox, EventType.AGENT_COMPLETED)
    assert started_with["context"] == {"request": "why?"}
    assert ended_with["result"] == {"answer": "why?!"}
    assert ended_with["execution_time_ms"] >= 0


async def test_two_runs_of_one_thread_have_two_ids_and_one_count() -> None:
    application = await started()
    inbox = listener(application)
    first = await application.supervisor.run(**ASKED)
    second = await application.supervisor.run(**ASKED)
    assert first.context.run_id != second.context.run_id
    assert [frame.event.seq for frame in inbox.frames] == list(range(1, 11))


@pytest.mark.parametrize("field", ["agent_name", "thread_id", "user_id"])
@pytest.mark.parametrize("value", ["", "a\nb", None, "x" * 1_025])
async def test_bad_id_is_refused_at_the_border_by_name(field: str, value: object) -> None:
    application, store, _ = await with_clock()
    with pytest.raises(InvalidId) as refused:
        await application.supervisor.run(**{**ASKED, field: value})
    assert refused.value.field == field
    assert len(store) == 0
    assert await application.owner_of(THREAD) is None


async def test_run_in_a_thread_of_another_user_is_refused_and_tells_nobody() -> None:
    application, store, _ = await with_clock()
    await application.open_thread(THREAD, BOB)
    inbox = listener(application)
    with pytest.raises(ThreadNotOwned):
        await application.supervisor.run(**ASKED)
    assert (inbox.frames, len(store)) == ([], 0)


async def test_unknown_agent_is_refused_with_the_known_ones_and_its_run_closed() -> None:
    application, store, clock = await with_clock()
    inbox = listener(application)
    with pytest.raises(UnknownName) as refused:
        await application.supervisor.run(**{**ASKED, "agent_name": "oracle"})
    assert (refused.value.kind, refused.value.name) == ("agent", "oracle")
    assert "researcher" in refused.value.known
    assert said(inbox) == ["agent_started", "agent_error"]
    assert await lapsed(application, store, clock)


async def test_agent_that_raises_is_told_to_its_user_and_to_the_caller_and_its_run_closed() -> None:
    application, store, clock = await with_clock()
    inbox = listener(application)
    with pytest.raises(Broken, match=r"^why\?$"):
        await application.supervisor.run(**{**ASKED, "agent_name": "failing"})
    assert said(inbox) == ["agent_started", "agent_thinking", "agent_error"]
    assert payloads(inbox, EventType.AGENT_ERROR) == [
        {"error_message": "Broken: why?", "error_context": {"request": "why?"}}
    ]
    assert await lapsed(application, store, clock)


async def test_cancelled_run_tells_its_user_too_and_is_closed() -> None:
    application, store, clock = await with_clock()
    inbox = listener(application)
    ended = False
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                nonlocal ended
                try:
                    await application.supervisor.run(**{**ASKED, "agent_name": "waiting"})
                finally:
                    ended = True

            tasks.start_soon(run)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    assert ended
    assert scope.cancelled_caught
    assert said(inbox) == ["agent_started", "agent_error"]
    assert await lapsed(application, store, clock)


async def test_cancelled_run_tells_its_user_and_is_closed_also_where_that_takes_time() -> None:
    """As it does when the routes are kept by another process."""

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
    inbox = listener(application)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(application.supervisor.run, **{**ASKED, "agent_name": "waiting"}))
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert said(inbox) == ["agent_started", "agent_error"]
    assert await application.bridge.mapping.get_thread_id(inbox.frames[0].event.run_id) is None


async def test_late_event_of_a_closed_run_still_arrives_while_its_route_lingers() -> None:
    application, _, clock = await with_clock()
    inbox = listener(application)
    run_id = (await application.supervisor.run(**ASKED)).context.run_id
    clock.now += GRACE - 1
    assert await application.bridge.notify_progress_update(run_id, "researcher", {"late": True})
    clock.now += 1
    assert not await application.bridge.notify_progress_update(run_id, "researcher", {"late": True})
    assert said(inbox)[-1] == "progress_update"
    assert len(inbox.frames) == 6


@pytest.mark.parametrize("at_once", [2, 5])
async def test_runs_at_once_never_mix(at_once: int) -> None:
    application = await started()
    threads = [ThreadId(f"thread_{number}") for number in range(at_once)]
    inboxes = [listener(application, thread) for thread in threads]

    async def run(thread: ThreadId) -> None:
        await application.supervisor.run(
            agent_name="researcher", thread_id=thread, user_id=f"user of {thread}", request=f"ask {thread}"
        )

    async with anyio.create_task_group() as runs:
        for thread in threads:
            runs.start_soon(run, thread)
    for thread, inbox in zip(threads, inboxes, strict=True):
        assert len(inbox.frames) == 5
        assert payloads(inbox, EventType.AGENT_THINKING)[0]["reasoning"] == f"about ask {thread}"
        assert len({frame.event.run_id for frame in inbox.frames}) == 1


async def test_run_that_nobody_listens_to_ends_well_and_is_called_sent_nowhere() -> None:
    application = await started()
    other = listener(application, OTHER)
    answer = await application.supervisor.run(**ASKED)
    assert answer.result == {"answer": "why?!"}
    assert sum(application.counters.sent.values()) == 0
    assert application.counters.lost == {}
    assert sum(application.counters.kept.values()) == 5
    assert other.frames == []


async def lapsed(application: Application, store: MemoryMappingStore, clock: Clock) -> bool:
    """Whether one route lingers, until the grace period is over and not longer."""
    lingering = len(store)
    clock.now += GRACE
    await application.bridge.mapping.cleanup_mapping(application.supervisor._run_ids.new(THREAD))
    return (lingering, len(store)) == (1, 0)
