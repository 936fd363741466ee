"""The program that is measured: agents, bridge, hub and sockets in one process, as a deployment has them.

Not the worker of the fault experiments: that one writes down every event before and after the bridge has it, which
costs more than the event.
"""

from __future__ import annotations

import gc
import time
from functools import partial
from typing import Final, assert_never
from urllib.parse import urlsplit

import anyio
import msgspec
from anyio.abc import TaskGroup

from bridgekit.chain.collaborators import MemoryThreads
from bridgekit.chain.link_1_startup import Application, Parts, create_app
from bridgekit.serve.in_process import serving
from bridgekit.stores import stores_from
from bridgekit.transport.tickets import Tickets
from bridgekit_verify.capacity.agents import Pauses, Waves
from bridgekit_verify.capacity.pipe import (
    Carry,
    Clocks,
    Done,
    Fill,
    Hold,
    Look,
    Looked,
    Open,
    Ready,
    Setup,
    Spoke,
    files_at_most,
    resident_kib,
    say,
)
from bridgekit_verify.capacity.schedule import Plan, Wave, owner
from bridgekit_verify.measure.told import told
from bridgekit_verify.measure.workload import AGENT

KEEPALIVE_SECONDS: Final = 120.0
"""Longer than a wave: a reader who does nothing but note what comes answers no pings meanwhile."""
HELD_SECONDS: Final = 86_400.0
"""Longer than any measurement."""


Question = Open | Fill | Hold | Carry | Look


async def _carry(application: Application, waves: Waves, wave: Wave) -> Spoke:
    """Let every run begin in its time, however many are under way, and wait for all of them."""
    begins = anyio.current_time() + wave.begins_at - time.time()
    taken, refused = _taken(application), _refused(application)
    waves.most = waves.failed = 0
    await anyio.sleep_until(begins)
    cpu, pauses = time.process_time(), Pauses()
    looks = list[Clocks]()

    async def look(moment: float) -> None:
        await anyio.sleep_until(begins + moment)
        looks.append(Clocks.read())

    async with anyio.create_task_group() as runs:
        gc.callbacks.append(pauses.note)
        # From when the first runs end until no more begin: before and after, fewer are under way.
        runs.start_soon(look, min(wave.plan.run_seconds, wave.plan.seconds / 2))
        runs.start_soon(look, wave.plan.seconds)
        for number, moment in enumerate(wave.begins):
            await anyio.sleep_until(begins + moment)
            runs.start_soon(waves.run, application, wave, number, begins + moment)
    gc.callbacks.remove(pauses.note)
    share, kept_waiting = looks[0].shares_until(looks[1])
    return Spoke(
        runs=len(wave.begins),
        failed=waves.failed,
        taken=_taken(application) - taken,
        refused=_refused(application) - refused,
        at_once=waves.most,
        seconds=anyio.current_time() - begins,
        cpu_seconds=time.process_time() - cpu,
        share=share,
        kept_waiting=kept_waiting,
        pauses=len(pauses.seconds),
        longest_pause=max(pauses.seconds, default=0.0),
        pauses_squared=sum(each**2 for each in pauses.seconds) / (wave.ends_at - wave.begins_at),
    )


def _taken(application: Application) -> int:
    tally = application.tally
    return sum(tally.sent.values()) + sum(tally.kept.values()) + sum(tally.pending.values())


def _refused(application: Application) -> int:
    return sum(application.tally.lost.values())


def _single(name: str, first: int, last: int, plan: Plan) -> Wave:
    """A wave of one run for each of these threads."""
    return Wave(
        name=f"{name} {first}",
        plan=plan,
        first=first,
        threads=last - first,
        runs_per_second=(last - first) / plan.seconds,
        begins_at=time.time(),
    )


async def _fill(application: Application, waves: Waves, asked: Fill) -> None:
    wave = _single("filling", asked.first, asked.last, Plan(pause_seconds=0))
    for number in range(asked.last - asked.first):
        await waves.run(application, wave, number, 0)


def _hold(application: Application, waves: Waves, asked: Hold, held: TaskGroup) -> None:
    wave = _single("held", asked.first, asked.last, Plan(pause_seconds=HELD_SECONDS))
    for number in range(asked.last - asked.first):
        held.start_soon(waves.run, application, wave, number, anyio.current_time())


async def _do(application: Application, waves: Waves, asked: Question, held: TaskGroup) -> None:
    match asked:
        case Open(first, last):
            for owned in map(owner, range(first, last)):
                await application.open_thread(owned.thread_id, owned.user_id)
            say(Done())
        case Fill():
            await _fill(application, waves, asked)
            say(Done())
        case Hold():
            _hold(application, waves, asked, held)
            await anyio.wait_all_tasks_blocked()
            say(Done())
        case Carry(wave):
            say(await _carry(application, waves, wave))
        case Look():
            say(Looked(resident_kib()))
        case _:
            assert_never(asked)


async def main() -> None:
    """Serve, and do what is asked, until there is nothing more to read."""
    lines = told()
    setup = msgspec.json.decode(await anext(lines), type=Setup)
    files_at_most()
    waves = Waves()
    app = create_app(
        Parts(
            agents={AGENT: waves.agents()},
            db_session_factory=MemoryThreads(),
            tool_dispatcher=waves.tools(),
            stores=stores_from(setup.store),
            admission=partial(Tickets, keys=(setup.key,)),
        )
    )
    questions: msgspec.json.Decoder[Question] = msgspec.json.Decoder(Question)
    async with (
        serving(app, edge=setup.edge, keepalive_seconds=KEEPALIVE_SECONDS) as url,
        anyio.create_task_group() as held,
    ):
        say(Ready(urlsplit(url).port or 0))
        async for line in lines:
            await _do(app.state.bridgekit, waves, questions.decode(line), held)
        held.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main)
