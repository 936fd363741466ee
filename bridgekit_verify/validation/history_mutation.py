"""Mutate a recorded history, to test that the checker reports exactly the mutations.

Each mutation is a pure function that returns a new history. The expected effect on the verdict is written by hand next
to the mutation, and not computed by a second checker.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import combinations_with_replacement
from types import MappingProxyType
from typing import Final

import msgspec
import pandas as pd

from bridgekit.events import EventType, Outcome, Receipt
from bridgekit.ids import ThreadId, UserId
from bridgekit_verify.errors import MutationNotApplicable
from bridgekit_verify.measure.attribution import Attribution
from bridgekit_verify.measure.checker import Verdict, check
from bridgekit_verify.measure.history import Arrival, EventKey, History, SignalledGap, Socket
from bridgekit_verify.measure.workload import OwnedThread, Workload

__all__ = ["MUTATIONS", "TWO_THREADS_A_USER", "mutate", "mutation_table"]

TWO_THREADS_A_USER: Final = Workload(
    threads=tuple(OwnedThread(ThreadId(f"chat_{n}"), UserId(("alice", "bob")[n // 2])) for n in range(4)),
    runs_per_thread=2,
    steps=2,
    at_once=2,
)
"""A workload for mutations: a frame can be misrouted to another user, or to another thread of the same user."""

NOTHING: Final[Mapping[Attribution, int]] = MappingProxyType({})
NEVER_READ: Final = Attribution(10, "reported as sent, but read by no socket")
REPORTED_LOST: Final = Attribution(10, "no socket of the thread accepted it")
MISROUTED: Final = Attribution(10, "delivered to a socket of another thread")


@dataclass(frozen=True)
class Effect:
    """How a mutation changes the verdict."""

    counts: Mapping[str, int]
    """The change of each field of the verdict, by name."""
    losses: Mapping[Attribution, int] = field(default_factory=lambda: NOTHING)
    misroutes: Mapping[Attribution, int] = field(default_factory=lambda: NOTHING)

    def on(self, verdict: Verdict) -> Verdict:
        """Return the verdict with this effect applied."""
        changed = {name: getattr(verdict, name) + change for name, change in self.counts.items()}
        # The reordering extent is a maximum over frames and not a sum.
        changed["reordering_extent"] = max(verdict.reordering_extent, self.counts.get("reordering_extent", 0))
        return replace(
            verdict,
            **changed,
            losses=dict(Counter(verdict.losses) + Counter(self.losses)),
            misroutes=dict(Counter(verdict.misroutes) + Counter(self.misroutes)),
        )


LOST: Final = {"delivered": -1, "frames": -1, "lost_silent": 1}
MOVED: Final = {"delivered": -1, "lost_silent": 1, "false_success": 1}


@dataclass(frozen=True)
class HistoryMutation:
    """A mutated history, and its mutated events."""

    history: History
    used: frozenset[EventKey]
    """The events that mutations have changed and that no other mutation may change."""


def lost(history: History, used: frozenset[EventKey], source: random.Random) -> HistoryMutation:
    """One frame is not read, and its receipt reports the loss."""
    index, _, key = _pick_event(history, used, source)
    run_id, receipt = history.acknowledged[key]
    accurate = Receipt(
        outcome=Outcome.NO_SUBSCRIBER,
        thread_id=receipt.thread_id,
        seq=receipt.seq,
        link=10,
        reason=REPORTED_LOST.reason,
    )
    return HistoryMutation(
        replace(
            history,
            arrivals=[*history.arrivals[:index], *history.arrivals[index + 1 :]],
            acknowledged=history.acknowledged | {key: (run_id, accurate)},
        ),
        used | {key},
    )


def false_success(history: History, used: frozenset[EventKey], source: random.Random) -> HistoryMutation:
    """One frame is not read, although the receipt reports its event as sent."""
    index, _, key = _pick_event(history, used, source)
    return HistoryMutation(
        replace(history, arrivals=[*history.arrivals[:index], *history.arrivals[index + 1 :]]), used | {key}
    )


def duplicated(history: History, used: frozenset[EventKey], source: random.Random) -> HistoryMutation:
    """One frame is read a second time, immediately or later."""
    index, arrival, key = _pick_event(history, used, source)
    return HistoryMutation(
        _with_frame_at(history, source.randint(index + 1, len(history.arrivals)), arrival), used | {key}
    )


def swapped(history: History, used: frozenset[EventKey], source: random.Random) -> HistoryMutation:
    """Two frames that a socket read in succession are read in the opposite order."""
    free = _free(history, used)
    last: dict[int, int] = {}
    neighbours: list[tuple[int, int]] = []
    for index, arrival in enumerate(history.arrivals):
        before, last[arrival.socket.number] = last.get(arrival.socket.number), index
        if before in free and index in free and before is not None:
            neighbours.append((before, index))
    if not neighbours:
        raise MutationNotApplicable("no socket read two frames in succession that are still unmutated")
    first, second = source.choice(neighbours)
    arrivals = list(history.arrivals)
    arrivals[first], arrivals[second] = arrivals[second], arrivals[first]
    return HistoryMutation(replace(history, arrivals=arrivals), used | {free[first], free[second]})


def renumbered(history: History, used: frozenset[EventKey], source: random.Random) -> HistoryMutation:
    """Two successive events of a run exchange their `seq` numbers, and are read in the order of the new numbers."""
    free = _free(history, used)
    last: dict[tuple[int, str], int] = {}
    neighbours: list[tuple[int, int]] = []
    for index, arrival in enumerate(history.arrivals):
        if (key := arrival.key) is None:
            continue
        place = arrival.socket.number, key.request
        before, last[place] = last.get(place), index
        if before in free and index in free and before is not None:
            neighbours.append((before, index))
    if not neighbours:
        raise MutationNotApplicable("no socket read two successive events of a run that are still unmutated")
    first, second = source.choice(neighbours)
    arrivals, known = list(history.arrivals), history.acknowledged
    early, late = arrivals[first], arrivals[second]
    arrivals[first], arrivals[second] = replace(late, seq=early.seq), replace(early, seq=late.seq)
    keys = free[first], free[second]
    exchanged = dict(zip(keys, (known[keys[1]], known[keys[0]]), strict=True))
    return HistoryMutation(replace(history, arrivals=arrivals, acknowledged=known | exchanged), used | set(keys))


def gap_signalled(history: History, used: frozenset[EventKey], source: random.Random) -> HistoryMutation:
    """A client receives a gap for an event that the client also reads."""
    _, arrival, key = _pick_event(history, used, source)
    number = arrival.socket.number
    gaps = [*history.gaps.get(number, ()), SignalledGap(arrival.seq, arrival.seq)]
    return HistoryMutation(replace(history, gaps=history.gaps | {number: gaps}), used | {key})


def number_skipped(history: History, used: frozenset[EventKey], source: random.Random) -> HistoryMutation:
    """A `seq` number is skipped after an event: the numbers of all later events of its thread rise by one."""
    free = _free(history, used)
    threads = {expectation.key: expectation.thread_id for expectation in history.expected}
    highest: dict[str, int] = {}
    for key, (_, receipt) in history.acknowledged.items():
        highest[threads[key]] = max(highest.get(threads[key], 0), receipt.seq or 0)
    inner = [index for index, key in free.items() if history.arrivals[index].seq < highest[threads[key]]]
    if not inner:
        raise MutationNotApplicable("no unmutated event is followed by another one of its thread")
    index = source.choice(inner)
    thread, seq = threads[free[index]], history.arrivals[index].seq

    def later(number: int) -> int:
        return number + (number > seq)

    arrivals = [
        replace(each, seq=later(each.seq))
        if thread == (threads.get(each.key, each.socket.thread_id) if each.key else each.socket.thread_id)
        else each
        for each in history.arrivals
    ]
    acknowledged = {
        key: (run_id, msgspec.structs.replace(receipt, seq=receipt.seq and later(receipt.seq)))
        if threads[key] == thread
        else (run_id, receipt)
        for key, (run_id, receipt) in history.acknowledged.items()
    }
    gaps = {
        socket.number: [gap._replace(first=later(gap.first), last=gap.last and later(gap.last)) for gap in each]
        if socket.thread_id == thread
        else each
        for socket in history.sockets
        if (each := history.gaps.get(socket.number))
    }
    changed = replace(history, arrivals=arrivals, acknowledged=acknowledged, gaps=gaps)
    return HistoryMutation(changed, used | {free[index]})


def to_another_thread(history: History, used: frozenset[EventKey], source: random.Random) -> HistoryMutation:
    """One frame is read by a socket of another thread of the same user, and not by its own thread's socket."""
    return _moved(history, used, source, same_user=True)


