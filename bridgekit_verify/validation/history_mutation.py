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
from bridgekit_verify.measure.attribution import Charge
from bridgekit_verify.measure.checker import Verdict, check
from bridgekit_verify.measure.history import Arrival, History, Key, Socket
from bridgekit_verify.measure.workload import Owned, Workload

__all__ = ["FAULTS", "TWO_THREADS_A_USER", "plant", "planted_table"]

TWO_THREADS_A_USER: Final = Workload(
    threads=tuple(Owned(ThreadId(f"chat_{n}"), UserId(("alice", "bob")[n // 2])) for n in range(4)),
    runs_per_thread=2,
    steps=2,
    at_once=2,
)
"""A workload to plant in: a frame may stray to another user, and to another thread of the same user."""

NOTHING: Final[Mapping[Charge, int]] = MappingProxyType({})
UNREAD: Final = Charge(10, "called sent, and no socket read it")
ADMITTED: Final = Charge(10, "no socket of the thread accepted it")
ASTRAY: Final = Charge(10, "given to a socket of another thread")


@dataclass(frozen=True)
class Effect:
    """What a verdict must say otherwise."""

    counts: Mapping[str, int]
    """By field, the change."""
    losses: Mapping[Charge, int] = field(default_factory=lambda: NOTHING)
    misroutes: Mapping[Charge, int] = field(default_factory=lambda: NOTHING)

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
class Plant:
    """A history with something planted in it."""

    history: History
    touched: frozenset[Key]
    """The events that something was done to. No second fault touches them."""


def lost(history: History, touched: frozenset[Key], source: random.Random) -> Plant:
    """One frame is not read, and the bridge had said so."""
    place, _, key = _victim(history, touched, source)
    run_id, receipt = history.acknowledged[key]
    honest = Receipt(
        outcome=Outcome.NOBODY_LISTENING, thread_id=receipt.thread_id, seq=receipt.seq, link=10, reason=ADMITTED.reason
    )
    return Plant(
        replace(
            history,
            arrivals=[*history.arrivals[:place], *history.arrivals[place + 1 :]],
            acknowledged=history.acknowledged | {key: (run_id, honest)},
        ),
        touched | {key},
    )


def false_success(history: History, touched: frozenset[Key], source: random.Random) -> Plant:
    """One frame is not read, and the bridge had said that it was sent."""
    place, _, key = _victim(history, touched, source)
    return Plant(
        replace(history, arrivals=[*history.arrivals[:place], *history.arrivals[place + 1 :]]), touched | {key}
    )


def duplicated(history: History, touched: frozenset[Key], source: random.Random) -> Plant:
    """One frame is read again, then or later."""
    place, arrival, key = _victim(history, touched, source)
    return Plant(_inserted(history, source.randint(place + 1, len(history.arrivals)), arrival), touched | {key})


def swapped(history: History, touched: frozenset[Key], source: random.Random) -> Plant:
    """Two frames that a socket read one after the other are read the other way round."""
    free = _free(history, touched)
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
    return Plant(replace(history, arrivals=arrivals), touched | {free[first], free[second]})


def to_another_thread(history: History, touched: frozenset[Key], source: random.Random) -> Plant:
    """One frame is read by a socket of another thread of the same user, and not by its own."""
    return _moved(history, touched, source, same_user=True)


def to_another_user(history: History, touched: frozenset[Key], source: random.Random) -> Plant:
    """One frame is read by a socket of another user, and not by its own."""
    return _moved(history, touched, source, same_user=False)


def unexpected(history: History, touched: frozenset[Key], source: random.Random) -> Plant:
    """A frame is read that nobody attempted."""
    place, like = source.randrange(len(history.arrivals)), source.choice(history.arrivals)
    stranger = replace(like, key=Key(f"nobody asked {len(history.arrivals)}", EventType.AGENT_THINKING, 1))
    return Plant(_inserted(history, place, stranger), touched)


Fault = Callable[[History, frozenset[Key], random.Random], Plant]

FAULTS: Final[Mapping[str, tuple[Fault, Effect]]] = {
    "lost": (lost, Effect(LOST, losses={ADMITTED: 1})),
    "duplicated": (duplicated, Effect({"frames": 1, "extra_copies": 1})),
    "swapped": (swapped, Effect({"reordered": 1, "reordering_extent": 1})),
    "to another thread": (
        to_another_thread,
        Effect(MOVED | {"wrong_thread": 1}, losses={UNREAD: 1}, misroutes={ASTRAY: 1}),
    ),
    "to another user": (
        to_another_user,
        Effect(MOVED | {"wrong_user": 1}, losses={UNREAD: 1}, misroutes={ASTRAY: 1}),
    ),
    "unexpected": (unexpected, Effect({"frames": 1, "unexpected": 1})),
    "false success": (false_success, Effect(LOST | {"false_success": 1}, losses={UNREAD: 1})),
}
"""The faults, each with what the verdict must say of it. A frame that went astray is also a loss, called sent."""


def plant(history: History, faults: Sequence[str], *, seed: int = 0) -> tuple[History, Verdict]:
    """Plant faults in a clean history, each on events of its own; answer the history and the verdict it must get.

    MutationNotApplicable where the history has no room for them, or is not clean.
    """
    verdict = check(history)
    if verdict.delivered != verdict.expected or verdict.frames != verdict.expected or verdict.reordered:
        raise MutationNotApplicable("it has faults of its own")
    if len({(socket.thread_id, socket.user_id) for socket in history.sockets}) != len(history.sockets):
        raise MutationNotApplicable("a thread has two sockets, and an event may be lost at one of them only")
    source, planted = random.Random(f"{seed}:{faults}"), Plant(history, frozenset())
    for name in faults:
        fault, effect = FAULTS[name]
        planted, verdict = fault(planted.history, planted.touched, source), effect.on(verdict)
    return planted.history, verdict


def planted_table(history: History, *, seed: int = 0) -> pd.DataFrame:
    """Nothing, each fault alone, and each two: what was planted, what was reported, and whether that is it exactly.

    `history` must be clean, with one socket a thread and a user with two threads, as TWO_THREADS_A_USER gives it on
    the sound chain. "exactly" compares whole verdicts, with each loss's link and reason, and not the words shown.
    """
    chosen = [(), *((name,) for name in FAULTS), *combinations_with_replacement(FAULTS, 2)]
    clean = check(history)
    rows = []
    for faults in chosen:
        planted, must_be = plant(history, faults, seed=seed)
        verdict = check(planted)
        rows.append(
            {
                "fault": " + ".join(faults) or "nothing",
                "planted": _told(clean, must_be),
                "reported": _told(clean, verdict),
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


def _told(before: Verdict, after: Verdict) -> str:
    """What changed, in words; whatever has no word of its own by its field's name."""
    changes = {f.name: (getattr(before, f.name), getattr(after, f.name)) for f in fields(Verdict)}
    implied = {"delivered", "frames", "reordering_extent", "losses", "misroutes"}
    told = [
        f"{new - old} {SHOWN.get(name, name)}"
        for name, (old, new) in changes.items()
        if old != new and name not in implied
    ]
    return ", ".join(told) or "nothing"


def _free(history: History, touched: frozenset[Key]) -> dict[int, Key]:
    """The places of frames of events that nothing was done to."""
    expected = {expectation.key for expectation in history.expected} - touched
    return {place: a.key for place, a in enumerate(history.arrivals) if a.key is not None and a.key in expected}


def _victim(history: History, touched: frozenset[Key], source: random.Random) -> tuple[int, Arrival, Key]:
    free = _free(history, touched)
    if not free:
        raise MutationNotApplicable("something was done to each of its events")
    place = source.choice(list(free))
    return place, history.arrivals[place], free[place]


def _inserted(history: History, place: int, arrival: Arrival) -> History:
    return replace(history, arrivals=[*history.arrivals[:place], arrival, *history.arrivals[place:]])


def _moved(history: History, touched: frozenset[Key], source: random.Random, *, same_user: bool) -> Plant:
    def others(own: Socket) -> list[Socket]:
        return [
            socket
            for socket in history.sockets
            if (socket.user_id == own.user_id) is same_user and socket.thread_id != own.thread_id
        ]

    free = _free(history, touched)
    places = [place for place in free if others(history.arrivals[place].socket)]
    if not places:
        raise MutationNotApplicable("there is no socket that a frame could go to by mistake")
    place = source.choice(places)
    arrival = history.arrivals[place]
    astray = replace(arrival, socket=source.choice(others(arrival.socket)))
    arrivals = [*history.arrivals[:place], astray, *history.arrivals[place + 1 :]]
    return Plant(replace(history, arrivals=arrivals), touched | {free[place]})
