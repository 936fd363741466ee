"""Check how long the mapping service of a variant keeps a route, with a simulated clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bridgekit.errors import RunAlreadyMapped
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import MappingStore, MemoryMappingStore, RunThreadMappingService
from bridgekit.mapping.service import GRACE_SECONDS
from bridgekit_verify.probes.judgement import ViolationKind, error_text, shown

__all__ = ["judge_lifetimes"]

MANY_RUNS: Final = 2_500
LONG_RUN_SECONDS: Final = 7 * 86_400.0
RUN, OTHER_RUN = RunId("run_1"), RunId("run_12")
_LONG: Final = f"run_{'x' * 300}"
CONFUSABLE_RUNS: Final = ("Run_1", "run_1 ", " run_1", "run_\u00e9", "run_e\u0301", f"{_LONG}a", f"{_LONG}b")
THREAD, OTHER_THREAD = ThreadId("thread_1"), ThreadId("thread_12")


async def judge_lifetimes(
    create: Callable[[MappingStore], RunThreadMappingService],
) -> list[tuple[ViolationKind, str]]:
    """Return the violations. A route must stay unchanged until its grace period ends, and be gone afterwards."""
    now = [0.0]
    try:
        routes = _Routes(create(MemoryMappingStore(lambda: now[0])))
        await _play(routes, now)
    except Exception as error:
        if _raised_here(error):
            raise
        return [(ViolationKind.LOST, f"the mapping {error_text(error)}")]
    return routes.found


async def _play(routes: _Routes, now: list[float]) -> None:
    runs = {RunId(f"run_{number}"): ThreadId(f"thread_{number}") for number in range(MANY_RUNS)}
    runs |= {RunId(name): ThreadId(f"thread of {name}") for name in CONFUSABLE_RUNS}
    for run_id, thread_id in runs.items():
        await routes.expect(run_id, None, "before the run")
        await routes.register(run_id, thread_id, f"in one of {MANY_RUNS} runs")
    now[0] += LONG_RUN_SECONDS
    for run_id, thread_id in runs.items():
        await routes.expect(run_id, thread_id, f"in one of {MANY_RUNS} runs of a week")
    await routes.move(RUN, OTHER_THREAD)
    await routes.mapping.cleanup_mapping(RUN)
    now[0] += GRACE_SECONDS / 2
    await routes.expect(RUN, THREAD, "in the grace period")
    now[0] += GRACE_SECONDS
    await routes.expect(RUN, None, "after the grace period")
    await routes.expect(OTHER_RUN, OTHER_THREAD, "after the end of another run")
    await routes.register(RUN, THREAD, "after the grace period")
    await routes.expect(RUN, THREAD, "in a run that is opened again after its grace period")
    await routes.mapping.cleanup_mapping(OTHER_RUN)
    await routes.register(OTHER_RUN, OTHER_THREAD, "in the grace period")
    now[0] += LONG_RUN_SECONDS
    await routes.expect(OTHER_RUN, OTHER_THREAD, "in a run that is opened again in its grace period")


def _raised_here(error: Exception) -> bool:
    """Return whether this module, and not the mapping, raised the error."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    return step is not None and step.tb_frame.f_globals["__name__"] == __name__


class _Routes:
    """A mapping service under test, and its violations."""

    def __init__(self, mapping: RunThreadMappingService) -> None:
        self.mapping = mapping
        self.found: list[tuple[ViolationKind, str]] = []

    async def expect(self, run_id: RunId, thread_id: ThreadId | None, when: str) -> None:
        answer = await self.mapping.get_thread_id(run_id)
        if answer != thread_id:
            kind = ViolationKind.LOST if answer is None else ViolationKind.MISROUTED
            self.found.append((kind, f"{when}, the mapping has {answer or 'no route'!a} for {shown(run_id)}"))

    async def register(self, run_id: RunId, thread_id: ThreadId, when: str) -> None:
        try:
            await self.mapping.register_mapping(run_id, thread_id)
        except RunAlreadyMapped as error:
            self.found.append((ViolationKind.LOST, f"{when}, {error_text(error)}"))

    async def move(self, run_id: RunId, thread_id: ThreadId) -> None:
        try:
            await self.mapping.register_mapping(run_id, thread_id)
        except RunAlreadyMapped:
            return
        self.found.append((ViolationKind.MISROUTED, "a run that is registered again moves to another thread"))