def to_another_user(history: History, used: frozenset[EventKey], source: random.Random) -> HistoryMutation:
    """One frame is read by a socket of another user, and not by its own user's socket."""
    return _moved(history, used, source, same_user=False)


def unexpected(history: History, used: frozenset[EventKey], source: random.Random) -> HistoryMutation:
    """One frame is added that belongs to no attempted event."""
    index, like = source.randrange(len(history.arrivals)), source.choice(history.arrivals)
    extra = replace(like, key=EventKey(f"not requested {len(history.arrivals)}", EventType.AGENT_THINKING, 1))
    return HistoryMutation(_with_frame_at(history, index, extra), used)


Mutation = Callable[[History, frozenset[EventKey], random.Random], HistoryMutation]

MUTATIONS: Final[Mapping[str, tuple[Mutation, Effect]]] = {
    "lost": (lost, Effect(LOST, losses={REPORTED_LOST: 1})),
    "duplicated": (duplicated, Effect({"frames": 1, "extra_copies": 1})),
    "swapped": (swapped, Effect({"reordered": 1, "reordering_extent": 1})),
    "renumbered": (renumbered, Effect({"reordered_in_run": 1})),
    "gap signalled": (gap_signalled, Effect({"false_gaps": 1})),
    "number skipped": (number_skipped, Effect({"false_gaps": 1})),
    "to another thread": (
        to_another_thread,
        Effect(MOVED | {"wrong_thread": 1}, losses={NEVER_READ: 1}, misroutes={MISROUTED: 1}),
    ),
    "to another user": (
        to_another_user,
        Effect(MOVED | {"wrong_user": 1}, losses={NEVER_READ: 1}, misroutes={MISROUTED: 1}),
    ),
    "unexpected": (unexpected, Effect({"frames": 1, "unexpected": 1})),
    "false success": (false_success, Effect(LOST | {"false_success": 1}, losses={NEVER_READ: 1})),
}
"""The mutations, each with its effect on the verdict. A misrouted event also counts as lost and as a false success."""


