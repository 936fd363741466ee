"""Check how long the mapping service of a variant keeps a route, with a simulated clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bridgekit.errors import RunAlreadyMapped
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import MappingStore, MemoryMappingStore, RunThreadMappingService
from bridgekit.mapping.service import GRACE_SECONDS
from bridgekit_verify.probes.judgement import ViolationKind

__all__ = ["judge_lifetimes"]

MANY_RUNS: Final = 200
LONG_RUN_SECONDS: Final = 7 * 86_400.0
RUN, OTHER_RUN = RunId("run_1"), RunId("run_12")
THREAD, OTHER_THREAD = ThreadId("thread_1"), ThreadId("thread_12")


async def judge_lifetimes(
    create: Callable[[MappingStore], RunThreadMappingService],
) -> list[tuple[ViolationKind, str]]:
    """Return the violations. A route must stay unchanged until its grace period ends, and be gone afterwards."""
    now, found = [0.0], list[tuple[ViolationKind, str]]()
    mapping = create(MemoryMappingStore(lambda: now[0]))

    async def expect(run_id: RunId, thread_id: ThreadId | None, when: str) -> None:
        answer = await mapping.get_thread_id(run_id)
        if answer != thread_id:
            kind = ViolationKind.LOST if answer is None else ViolationKind.MISROUTED
            found.append((kind, f"{when}, the mapping has {answer or 'no route'!a} for {run_id!a}"))

    runs = {RunId(f"run_{number}"): ThreadId(f"thread_{number}") for number in range(MANY_RUNS)}
    for run_id, thread_id in runs.items():
        await mapping.register_mapping(run_id, thread_id)
    now[0] += LONG_RUN_SECONDS
    for run_id, thread_id in runs.items():
        await expect(run_id, thread_id, f"in one of {MANY_RUNS} runs of a week")
    try:
        await mapping.register_mapping(RUN, OTHER_THREAD)
    except RunAlreadyMapped:
        pass
    else:
        found.append((ViolationKind.MISROUTED, "a run that is registered again moves to another thread"))
    await mapping.cleanup_mapping(RUN)
    now[0] += GRACE_SECONDS / 2
    await expect(RUN, THREAD, "in the grace period")
    now[0] += GRACE_SECONDS
    await expect(RUN, None, "after the grace period")
    await expect(OTHER_RUN, OTHER_THREAD, "after the end of another run")
    return found
