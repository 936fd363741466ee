"""The agent load of a trial, during the fault and after the fault."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

import anyio

from bridgekit.errors import ShuttingDown, StoreUnavailable
from bridgekit_verify.faults.trials.deployment import WorkerProcess
from bridgekit_verify.faults.trials.fault_catalogue import Fault, FaultContext
from bridgekit_verify.faults.trials.recorder import Reader, Recorder
from bridgekit_verify.faults.trials.worker_process import RunRequest
from bridgekit_verify.measure.thread_id_families import OwnedThread

__all__ = ["EVENTS_A_STEP", "SETTLE_SECONDS", "AgentLoad", "TrialPlan", "run_after_fault", "run_during_fault"]

RETRYABLE: Final = (StoreUnavailable.__name__, ShuttingDown.__name__)
"""Names of the errors after which a client may repeat its request for a run."""
RETRY_SECONDS: Final = 0.1
NO_RESUME_WAIT_SECONDS: Final = 1.0
"""How long a client that does not resume may take to read the end of a run before another run starts."""
EVENTS_A_STEP: Final = 3
MAX_RUNS_BEFORE_FAULT: Final = 10
"""Limit on a thread's runs before the fault. If a run is more than half done, another run starts before the fault."""
SETTLE_SECONDS: Final = 60.0
"""How long clients may take after the fault to read the remaining events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlan:
    """The timing of a trial: the number and pace of steps with three events each, and when the fault acts."""

    steps: int = 20
    pace_seconds: float = 0.05
    start_seconds: float = 0.3
    """Time from the start of the first run to the start of the fault."""
    duration_seconds: float = 0.4
    after_steps: int = 4
    """Steps of the run after the fault. When this run ends, all earlier events have arrived or are lost."""

    @property
    def seconds(self) -> float:
        """The planned duration of a trial, without the time for repairs."""
        return (self.steps + self.after_steps) * self.pace_seconds + self.duration_seconds


@dataclass
class AgentLoad:
    """The agent runs of one experiment. A network fault lasts longer than planned if due events are not emitted yet.

    With a fixed duration, agents on a busy machine might emit no event during the fault.
    """

    name: str
    """Name of the experiment."""
    plan: TrialPlan
    fault: Fault
    recorder: Recorder
    requests: Sequence[str] = ()

    async def run_agents_for(self, seconds: float) -> None:
        """Wait for `seconds`, and then at most SETTLE_SECONDS for the events that were due within `seconds`."""
        steps = max(int(seconds / self.plan.pace_seconds) - 1, 1)
        wanted = {request: self.recorder.emitted[request] + EVENTS_A_STEP * steps for request in self.requests}
        await anyio.sleep(seconds)
        with anyio.move_on_after(SETTLE_SECONDS):
            await self.recorder.wait_emitted(wanted)

    @property
    def before_half(self) -> bool:
        """Whether each run has emitted at most half of its events."""
        most = max(self.recorder.emitted[request] for request in self.requests)
        return most <= EVENTS_A_STEP * self.plan.steps / 2

    def request(self, owned: OwnedThread, when: str, steps: int) -> RunRequest:
        """Return a run request for this thread, and record the thread's owner."""
        # WorkerProcess takes the text before the first colon as the experiment's name. The text of a thought is the
        # request, followed by a colon and a space.
        request = f"{self.name}:{owned.thread_id}:{when}"
        self.recorder.owners[request] = owned
        return RunRequest(
            request=request,
            thread_id=owned.thread_id,
            user_id=owned.user_id,
            steps=steps,
            pace_seconds=self.plan.pace_seconds,
            padding_bytes=self.fault.padding_bytes,
        )


async def run_during_fault(load: AgentLoad, context: FaultContext, owned: Sequence[OwnedThread]) -> tuple[float, float]:
    """Start the first runs, apply the fault while they emit, and return the start and end of the fault."""
    plan, recorder = load.plan, load.recorder
    for number in range(1, MAX_RUNS_BEFORE_FAULT + 1):
        runs = [load.request(each, f"during {number}", plan.steps) for each in owned]
        load.requests = [run.request for run in runs]
        for run in runs:
            await context.deployment.agents.start_run(run)
        await load.run_agents_for(plan.start_seconds)
        if load.before_half or number == MAX_RUNS_BEFORE_FAULT:
            break
        await recorder.wait_ended(load.requests)
    start = time.time()
    await load.fault.apply(context, plan.duration_seconds)
    end = time.time()
    with anyio.move_on_after(SETTLE_SECONDS):
        await recorder.wait_ended(load.requests)
    return start, end


async def run_after_fault(load: AgentLoad, context: FaultContext, owned: OwnedThread, reader: Reader) -> None:
    """Start runs until the client has read the end of a run. Every earlier event has then arrived or is lost.

    A client that does not resume loses the end of a run if it has not yet detected that its connection broke.
    """
    timeout = SETTLE_SECONDS if context.deployment.delivery.resumes else NO_RESUME_WAIT_SECONDS
    for number in count(1):
        run = load.request(owned, f"after {number}", load.plan.after_steps)
        await reader.wait_online()
        await _run_until_accepted(context.deployment.agents, run, load.recorder)
        with anyio.move_on_after(timeout):
            await reader.wait_ended(run.request)
            return


async def _run_until_accepted(agents: WorkerProcess, run: RunRequest, recorder: Recorder) -> None:
    """Start a run, and retry while it fails with a temporary error, as a client would."""
    while True:
        await agents.start_run(run)
        await recorder.wait_ended([run.request])
        error = recorder.ended.pop(run.request)
        if not error.startswith(RETRYABLE):
            return
        await anyio.sleep(RETRY_SECONDS)
