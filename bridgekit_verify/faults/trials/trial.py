"""One fault in one deployment: agents emit, the fault is applied and repaired, and the checker judges every event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import anyio
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from bridgekit.chain.collaborators import MemoryThreadStore
from bridgekit.errors import unwrap_single_error
from bridgekit.transport.tickets import Tickets
from bridgekit.transport.used_tickets import MemoryUsedTickets
from bridgekit_verify.faults.proxy import proxy
from bridgekit_verify.faults.trials.deployment import DeliveryMode, Deployment
from bridgekit_verify.faults.trials.fault_catalogue import Fault, FaultContext, FaultTarget
from bridgekit_verify.faults.trials.load import SETTLE_SECONDS, AgentLoad, TrialPlan, run_after_fault, run_during_fault
from bridgekit_verify.faults.trials.recorder import Reader, Recorder, read_and_resume, read_without_resume
from bridgekit_verify.measure.checker import Verdict, check
from bridgekit_verify.measure.families import OwnedThread
from bridgekit_verify.measure.history import Arrival, EventKey, History, Socket
from bridgekit_verify.measure.ledger import Row, ledger
from bridgekit_verify.measure.plots import BLUE, LOST, VERMILLION, new_figure

__all__ = ["Trial", "TrialPlan", "latency_figure", "run_trial"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The result of one fault in one deployment."""

    delivery: DeliveryMode
    fault: Fault
    plan: TrialPlan
    history: History
    verdict: Verdict
    window: tuple[float, float]
    """When the fault started and when it was repaired, in seconds since the Unix epoch."""
    unanswered: int
    """Events without an acknowledgement, because their worker was killed. They do not count as lost."""
    attempted_at: Mapping[EventKey, float]
    """When each event was attempted, in seconds since the Unix epoch."""
    quiesced: bool
    """Whether every user read the end of the last run before the timeout."""
    readers: Sequence[Reader]

    @property
    def emission_window(self) -> tuple[float, float]:
        """When the first and the last event were attempted."""
        return min(self.attempted_at.values()), max(self.attempted_at.values())

    @property
    def ledger(self) -> list[Row]:
        """One row for each event and entitled socket."""
        return ledger(self.history)

    @property
    def sent_twice(self) -> int:
        """Events that a socket received again. The resuming client drops them."""
        return sum(reader.duplicates for reader in self.readers)

    @property
    def first_copies(self) -> list[Arrival]:
        """The first copy of each event at each socket, in the order of arrival."""
        seen: dict[tuple[int, EventKey | None], Arrival] = {}
        for arrival in self.history.arrivals:
            seen.setdefault((arrival.socket.number, arrival.key), arrival)
        return list(seen.values())

    @property
    def lost_moments(self) -> list[float]:
        """When each event that its user never read was attempted, in seconds since the Unix epoch."""
        return [self.attempted_at[row.expectation.key] for row in self.ledger if not row.copies]

    @property
    def closed_form(self) -> float | None:
        """The predicted share of delivered events if exactly the events emitted while a user is offline are lost.

        Events are emitted at an even pace for a time `T`, of which the user is offline for `w`: 1 - w / T is delivered.
        None if the delivery mode resumes, or the fault overflows buffers or does not act on the network. (For example,
        the agents of a killed worker emit nothing meanwhile.)
        """
        if self.delivery.resumes or self.fault.target is not FaultTarget.NETWORK or self.fault.overflows:
            return None
        start, end = self.emission_window
        blind = [self.window] if self.fault.drops else []
        offline = [_offline_seconds(reader.online, blind, start, end) for reader in self.readers]
        return 1 - sum(offline) / (len(offline) * (end - start))


Span = tuple[float, float]


def _offline_seconds(online: Sequence[Span], blind: Sequence[Span], start: float, end: float) -> float:
    """Return the seconds from `start` to `end` in which no socket was subscribed or a subscribed one got nothing."""
    moments = sorted({start, end, *(moment for span in (*online, *blind) for moment in span if start < moment < end)})
    return sum(
        later - earlier
        for earlier, later in pairwise(moments)
        if not _within(online, earlier, later) or _within(blind, earlier, later)
    )


def _within(spans: Sequence[Span], first: float, last: float) -> bool:
    return any(start <= first and last <= end for start, end in spans)