def mutate(history: History, names: Sequence[str], *, seed: int = 0) -> tuple[History, Verdict]:
    """Apply mutations to a clean history, each to different events. Return the new history and its expected verdict.

    Raises MutationNotApplicable if the history is not clean, has two sockets for a thread, or has too few events.
    """
    verdict = check(history)
    if verdict.delivered != verdict.expected or verdict.frames != verdict.expected or verdict.reordered:
        raise MutationNotApplicable("it already contains losses, copies or reordering; use a clean history")
    if len({(socket.thread_id, socket.user_id) for socket in history.sockets}) != len(history.sockets):
        raise MutationNotApplicable("a thread has two sockets; record the history with one socket per thread")
    source, mutated = random.Random(f"{seed}:{names}"), HistoryMutation(history, frozenset())
    for name in names:
        mutation, effect = MUTATIONS[name]
        mutated, verdict = mutation(mutated.history, mutated.used, source), effect.on(verdict)
    return mutated.history, verdict


def mutation_table(history: History, *, seed: int = 0) -> pd.DataFrame:
    """Return expected and reported verdicts of a history: unchanged, with each mutation, and with each mutation pair.

    `history` must be clean, with one socket per thread and a user with two threads, as TWO_THREADS_A_USER produces on
    the sound chain. The column "exactly" compares whole verdicts, including the link and reason of each loss, and not
    only the shown text.
    """
    chosen = [(), *((name,) for name in MUTATIONS), *combinations_with_replacement(MUTATIONS, 2)]
    clean = check(history)
    rows = []
    for names in chosen:
        mutated, expected = mutate(history, names, seed=seed)
        verdict = check(mutated)
        rows.append(
            {
                "mutation": " + ".join(names) or "nothing",
                "expected": _summary(clean, expected),
                "reported": _summary(clean, verdict),
                "exactly": "yes" if verdict == expected else "no",
            }
        )
    return pd.DataFrame(rows)


SHOWN: Final = {
    "lost_silent": "dropped",
    "extra_copies": "duplicated",
    "reordered": "reordered",
    "reordered_in_run": "reordered within its run",
    "false_gaps": "with a false gap",
    "wrong_thread": "at another thread",
    "wrong_user": "at another user",
    "unexpected": "unexpected",
    "false_success": "reported as sent but lost",
}


def _summary(before: Verdict, after: Verdict) -> str:
    """Return the changed counts as text. A field without a label in `SHOWN` appears under its name."""
    changes = {f.name: (getattr(before, f.name), getattr(after, f.name)) for f in fields(Verdict)}
    implied = {"delivered", "frames", "reordering_extent", "losses", "misroutes"}
    changed_counts = [
        f"{new - old} {SHOWN.get(name, name)}"
        for name, (old, new) in changes.items()
        if old != new and name not in implied
    ]
    return ", ".join(changed_counts) or "nothing"


def _free(history: History, used: frozenset[EventKey]) -> dict[int, EventKey]:
    """Return the events that no mutation has changed, by the index of their frame."""
    expected = {expectation.key for expectation in history.expected} - used
    return {index: a.key for index, a in enumerate(history.arrivals) if a.key is not None and a.key in expected}


def _pick_event(history: History, used: frozenset[EventKey], source: random.Random) -> tuple[int, Arrival, EventKey]:
    free = _free(history, used)
    if not free:
        raise MutationNotApplicable("every event is already used by a mutation; record a longer history")
    index = source.choice(list(free))
    return index, history.arrivals[index], free[index]


def _with_frame_at(history: History, index: int, arrival: Arrival) -> History:
    return replace(history, arrivals=[*history.arrivals[:index], arrival, *history.arrivals[index:]])


def _moved(history: History, used: frozenset[EventKey], source: random.Random, *, same_user: bool) -> HistoryMutation:
    def others(own: Socket) -> list[Socket]:
        return [
            socket
            for socket in history.sockets
            if (socket.user_id == own.user_id) is same_user and socket.thread_id != own.thread_id
        ]

    free = _free(history, used)
    indices = [index for index in free if others(history.arrivals[index].socket)]
    if not indices:
        raise MutationNotApplicable("it has no other socket that a frame could be misrouted to")
    index = source.choice(indices)
    arrival = history.arrivals[index]
    misrouted = replace(arrival, socket=source.choice(others(arrival.socket)))
    arrivals = [*history.arrivals[:index], misrouted, *history.arrivals[index + 1 :]]
    return HistoryMutation(replace(history, arrivals=arrivals), used | {free[index]})
