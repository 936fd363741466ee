"""Faults planted in a history that was really recorded: the checker must report just these, and nothing else.

Pure functions from a history to another; the one that was recorded is left as it was. The verdict that must come out
is written down with each fault, by hand and beforehand, and not found out by a second checker.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import combinations_with_replacement
from types import MappingProxyType
from typing import Final

import pandas as pd

from bridgekit.events import EventType, Outcome, Receipt
from bridgekit.ids import ThreadId, UserId
from bridgekit_verify.errors import MutationNotApplicable
from bridgekit_verify.measure.attribution import Attribution
from bridgekit_verify.measure.checker import Verdict, check
from bridgekit_verify.measure.history import Arrival, History, EventKey, Socket
from bridgekit_verify.measure.workload import OwnedThread, Workload

__all__ = ["MUTATIONS", "TWO_THREADS_A_USER", "mutate", "mutation_table"]

TWO_THREADS_A_USER: Final = Workload(
    threads=tuple(OwnedThread(ThreadId(f"chat_{n}"), UserId(("alice", "bob")[n // 2])) for n in range(4)),
    runs_per_thread=2,
    steps=2,
    at_once=2,
)
"""A workload to mutate in: a frame may stray to another user, and to another thread of the same user."""

NOTHING: Final[Mapping[Attribution, int]] = MappingProxyType({})
NEVER_READ: Final = Attribution(10, "reported as sent, but no socket read it")
REPORTED_LOST: Final = Attribution(10, "no socket of the thread took it")
MISROUTED: Final = Attribution(10, "delivered to a socket of another thread")


@dataclass(frozen=True)
class Effect:
    """What a verdict must say otherwise."""

    counts: Mapping[str, int]
    """By field, the change."""
    losses: Mapping[Attribution, int] = field(default_factory=lambda: NOTHING)
    misroutes: Mapping[Attribution, int] = field(default_factory=lambda: NOTHING)

    def on(self, verdict: Verdict) -> Verdict:
        """The verdict after it."""
        changed = {name: getattr(verdict, name) + change for name, change in self.counts.items()}
        # Not a sum: the extent is that of the latest frame.
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
    """A history with something planted in it."""

    history: History
    used: frozenset[EventKey]
    """The events that something was done to. No second fault touches them."""


def lost(history: History, used: frozenset[EventKey], source: random.Random) -> HistoryMutation:
    """One frame is not read, and the bridge had said so."""
    place, _, key = _pick_event(history, used, source)
    run_id, receipt = history.acknowledged[key]
    truthful = Receipt(
        outcome=Outcome.NOBODY_LISTENING, thread_id=receipt.thread_id, seq=receipt.seq, link=10, reason=REPORTED_LOST.reason
    )
    return HistoryMutation(
        replace(
            history,
            arrivals=[*history.arrivals[:place], *history.arrivals[place + 1 :]],
            acknowledged=history.acknowledged | {key: (run_id, truthful)},
        ),
        used | {key},
    )


def false_success(history: History, used: frozenset[EventKey], source: random.Random) -> HistoryMutation:
    """One frame is not read, and the bridge had said that it was sent."""
    place, _, key = _pick_event(history, used, source)
    return HistoryMutation(
        replace(history, arrivals=[*history.arrivals[:place], *history.arrivals[place + 1 :]]), used | {key}
    )


def duplicated(history: History, used: frozenset[EventKey], source: random.Random) -> HistoryMutation:
    """One frame is read again, then or later."""
    place, arrival, key = _pick_event(history, used, source)
    return HistoryMutation(_inserted(history, source.randint(place + 1, len(history.arrivals)), arrival), used | {key})


def swapped(history: History, used: frozenset[EventKey], source: random.Random) -> HistoryMutation:
    """Two frames that a socket read one after the other are read the other way round."""
    free = _free(history, used)
    last: dict[int, int] = {}
    neighbours: list[tuple[int, int]] = []
    for place, arrival in enumerate(history.arrivals):
        before, last[arrival.socket.number] = last.get(arrival.socket.number), place
        if before in free and place in free and before is not None:
            neighbours.append((before, place))
    if not neighbours:
        raise MutationNotApplicable("no socket read two frames that nothing was done to")
    first, second = source.choice(neighbours)
    arrivals = list(history.arrivals)
    arrivals[first], arrivals[second] = arrivals[second], arrivals[first]
    return HistoryMutation(replace(history, arrivals=arrivals), used | {free[first], free[second]})


def to_another_thread(history: History, used: frozenset[EventKey], source: random.Random) -> HistoryMutation:
    """One frame is read by a socket of another thread of the same user, and not by its own."""
    return _moved(history, used, source, same_user=True)


def to_another_user(history: History, used: frozenset[EventKey], source: random.Random) -> HistoryMutation:
    """One frame is read by a socket of another user, and not by its own."""
    return _moved(history, used, source, same_user=False)


def unexpected(history: History, used: frozenset[EventKey], source: random.Random) -> HistoryMutation:
    """A frame is read that nobody attempted."""
    place, like = source.randrange(len(history.arrivals)), source.choice(history.arrivals)
    stranger = replace(like, key=EventKey(f"nobody asked {len(history.arrivals)}", EventType.AGENT_THINKING, 1))
    return HistoryMutation(_inserted(history, place, stranger), used)


Mutation = Callable[[History, frozenset[EventKey], random.Random], HistoryMutation]

MUTATIONS: Final[Mapping[str, tuple[Mutation, Effect]]] = {
    "lost": (lost, Effect(LOST, losses={REPORTED_LOST: 1})),
    "duplicated": (duplicated, Effect({"frames": 1, "extra_copies": 1})),
    "swapped": (swapped, Effect({"reordered": 1, "reordering_extent": 1})),
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
"""The faults, each with what the verdict must say of it. A frame that went astray is also a loss, called sent."""


def mutate(history: History, faults: Sequence[str], *, seed: int = 0) -> tuple[History, Verdict]:
    """HistoryMutation faults in a clean history, each on events of its own; answer the history and the verdict it must get.

    MutationNotApplicable where the history has no room for them, or is not clean.
    """
    verdict = check(history)
    if verdict.delivered != verdict.expected or verdict.frames != verdict.expected or verdict.reordered:
        raise MutationNotApplicable("it has faults of its own")
    if len({(socket.thread_id, socket.user_id) for socket in history.sockets}) != len(history.sockets):
        raise MutationNotApplicable("a thread has two sockets, and an event may be lost at one of them only")
    source, planted = random.Random(f"{seed}:{faults}"), HistoryMutation(history, frozenset())
    for name in faults:
        fault, effect = MUTATIONS[name]
        planted, verdict = fault(planted.history, planted.used, source), effect.on(verdict)
    return planted.history, verdict


def mutation_table(history: History, *, seed: int = 0) -> pd.DataFrame:
    """Nothing, each fault alone, and each two: what was planted, what was reported, and whether that is it exactly.

    `history` must be clean, with one socket a thread and a user with two threads, as TWO_THREADS_A_USER gives it on
    the sound chain. "exactly" compares whole verdicts, with each loss's link and reason, and not the words shown.
    """
    chosen = [(), *((name,) for name in MUTATIONS), *combinations_with_replacement(MUTATIONS, 2)]
    clean = check(history)
    rows = []
    for faults in chosen:
        planted, must_be = mutate(history, faults, seed=seed)
        verdict = check(planted)
        rows.append(
            {
                "fault": " + ".join(faults) or "nothing",
                "planted": _summary(clean, must_be),
                "reported": _summary(clean, verdict),
                "exactly": "yes" if verdict == must_be else "no",
            }
        )
    return pd.DataFrame(rows)


SHOWN: Final = {
    "lost_silent": "lost",
    "extra_copies": "extra copy",
    "reordered": "reordered",
    "wrong_thread": "at another thread",
    "wrong_user": "at another user",
    "unexpected": "unexpected",
    "false_success": "false success",
}


def _summary(before: Verdict, after: Verdict) -> str:
    """What changed, in words; whatever has no word of its own by its field's name."""
    changes = {f.name: (getattr(before, f.name), getattr(after, f.name)) for f in fields(Verdict)}
    implied = {"delivered", "frames", "reordering_extent", "losses", "misroutes"}
    changed_counts = [
        f"{new - old} {SHOWN.get(name, name)}"
        for name, (old, new) in changes.items()
        if old != new and name not in implied
    ]
    return ", ".join(changed_counts) or "nothing"


