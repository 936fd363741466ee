"""The load of a trial: a run with the fault in the middle of it, and one after the fault."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

import anyio

from bridgekit.errors import ShuttingDown, StoreUnavailable
from bridgekit_verify.faults.trials.acts import Act, Scene
from bridgekit_verify.faults.trials.deployment import WorkerProcess
from bridgekit_verify.faults.trials.recorder import Reader, Recorder
from bridgekit_verify.faults.trials.worker import RunRequest
from bridgekit_verify.measure.families import OwnedThread

__all__ = ["EVENTS_A_STEP", "SETTLE_SECONDS", "AgentLoad", "TrialPlan", "run_after_fault", "run_during_fault"]

RETRYABLE: Final = (StoreUnavailable.__name__, ShuttingDown.__name__)
"""Errors of a refused run that its user may request again."""
RETRY_SECONDS: Final = 0.1
NO_RESUME_WAIT_SECONDS: Final = 1.0
"""How long a client that does not resume is waited for: what has not arrived by then will not."""
EVENTS_A_STEP: Final = 3
MAX_RUNS_BEFORE_FAULT: Final = 10
"""On a busy machine a first run may be nearly over before the fault can begin; then another one is started."""
SETTLE_SECONDS: Final = 60.0
"""How long users may take, after the fault, to read what is still to come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlan:
    """How long things last. A step is three events."""

    steps: int = 20
    pace_seconds: float = 0.05
    begins_seconds: float = 0.3
    """When the fault begins, from the first run's start."""
    lasts_seconds: float = 0.4
    after_steps: int = 4
    """Steps of a second run, after the fault. When its end is read, the first run's events have arrived or are lost."""

    @property
    def seconds(self) -> float:
        """How long both runs take, without the repair."""
        return (self.steps + self.after_steps) * self.pace_seconds + self.lasts_seconds


@dataclass
class AgentLoad:
    """The runs of one experiment. Time passes for its fault as it does for its agents.

    On a busy machine a fault of so many seconds might else meet no event, and cost nothing.
    """

    name: str
    """Of the experiment."""
    plan: TrialPlan
    act: Act
    recorder: Recorder
    requests: Sequence[str] = ()

    async def meanwhile(self, seconds: float) -> None:
        """Wait for so many seconds, and until agents have emitted what they emit in that time."""
        steps = max(int(seconds / self.plan.pace_seconds) - 1, 1)
        wanted = {request: self.recorder.emitted[request] + EVENTS_A_STEP * steps for request in self.requests}
        await anyio.sleep(seconds)
        with anyio.move_on_after(SETTLE_SECONDS):
            await self.recorder.wait_emitted(wanted)

    @property
    def before_half(self) -> bool:
        """Whether less than half of each run was emitted."""
        most = max(self.recorder.emitted[request] for request in self.requests)
        return most <= EVENTS_A_STEP * self.plan.steps / 2

    def request(self, owned: OwnedThread, when: str, steps: int) -> RunRequest:
        """A run of that thread, and whose it is."""
        # The worker reads the experiment's name up to the first colon; what agents think begins with the request, a
        # colon and a space.
        request = f"{self.name}:{owned.thread_id}:{when}"
        self.recorder.owners[request] = owned
        return RunRequest(
            request=request,
            thread_id=owned.thread_id,
            user_id=owned.user_id,
            steps=steps,
            pace_seconds=self.plan.pace_seconds,
            padding_bytes=self.act.padding_bytes,
        )


async def run_during_fault(load: AgentLoad, scene: Scene, owned: Sequence[OwnedThread]) -> tuple[float, float]:
    """Start the first runs, and the fault in the middle of them; return the window of the fault."""
    plan, recorder = load.plan, load.recorder
    for number in range(1, MAX_RUNS_BEFORE_FAULT + 1):
        runs = [load.request(each, f"during {number}", plan.steps) for each in owned]
        load.requests = [run.request for run in runs]
        for run in runs:
            await scene.deployment.agents.start_run(run)
        await load.meanwhile(plan.begins_seconds)
        if load.before_half or number == MAX_RUNS_BEFORE_FAULT:
            break
        await recorder.wait_ended(load.requests)
    start = time.time()
    await load.act.during(scene, plan.lasts_seconds)
    end = time.time()
    with anyio.move_on_after(SETTLE_SECONDS):
        await recorder.wait_ended(load.requests)
    return start, end


async def run_after_fault(load: AgentLoad, scene: Scene, owned: OwnedThread, reader: Reader) -> None:
    """Run until the user has read the end of a run: then everything before it has arrived or is lost.

    A client that does not resume may lose this end too, where it has not yet noticed that its socket is gone; then
    another run is started.
    """
    timeout = SETTLE_SECONDS if scene.deployment.delivery.resumes else NO_RESUME_WAIT_SECONDS
    for number in count(1):
        run = load.request(owned, f"after {number}", load.plan.after_steps)
        await reader.wait_online()
        await _run_until_accepted(scene.deployment.agents, run, load.recorder)
        with anyio.move_on_after(timeout):
            await reader.wait_ended(run.request)
            return


async def _run_until_accepted(agents: WorkerProcess, run: RunRequest, recorder: Recorder) -> None:
    """Start a run; where it is refused for the moment, start it again, as its user would."""
    while True:
        await agents.start_run(run)
        await recorder.wait_ended([run.request])
        error = recorder.ended.pop(run.request)
        if not error.startswith(RETRYABLE):
            return
        await anyio.sleep(RETRY_SECONDS)
