"""Each counter detects what it counts; a counter that missed calls would make the performance tests useless."""

from __future__ import annotations

import json
import os
import socket

import anyio
import anyio.lowlevel
import msgspec
import pytest

from bridgekit.ids import run_id
from tests.performance.budgets import NATIVE, ON_TRIO
from tests.performance.counting import Calls
from tests.performance.task_switches import CountingLoop, switches, wait_settled

EACH_BACKEND = pytest.mark.parametrize(
    "edge", [NATIVE, ON_TRIO], indirect=True, ids=lambda edge: edge.backend, scope="module"
)


def calls_of(source: str, **names: object) -> Calls:
    """Return the counted calls of code that is not in a test file."""
    code = compile(source, "planted.py", "exec")
    with Calls() as seen:
        exec(code, names)
    return seen


@pytest.mark.parametrize(
    "source",
    ["msgspec.json.encode({})", "msgspec.json.Encoder().encode({})", "json.dumps({})", "json.dumps({}, indent=1)"],
)
def test_each_encoding_function_is_counted(source: str) -> None:
    assert calls_of(source, json=json, msgspec=msgspec).encodings == 1


@pytest.mark.parametrize("source", ["here.send(b'x')", "here.sendall(b'x')", "here.sendmsg([b'x', b'y'])"])
def test_each_write_method_of_a_socket_is_counted(source: str) -> None:
    here, there = socket.socketpair()
    with here, there:
        assert calls_of(source, here=here).writes == {here.fileno(): 1}


def test_os_write_is_counted() -> None:
    here, there = socket.socketpair()
    with here, there:
        assert calls_of("os.write(here.fileno(), b'x')", here=here, os=os).writes.total() == 1


def test_own_functions_are_distinguished_from_others() -> None:
    seen = calls_of("sorted(map(check, 'ab'))", check=run_id)
    assert seen.ours["ids.run_id"] == seen.all["ids.run_id"] == 2
    assert seen.all["sorted"] == 1
    assert seen.ours["sorted"] == 0
    assert seen.lines["ids.run_id"] == 2


@EACH_BACKEND
async def test_steps_of_other_tasks_are_counted_but_not_those_of_the_caller() -> None:
    async def walk() -> None:
        for _ in range(5):
            await anyio.lowlevel.checkpoint()

    with switches() as counted:
        async with anyio.create_task_group() as tasks:
            await walk()
            tasks.start_soon(walk)
    assert counted.steps == 6


@pytest.mark.parametrize("edge", [NATIVE], indirect=True, ids=["asyncio"], scope="module")
async def test_callbacks_are_counted_and_timers_do_not_fire() -> None:
    loop = CountingLoop.running()
    rung: list[str] = []
    loop.call_later(0.0, rung.append, "a timer that was due")
    with switches() as counted:
        loop.call_soon(rung.append, "a callback")
        await wait_settled()
    assert rung == ["a callback"]
    assert counted.callbacks == 1
    await wait_settled()
    assert len(rung) == 2
