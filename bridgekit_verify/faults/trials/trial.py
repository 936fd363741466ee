"""One fault in one deployment: agents emit, the fault acts for a while, and every event is accounted for."""

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
from bridgekit_verify.faults.trials.acts import Act, FaultTarget, Scene
from bridgekit_verify.faults.trials.deployment import Delivery, Deployment
from bridgekit_verify.faults.trials.load import SETTLE_SECONDS, AgentLoad, TrialPlan, run_after_fault, run_during_fault
from bridgekit_verify.faults.trials.recorder import Reader, Recorder, read_and_resume, read_without_resume
from bridgekit_verify.measure.checker import Verdict, check
from bridgekit_verify.measure.families import OwnedThread
from bridgekit_verify.measure.history import Arrival, EventKey, History, Socket
from bridgekit_verify.measure.ledger import Row, ledger
from bridgekit_verify.measure.plots import BLUE, LOST, VERMILLION, new_figure

__all__ = ["Trial", "TrialPlan", "latency_figure", "try_act"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What became of one fault in one deployment."""

    delivery: Delivery
    act: Act
    plan: TrialPlan
    history: History
    verdict: Verdict
    window: tuple[float, float]
    """When the fault began, and when all was mended, in seconds since the epoch."""
    unanswered: int
    """Events that were not answered, because the worker of their agent was killed: not promised, so not lost."""
    asked_at: Mapping[EventKey, float]
    """When each event was asked for, in seconds since the epoch."""
    settled: bool
    """Whether every user read the end of the last run."""
    readers: Sequence[Reader]

    @property
    def emission_window(self) -> tuple[float, float]:
        """When the first event was asked for, and the last."""
        return min(self.asked_at.values()), max(self.asked_at.values())

    @property
    def ledger(self) -> list[Row]:
        """One row an event and socket."""
        return ledger(self.history)

    @property
    def sent_twice(self) -> int:
        """Events that came to a socket again. A client that stays drops them, and its user never sees them."""
        return sum(reader.duplicates for reader in self.readers)

    @property
    def firsts(self) -> list[Arrival]:
        """The first copy of each event at each socket, in the order of reading."""
        seen: dict[tuple[int, EventKey | None], Arrival] = {}
        for arrival in self.history.arrivals:
            seen.setdefault((arrival.socket.number, arrival.key), arrival)
        return list(seen.values())

    @property
    def lost_moments(self) -> list[float]:
        """When each event that a user never read was asked for, in seconds since the epoch."""
        return [self.asked_at[row.expectation.key] for row in self.ledger if not row.copies]

    @property
    def closed_form(self) -> float | None:
        """The share that arrives if exactly what is emitted while a user is offline is lost; None if more is promised.

        Events come at an even pace, so of a time `T` with `w` offline, 1 - w / T arrives. (Of a worker that was killed
        no agent emits meanwhile, and there is no such form.)
        """
        if self.delivery.resumes or self.act.target is not FaultTarget.NETWORK or self.act.overflows:
            return None
        begins, ends = self.emission_window
        blind = [self.window] if self.act.swallows else []
        away = [_away(reader.online, blind, begins, ends) for reader in self.readers]
        return 1 - sum(away) / (len(away) * (ends - begins))


Span = tuple[float, float]


def _away(online: Sequence[Span], blind: Sequence[Span], begins: float, ends: float) -> float:
    """Of a time, how many seconds no socket was subscribed, or was and got nothing."""
    moments = sorted(
        {begins, ends, *(moment for span in (*online, *blind) for moment in span if begins < moment < ends)}
    )
    return sum(
        later - earlier
        for earlier, later in pairwise(moments)
        if not _within(online, earlier, later) or _within(blind, earlier, later)
    )


def _within(spans: Sequence[Span], first: float, last: float) -> bool:
    return any(start <= first and last <= end for start, end in spans)


async def try_act(
    act: Act, deployment: Deployment, owned: Sequence[OwnedThread], *, plan: TrialPlan, seed: int = 0, name: str = ""
) -> Trial:
    """Run agents for these users, apply the fault for a while, repair it, and judge when no more events come.

    `owned` are threads of the deployment that no other experiment uses meanwhile; `name` is this one's.
    LedgerImbalance where the books do not.
    """
    name = name or act.name
    recorder, delivery = Recorder(), deployment.delivery
    load = AgentLoad(name, plan, act, recorder)
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
            scene = Scene(deployment, users, seed, load.meanwhile)
            window = await run_during_fault(load, scene, owned)
            with anyio.move_on_after(SETTLE_SECONDS) as settling:
                for reader, each in zip(readers, owned, strict=True):
                    await run_after_fault(load, scene, each, reader)
            tasks.cancel_scope.cancel()
    history, unanswered = recorder.complete(readers)
    return Trial(
        delivery=delivery,
        act=act,
        plan=plan,
        history=history,
        verdict=check(history),
        window=window,
        unanswered=unanswered,
        asked_at=recorder.attempted_at,
        settled=not settling.cancelled_caught,
        readers=readers,
    )


async def _tickets(deployment: Deployment, owned: Sequence[OwnedThread]) -> Tickets:
    """The experiment issues the users' tickets, as an application that durable its workers."""
    threads = MemoryThreadStore()
    for each in owned:
        await threads.claim(each.thread_id, each.user_id)
    return Tickets(threads, MemoryUsedTickets(), keys=(deployment.key,))


async def _ticket(tickets: Tickets, owned: OwnedThread) -> str:
    return tickets.issue(owned.user_id, owned.thread_id)


def latency_figure(trials: Sequence[Trial], *, title: str) -> Figure:
    """One panel a trial: each event's latency by when it was emitted, and the window of the fault shaded.

    What was lost stands at the foot of its panel, as a cross.
    """
    columns = 2 if len(trials) > 1 else 1
    rows = -(-len(trials) // columns)
    with new_figure(title, 4.6 * columns, 0.9 + 2.1 * rows) as figure:
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
        for unused in axes[len(trials) :]:
            unused.set_visible(False)
        for axis, trial in zip(axes[: len(trials)], trials, strict=True):
            _latencies(axis, trial)
        figure.supxlabel("emitted, s after the first event", fontsize=10)
        figure.supylabel("from emission to the user, ms", fontsize=10)
        return figure


def _latencies(axis: Axes, trial: Trial) -> None:
    begins = trial.emission_window[0]
    axis.axvspan(trial.window[0] - begins, trial.window[1] - begins, color=LOST, linewidth=0, label="fault")
    points = [(arrival.emitted_at - begins, 1_000 * (arrival.read_at - arrival.emitted_at)) for arrival in trial.firsts]
    axis.scatter([x for x, _ in points], [y for _, y in points], s=9, color=BLUE, label="read")
    if lost := trial.lost_moments:
        # At the foot of the panel, whatever its scale.
        axis.scatter(
            [moment - begins for moment in lost],
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
    axis.set_title(f"{trial.act.name}, {trial.delivery.name}", fontsize=10.5)
    axis.legend(frameon=False, fontsize=8.5, loc="upper right")
