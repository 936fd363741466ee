"""A fault lasts until agents have emitted the due events, also on a busy machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import anyio

from bridgekit.events import EventType
from bridgekit_verify.faults.trials.fault_catalogue import FAULTS
from bridgekit_verify.faults.trials.load import AgentLoad, TrialPlan
from bridgekit_verify.faults.trials.recorder import Recorder
from bridgekit_verify.faults.trials.worker_process import Attempted, Ended
from bridgekit_verify.measure.history import EventKey
from bridgekit_verify.measure.thread_id_families import thread_ids

[OWNED] = thread_ids("chat_<n>", 1)
RUN = "down:chat:during 1"
PLAN = TrialPlan(steps=4, pace_seconds=0.01)


@dataclass
class WatchedRecorder(Recorder):
    """A recorder with an event for the start of the wait for emitted events."""

    waiting: anyio.Event = field(default_factory=anyio.Event)

    async def wait_emitted(self, wanted: Mapping[str, int]) -> None:
        self.waiting.set()
        await super().wait_emitted(wanted)


def started() -> tuple[WatchedRecorder, AgentLoad]:
    recorder = WatchedRecorder(owners={RUN: OWNED})
    return recorder, AgentLoad("down", PLAN, FAULTS["down"], recorder, [RUN])


def emit(recorder: Recorder, count: int) -> None:
    for number in range(count):
        key = EventKey(RUN, EventType.AGENT_THINKING, recorder.emitted[RUN] + number)
        recorder.record(Attempted(key, OWNED.thread_id, 0.0))


async def test_wait_ends_when_the_time_is_over_and_due_events_are_emitted() -> None:
    recorder, load = started()
    passed = anyio.Event()

    async def wait() -> None:
        await load.run_agents_for(0.03)
        passed.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        emit(recorder, 5)
        await recorder.waiting.wait()
        await anyio.wait_all_tasks_blocked()
        assert not passed.is_set()
        emit(recorder, 1)
        await passed.wait()


async def test_ended_run_does_not_prolong_the_wait() -> None:
    recorder, load = started()
    recorder.record(Ended(RUN, ""))
    await load.run_agents_for(0.0)


async def test_fault_starts_in_the_first_half_of_a_run() -> None:
    recorder, load = started()
    emit(recorder, 6)
    assert load.before_half
    emit(recorder, 1)
    assert not load.before_half
