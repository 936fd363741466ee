"""Measurements of chosen results, without a server: what Alice's runs emitted, and who read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bridgekit.events import EventType
from bridgekit.ids import RunId, ThreadId, UserId
from bridgekit_verify.measure.attribution import Attribution
from bridgekit_verify.measure.checker import check
from bridgekit_verify.measure.experiment import Measurement
from bridgekit_verify.measure.history import Arrival, EventKey, Expectation, History, Socket
from bridgekit_verify.measure.workload import Workload, thread_ids
from bridgekit_verify.studies.links_and_fixes import EXAMPLE, FixStudy
from bridgekit_verify.variants import SOUND, Variant

ALICE, BOB = Socket(0, ThreadId("thread_1"), UserId("alice")), Socket(1, ThreadId("thread_2"), UserId("bob"))


def thoughts(delivered: int, misrouted: int, lost: int) -> History:
    """Return Alice's thoughts: so many that she read, that Bob read, and that nobody read."""
    history = History(sockets=[ALICE, BOB])
    readers = [ALICE] * delivered + [BOB] * misrouted + [None] * lost
    for number, socket in enumerate(readers, start=1):
        key = EventKey(f"question {number}", EventType.AGENT_THINKING, 1)
        history.expected.append(Expectation(key, ALICE.thread_id, ALICE.user_id))
        if socket is not None:
            history.arrivals.append(Arrival(socket, key, RunId("run_1"), number, 0.0, 1.0))
    return history


def measured(variant: Variant, history: History, *, false_success: int = 0, at_once: int = 1) -> Measurement:
    verdict = replace(check(history), false_success=false_success, acknowledged=len(history.expected))
    return Measurement(variant, Workload(threads=thread_ids("thread_123", 2), at_once=at_once), 0, history, verdict)


Counts = tuple[int, int, int]
"""Events that are delivered, misrouted and lost."""
KINDS = (EXAMPLE, "chat_<n>", "starts with another id")
EACH = (5, 6, 7)
"""The events of each kind."""


def cell(counts: Counts, link: int = 9) -> Measurement:
    """Return a measurement whose losses have one cause."""
    found, losses = measured(SOUND, thoughts(*counts)), {Attribution(link, "a cause"): sum(counts[1:])}
    return replace(found, verdict=replace(found.verdict, losses=losses))


def every(link: int = 9) -> dict[str, Measurement]:
    """Return measurements in which no event arrives, because one link stops it."""
    return {kind: cell((0, 0, n), link) for kind, n in zip(KINDS, EACH, strict=True)}


def none() -> dict[str, Measurement]:
    """Return measurements in which every event arrives."""
    return {kind: measured(SOUND, thoughts(n, 0, 0)) for kind, n in zip(KINDS, EACH, strict=True)}


def some(*counts: Counts) -> dict[str, Measurement]:
    return {kind: cell(each) for kind, each in zip(KINDS, counts, strict=True)}


PARSED = some((5, 0, 0), (0, 2, 4), (3, 4, 0))
"""What the audit's parser delivers."""


def study_of(steps: Mapping[str, Mapping[str, Measurement]]) -> FixStudy:
    return FixStudy({(kind, step): cells[kind] for kind in KINDS for step, cells in steps.items()})
