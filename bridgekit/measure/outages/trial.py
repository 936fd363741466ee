"""One fault in one deployment: agents speak, the world does something for a while, and every event is accounted for."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count, pairwise
from typing import Final

import anyio

from bridgekit.chain.collaborators import MemoryThreads
from bridgekit.errors import ShuttingDown, StoreAway, first_error
from bridgekit.measure.checker import Verdict, check
from bridgekit.measure.families import Owned
from bridgekit.measure.faults.proxy import proxy
from bridgekit.measure.history import Arrival, History, Key, Socket
from bridgekit.measure.ledger import Row, ledger
from bridgekit.measure.outages.acts import Act, Scene, Target
from bridgekit.measure.outages.deployment import Delivery, Deployment
from bridgekit.measure.outages.hands import Hand
from bridgekit.measure.outages.notes import Notes
from bridgekit.measure.outages.readers import Reader, read_and_forget, read_and_resume
from bridgekit.measure.outages.worker import Order
from bridgekit.transport.spent import SpentInMemory
from bridgekit.transport.tickets import Tickets

__all__ = ["Plan", "Trial", "try_act"]

PASSING: Final = (StoreAway.__name__, ShuttingDown.__name__)
"""Errors with which a run is refused that may be asked for again."""
AGAIN_SECONDS: Final = 0.1
FORGETFUL_SECONDS: Final = 1.0
"""How long one who forgets is waited for; what has not come by then does not come."""
SETTLE_SECONDS: Final = 20.0
"""How long users may take, when all is mended, to read what they are owed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long things last. A step is three events."""

    steps: int = 20
    pace_seconds: float = 0.05
    begins_seconds: float = 0.3
    """When the fault begins, from the first run's start."""
    lasts_seconds: float = 0.4
    after_steps: int = 4
    """Steps of a second run, when all is mended: its end tells that the first one's events are through, or lost."""

    @property
    def seconds(self) -> float:
        """How long both runs take, without what it takes to mend things."""
        return (self.steps + self.after_steps) * self.pace_seconds + self.lasts_seconds


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What became of one fault in one deployment."""

    delivery: Delivery
    act: Act
    plan: Plan
    history: History
    verdict: Verdict
    window: tuple[float, float]
    """When the fault began, and when all was mended, in seconds since the epoch."""
    unanswered: int
    """Events that nobody answered, because the worker of their agent was killed: not promised, so not lost."""
    asked_at: Mapping[Key, float]
    """When each event was asked for, in seconds since the epoch."""
    settled: bool
    """Whether every user read the end of the last run."""
    readers: Sequence[Reader]

    @property
    def spoken(self) -> tuple[float, float]:
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
        seen: dict[tuple[int, Key | None], Arrival] = {}
        for arrival in self.history.arrivals:
            seen.setdefault((arrival.socket.number, arrival.key), arrival)
        return list(seen.values())

    @property
    def lost_moments(self) -> list[float]:
        """When each event that a user never read was asked for, in seconds since the epoch."""
        return [self.asked_at[row.expectation.key] for row in self.ledger if not row.copies]

    @property
    def closed_form(self) -> float | None:
        """The share that arrives if exactly what is said while a user is away is lost; None where more is promised.

        Events come at an even pace, so of a time `T` with `w` offline, 1 - w / T arrives. (Of a worker that was killed
        nobody speaks meanwhile, and there is no such form.)
        """
        if self.delivery.resumes or self.act.target is not Target.NETWORK or self.act.overflows:
            return None
        begins, ends = self.spoken
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
    act: Act, deployment: Deployment, owned: Sequence[Owned], *, plan: Plan, seed: int = 0, name: str = ""
) -> Trial:
    """Let agents speak to these users, do the act for a while, mend it, and judge when all is quiet.

    `owned` are threads of the deployment that no other experiment uses meanwhile; `name` tells this one apart.
    LedgerDoesNotClose where the books do not.
    """
    name = name or act.name
    notes, delivery = Notes(), deployment.delivery
    with ExitStack() as listening, first_error():
        for hand in {deployment.agents, deployment.sockets}:
            hand.listeners[name] = notes.hear
            listening.callback(hand.listeners.pop, name)
        async with proxy("127.0.0.1", deployment.sockets.port) as users, anyio.create_task_group() as tasks:
            tickets = await _tickets(deployment, owned)
            readers = [
                Reader(Socket(number, each.thread_id, each.user_id), users.url(), partial(_ticket, tickets, each))
                for number, each in enumerate(owned)
            ]
            read = read_and_resume if delivery.resumes else read_and_forget
            for reader in readers:
                await tasks.start(read, reader)
            scene = Scene(deployment, users, seed)
            window = await _speak(act, scene, owned, plan, notes, name)
            with anyio.move_on_after(SETTLE_SECONDS) as settling:
                for reader, each in zip(readers, owned, strict=True):
                    await _speak_until_heard(scene, each, reader, plan, act, notes, name)
            tasks.cancel_scope.cancel()
    history, unanswered = notes.closed(readers)
    return Trial(
        delivery=delivery,
        act=act,
        plan=plan,
        history=history,
        verdict=check(history),
        window=window,
        unanswered=unanswered,
        asked_at=notes.asked_at,
        settled=not settling.cancelled_caught,
        readers=readers,
    )


async def _speak(
    act: Act, scene: Scene, owned: Sequence[Owned], plan: Plan, notes: Notes, name: str
) -> tuple[float, float]:
    """The first run, with the fault in the middle of it; the window of the fault."""
    agents = scene.deployment.agents
    first = [_order(name, each, "during", plan.steps, plan, act, notes) for each in owned]
    for order in first:
        await agents.carry(order)
    await anyio.sleep(plan.begins_seconds)
    begins = time.time()
    await act.during(scene, plan.lasts_seconds)
    mended = time.time()
    with anyio.move_on_after(SETTLE_SECONDS):
        await notes.until_over([order.request for order in first])
    return begins, mended


async def _speak_until_heard(
    scene: Scene, owned: Owned, reader: Reader, plan: Plan, act: Act, notes: Notes, name: str
) -> None:
    """The last run, when all is mended: its end tells that what came before is through, or lost.

    One who forgets may lose this end too, where he has not noticed yet that his socket is gone: then one more is told.
    """
    patience = SETTLE_SECONDS if scene.deployment.delivery.resumes else FORGETFUL_SECONDS
    for number in count(1):
        order = _order(name, owned, f"after {number}", plan.after_steps, plan, act, notes)
        await reader.until_online()
        await _carry_until_taken(scene.deployment.agents, order, notes)
        with anyio.move_on_after(patience):
            await reader.until_ended(order.request)
            return


async def _carry_until_taken(agents: Hand, order: Order, notes: Notes) -> None:
    """Let an agent run; one that is refused for the moment is asked for again, as its user would."""
    while True:
        await agents.carry(order)
        await notes.until_over([order.request])
        error = notes.ended.pop(order.request)
        if not error.startswith(PASSING):
            return
        await anyio.sleep(AGAIN_SECONDS)


def _order(name: str, owned: Owned, when: str, steps: int, plan: Plan, act: Act, notes: Notes) -> Order:
    request = _request(name, owned, when)
    notes.owners[request] = owned
    return Order(
        request=request,
        thread_id=owned.thread_id,
        user_id=owned.user_id,
        steps=steps,
        pace_seconds=plan.pace_seconds,
        padding_bytes=act.padding_bytes,
    )


def _request(name: str, owned: Owned, when: str) -> str:
    # A colon ends the experiment's name for the worker, and a colon and a space the request in what agents think.
    return f"{name}:{owned.thread_id}:{when}"


async def _tickets(deployment: Deployment, owned: Sequence[Owned]) -> Tickets:
    """The experiment stands for the application that gives its users tickets: it outlives the workers."""
    threads = MemoryThreads()
    for each in owned:
        await threads.claim(each.thread_id, each.user_id)
    return Tickets(threads, SpentInMemory(), keys=(deployment.key,))


async def _ticket(tickets: Tickets, owned: Owned) -> str:
    return tickets.issue(owned.user_id, owned.thread_id)