def _free(history: History, used: frozenset[EventKey]) -> dict[int, EventKey]:
    """The places of frames of events that nothing was done to."""
    expected = {expectation.key for expectation in history.expected} - used
    return {place: a.key for place, a in enumerate(history.arrivals) if a.key is not None and a.key in expected}


def _pick_event(history: History, used: frozenset[EventKey], source: random.Random) -> tuple[int, Arrival, EventKey]:
    free = _free(history, used)
    if not free:
        raise MutationNotApplicable("something was done to each of its events")
    place = source.choice(list(free))
    return place, history.arrivals[place], free[place]


def _inserted(history: History, place: int, arrival: Arrival) -> History:
    return replace(history, arrivals=[*history.arrivals[:place], arrival, *history.arrivals[place:]])


def _moved(history: History, used: frozenset[EventKey], source: random.Random, *, same_user: bool) -> HistoryMutation:
    def others(own: Socket) -> list[Socket]:
        return [
            socket
            for socket in history.sockets
            if (socket.user_id == own.user_id) is same_user and socket.thread_id != own.thread_id
        ]

    free = _free(history, used)
    places = [place for place in free if others(history.arrivals[place].socket)]
    if not places:
        raise MutationNotApplicable("there is no socket that a frame could go to by mistake")
    place = source.choice(places)
    arrival = history.arrivals[place]
    astray = replace(arrival, socket=source.choice(others(arrival.socket)))
    arrivals = [*history.arrivals[:place], astray, *history.arrivals[place + 1 :]]
    return HistoryMutation(replace(history, arrivals=arrivals), used | {free[place]})