async def run_trial(
    fault: Fault,
    deployment: Deployment,
    owned: Sequence[OwnedThread],
    *,
    plan: TrialPlan,
    seed: int = 0,
    name: str = "",
) -> Trial:
    """Run agents for these users, apply and repair the fault, wait for the remaining events, and check the history.

    `owned` are threads of the deployment that no other experiment uses meanwhile. `name` names this experiment.
    Raises LedgerImbalance if the counts of the ledger do not add up.
    """
    name = name or fault.name
    recorder, delivery = Recorder(), deployment.delivery
    load = AgentLoad(name, plan, fault, recorder)
    with ExitStack() as observing, unwrap_single_error():
        for worker in {deployment.agents, deployment.sockets}:
            worker.observers[name] = recorder.record
            observing.callback(worker.observers.pop, name)
        async with proxy("127.0.0.1", deployment.sockets.port) as users, anyio.create_task_group() as tasks:
            tickets = await _tickets(deployment, owned)
            readers = [
                Reader(Socket(number, each.thread_id, each.user_id), users.url(), partial(_ticket, tickets, each))
                for number, each in enumerate(owned)
            ]
            read = read_and_resume if delivery.resumes else read_without_resume
            for reader in readers:
                await tasks.start(read, reader)
            context = FaultContext(deployment, users, seed, load.run_agents_for)
            window = await run_during_fault(load, context, owned)
            with anyio.move_on_after(SETTLE_SECONDS) as settling:
                for reader, each in zip(readers, owned, strict=True):
                    await run_after_fault(load, context, each, reader)
            tasks.cancel_scope.cancel()
    history, unanswered = recorder.complete(readers)
    return Trial(
        delivery=delivery,
        fault=fault,
        plan=plan,
        history=history,
        verdict=check(history),
        window=window,
        unanswered=unanswered,
        attempted_at=recorder.attempted_at,
        quiesced=not settling.cancelled_caught,
        readers=readers,
    )


async def _tickets(deployment: Deployment, owned: Sequence[OwnedThread]) -> Tickets:
    """Issue the users' tickets outside the workers, as an application does whose tickets survive a worker's restart."""
    threads = MemoryThreadStore()
    for each in owned:
        await threads.claim(each.thread_id, each.user_id)
    return Tickets(threads, MemoryUsedTickets(), keys=(deployment.key,))


async def _ticket(tickets: Tickets, owned: OwnedThread) -> str:
    return tickets.issue(owned.user_id, owned.thread_id)


def latency_title(trials: Sequence[Trial]) -> str:
    """State how many events of these trials were lost, and how late the latest one was read."""
    latest = max((each.read_at - each.emitted_at for trial in trials for each in trial.first_copies), default=0.0)
    lost, expected = (sum(getattr(trial.verdict, name) for trial in trials) for name in ("lost", "expected"))
    return f"Events are late while a fault lasts, up to {latest:.1f} s: {lost:,} of {expected:,} are lost"


def latency_figure(trials: Sequence[Trial]) -> Figure:
    """Draw one panel for each trial: each event's latency by emission time, with the window of the fault shaded.

    Lost events are crosses at the bottom of the panel.
    """
    columns = 2 if len(trials) > 1 else 1
    rows = max(-(-len(trials) // columns), 1)
    with new_figure(latency_title(trials), 4.6 * columns, 0.9 + 2.1 * rows) as figure:
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
        for unused in axes[len(trials) :]:
            unused.set_visible(False)
        for axis, trial in zip(axes[: len(trials)], trials, strict=True):
            _latencies(axis, trial)
        figure.supxlabel("emitted, s after the first event", fontsize=10)
        figure.supylabel("from emission to the user, ms", fontsize=10)
        return figure


def _latencies(axis: Axes, trial: Trial) -> None:
    start = trial.emission_window[0]
    axis.axvspan(trial.window[0] - start, trial.window[1] - start, color=LOST, linewidth=0, label="fault")
    points = [
        (arrival.emitted_at - start, 1_000 * (arrival.read_at - arrival.emitted_at)) for arrival in trial.first_copies
    ]
    axis.scatter([x for x, _ in points], [y for _, y in points], s=9, color=BLUE, label="read")
    if lost := trial.lost_moments:
        # Placed in axes coordinates: at the bottom of the panel, independent of its scale.
        axis.scatter(
            [moment - start for moment in lost],
            [0.06] * len(lost),
            s=24,
            marker="x",
            color=VERMILLION,
            label="lost",
            transform=axis.get_xaxis_transform(),
        )
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.set_ylim(0.3, 5_000)
    axis.set_title(f"{trial.fault.name}, {trial.delivery.name}", fontsize=10.5)
    axis.legend(frameon=False, fontsize=8.5, loc="upper right")
