"""Run one trial: agents emit, a fault is applied to a deployment and repaired, and the checker judges all events."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import anyio
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from bridgekit.chain.models_tools_and_owners import MemoryThreadStore
from bridgekit.errors import unwrap_single_error
from bridgekit.transport.tickets import Tickets
from bridgekit.transport.used_tickets import MemoryUsedTickets
from bridgekit_verify.faults.proxy import proxy
from bridgekit_verify.faults.trials.deployment import DeliveryMode, Deployment
from bridgekit_verify.faults.trials.fault_catalogue import Fault, FaultContext, FaultTarget
from bridgekit_verify.faults.trials.load import SETTLE_SECONDS, AgentLoad, TrialPlan, run_after_fault, run_during_fault
from bridgekit_verify.faults.trials.recorder import Reader, Recorder, read_and_resume, read_without_resume
from bridgekit_verify.measure.checker import Verdict, check
from bridgekit_verify.measure.history import Arrival, EventKey, History, Socket
from bridgekit_verify.measure.ledger import Row, ledger
from bridgekit_verify.measure.plots import BLUE, LOST, VERMILLION, new_figure
from bridgekit_verify.measure.thread_id_families import OwnedThread

__all__ = ["Trial", "TrialPlan", "latency_figure", "missed_events", "run_trial"]


def missed_events(reader: Reader, emitted: Sequence[float]) -> list[int]:
    """Return, for each reconnection, how many of the thread's events the user missed.

    Missed events are those after the last event that the user read, up to the start of the next subscription. Events
    that were written to the socket before the connection broke, and never read, are included. Only the reader knows
    whether an event was read, so the time of the break is not used (Saltzer, Reed and Clark, "End-to-end arguments in
    system design", ACM Transactions on Computer Systems 2, 1984, section 2). For a client that does not resume, the
    server confirms the `seq` after which a subscription starts. For a client that resumes, the start is estimated as
    the number of events emitted before the subscription, with an error of at most one step. `emitted` contains the
    emission times in seconds, in order.
    """
    found = []
    for number, (before, after) in enumerate(pairwise(reader.online), start=1):
        last_read = max(
            [arrival.seq for arrival in reader.arrivals if arrival.read_at <= before[1]],
            default=reader.starts[0] if reader.starts else 0,
        )
        start = reader.starts[number] if reader.starts else bisect_right(emitted, after[0])
        found.append(max(start - last_read, 0))
    return found


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The result of one fault in one deployment."""

    delivery: DeliveryMode
    fault: Fault
    plan: TrialPlan
    history: History
    verdict: Verdict
    window: tuple[float, float]
    """Start and repair of the fault, in seconds since the Unix epoch."""
    unanswered: int
    """How many events a killed worker did not acknowledge and no client read. The verdict leaves these events out."""
    attempted_at: Mapping[EventKey, float]
    """When the agent attempted to emit each event, in seconds since the Unix epoch."""
    quiesced: bool
    """Whether every user read the end of the last run before the timeout."""
    readers: Sequence[Reader]

    @property
    def emission_window(self) -> tuple[float, float]:
        """The times of the first and the last attempted event."""
        return min(self.attempted_at.values()), max(self.attempted_at.values())

    @property
    def ledger(self) -> list[Row]:
        """One row for each event and entitled socket."""
        return ledger(self.history)

    @property
    def sent_twice(self) -> int:
        """The number of duplicated events that the resuming clients received and dropped."""
        return sum(reader.duplicates for reader in self.readers)

    @property
    def lost_run_ends(self) -> int:
        """The number of end events that another process sent for the runs of a killed worker."""
        return sum(reader.lost_run_ends for reader in self.readers)

    @property
    def first_copies(self) -> list[Arrival]:
        """The first copy of each event at each socket, in the order of arrival."""
        seen: dict[tuple[int, EventKey | None], Arrival] = {}
        for arrival in self.history.arrivals:
            seen.setdefault((arrival.socket.number, arrival.key), arrival)
        return list(seen.values())

    @property
    def longest_latency(self) -> float:
        """The longest time from an event's emission to its arrival, in seconds, or 0 if no event arrived."""
        return max((each.read_at - each.emitted_at for each in self.first_copies), default=0.0)

    @property
    def lost_moments(self) -> list[float]:
        """When the agent attempted to emit the events that their user never read, in seconds since the Unix epoch."""
        return [self.attempted_at[row.expectation.key] for row in self.ledger if not row.copies]

    @property
    def missed(self) -> list[int]:
        """The number of missed events, for each reconnection of each user."""
        return [count for reader in self.readers for count in missed_events(reader, self._emitted(reader))]

    def _emitted(self, reader: Reader) -> list[float]:
        thread = reader.socket.thread_id
        return sorted(self.attempted_at[each.key] for each in self.history.expected if each.thread_id == thread)

    @property
    def predicted_delivered(self) -> int | None:
        """The predicted number of delivered events, if exactly the missed events are lost.

        None if clients resume, or if the fault overflows buffers or does not act on the network. (For example, the
        agents of a killed worker emit no events until its restart.)
        """
        if self.delivery.resumes or self.fault.target is not FaultTarget.NETWORK or self.fault.overflows:
            return None
        return self.verdict.expected - sum(self.missed)


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

    `owned` are threads of the deployment that no other concurrent experiment uses. `name` identifies the experiment.
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
    """Return the issuer of the users' tickets. The issuer is outside the workers, and survives their restarts."""
    threads = MemoryThreadStore()
    for each in owned:
        await threads.claim(each.thread_id, each.user_id)
    return Tickets(threads, MemoryUsedTickets(generation=""), keys=(deployment.key,))


async def _ticket(tickets: Tickets, owned: OwnedThread) -> str:
    return tickets.issue(owned.user_id, owned.thread_id)


def latency_title(trials: Sequence[Trial]) -> str:
    """State how many events of these trials were lost, and the longest latency."""
    latest = max((trial.longest_latency for trial in trials), default=0.0)
    lost, expected = (sum(getattr(trial.verdict, name) for trial in trials) for name in ("lost", "expected"))
    return f"While a fault lasts, events are up to {latest:.1f} s late. Of {expected:,} events, {lost:,} are lost"


def latency_figure(trials: Sequence[Trial]) -> Figure:
    """Draw one panel for each trial: each event's latency over its emission time, with the fault's window shaded.

    Lost events are crosses at the bottom of the panel.
    """
    columns = 2 if len(trials) > 1 else 1
    rows = max(-(-len(trials) // columns), 1)
    with new_figure(latency_title(trials), 3.2 * columns, 1.2 + 1.9 * rows) as figure:
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
        for unused in axes[len(trials) :]:
            unused.set_visible(False)
        for axis, trial in zip(axes[: len(trials)], trials, strict=True):
            _latencies(axis, trial)
        figure.supxlabel("emitted, s after the first event", fontsize=10)
        figure.supylabel("delay from emission to the user, ms", fontsize=10)
        return figure


def _latencies(axis: Axes, trial: Trial) -> None:
    start = trial.emission_window[0]
    axis.axvspan(trial.window[0] - start, trial.window[1] - start, color=LOST, linewidth=0, label="fault")
    points = [
        (arrival.emitted_at - start, 1_000 * (arrival.read_at - arrival.emitted_at)) for arrival in trial.first_copies
    ]
    axis.scatter([x for x, _ in points], [y for _, y in points], s=9, color=BLUE, label="read")
    if lost := trial.lost_moments:
        # Axes coordinates place the crosses at the bottom of the panel, independently of its scale.
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
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axis.set_ylim(0.3, 5_000)
    axis.set_title(f"{trial.fault.name}, {trial.delivery.name}", fontsize=10.5)
    axis.legend(frameon=False, fontsize=8.5, loc="upper right")
