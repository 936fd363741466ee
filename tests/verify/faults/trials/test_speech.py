"""A fault lasts until agents have said what they say in that time, however busy the machine is."""

from __future__ import annotations

import anyio

from bridgekit.events import EventType
from bridgekit_verify.faults.trials.notes import Notes
from bridgekit_verify.faults.trials.speech import Plan, Speech
from bridgekit_verify.faults.trials.worker import Attempted, Ended
from bridgekit_verify.measure.families import family
from bridgekit_verify.measure.history import Key

[OWNED] = family("chat_<n>", 1)
RUN = "down:chat:during 1"
PLAN = Plan(steps=4, pace_seconds=0.01)


def noted() -> tuple[Notes, Speech]:
    notes = Notes(owners={RUN: OWNED})
    return notes, Speech(PLAN, notes, [RUN])


def say(notes: Notes, count: int) -> None:
    for number in range(count):
        key = Key(RUN, EventType.AGENT_THINKING, notes.said[RUN] + number)
        notes.hear(Attempted(key, OWNED.thread_id, 0.0))


async def test_time_passes_when_it_is_over_and_agents_have_said_what_is_due() -> None:
    notes, speech = noted()
    passed = anyio.Event()

    async def wait() -> None:
        await speech.meanwhile(0.03)
        passed.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        say(notes, 5)
        await anyio.sleep(0.05)
        assert not passed.is_set()
        say(notes, 1)
        await passed.wait()


async def test_run_that_is_over_says_nothing_more_and_is_not_waited_for() -> None:
    notes, speech = noted()
    notes.hear(Ended(RUN, ""))
    await speech.meanwhile(0.0)


async def test_fault_begins_in_the_first_half_of_a_run() -> None:
    notes, speech = noted()
    say(notes, 6)
    assert speech.far_from_over
    say(notes, 1)
    assert not speech.far_from_over
