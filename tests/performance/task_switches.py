"""Task switches, counted on loops that do nothing by the clock; and how to let a server do all that it has to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final, TypeVarTuple

import anyio
import trio

__all__ = ["StillLoop", "Switches", "settled", "switches"]

TURNS: Final = 10_000
"""After so many turns of a loop something goes round in circles."""

Arguments = TypeVarTuple("Arguments")


@dataclass
class Switches:
    """What a loop did beside the task that counts."""

    steps: int = 0
    """How often any other task was begun or went on."""
    callbacks: int = 0
    """What was called that is no task; asyncio only."""


class StillLoop(asyncio.SelectorEventLoop):
    """Notes what it is asked to call; its clock stands still while it counts, so that no timer comes between."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.counted: Switches | None = None
        self._counts_for: asyncio.Task[Any] | None = None
        self._begun_at = super().time()

    @classmethod
    def running(cls) -> StillLoop:
        """The loop that runs. RuntimeError where none of asyncio's does, TypeError where it is of another kind."""
        loop = asyncio.get_running_loop()
        if not isinstance(loop, cls):
            raise TypeError(f"only a StillLoop counts, not {type(loop).__name__}")
        return loop

    def time(self) -> float:
        # While it counts, a time before that of every timer: also of those that are due and had no turn yet.
        return super().time() if self.counted is None else self._begun_at

    def call_soon(
        self, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        self.asked += 1
        if self.counted is not None:
            self._count(callback)
        return super().call_soon(callback, *args, context=context)

    def _count(self, callback: object) -> None:
        assert self.counted is not None
        # The task whose step it is; how asyncio itself tells a step from a callback when it is slow.
        task = getattr(callback, "__self__", None)
        if not isinstance(task, asyncio.Task):
            self.counted.callbacks += 1
        elif task is not self._counts_for:
            self.counted.steps += 1

    @contextmanager
    def counting(self) -> Iterator[Switches]:
        self._counts_for = asyncio.current_task()
        self.counted = Switches()
        try:
            yield self.counted
        finally:
            self.counted = self._counts_for = None


class _Steps(trio.abc.Instrument):
    def __init__(self) -> None:
        self.counted = Switches()
        self._counts_for = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.counted.steps += task is not self._counts_for


@contextmanager
def switches() -> Iterator[Switches]:
    """Count task switches in the block, on either backend, but for those of the task that asks."""
    loop = _still_loop()
    if loop is not None:
        with loop.counting() as counted:
            yield counted
        return
    steps = _Steps()
    trio.lowlevel.add_instrument(steps)
    try:
        yield steps.counted
    finally:
        trio.lowlevel.remove_instrument(steps)


async def settled() -> None:
    """Return when nothing is left that could be done without the clock, or somebody on the other end of a socket."""
    loop = _still_loop()
    if loop is None:
        await anyio.wait_all_tasks_blocked()
        return
    quiet = 0
    for _ in range(TURNS):
        asked = loop.asked
        await asyncio.sleep(0)
        # Once for this task itself. What a socket brings is seen by the turn after.
        quiet = quiet + 1 if loop.asked == asked + 1 else 0
        if quiet == 3:
            return
    raise RuntimeError(f"the loop did not come to rest within {TURNS:,} turns")


def _still_loop() -> StillLoop | None:
    """The loop, where it is asyncio's."""
    try:
        return StillLoop.running()
    except RuntimeError:
        return None
