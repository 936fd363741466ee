"""The runs that witnesses are shown, and what has to be the same in both accounts of them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from bridgekit.transport.authorization import CLOSE_DRAINED
from bridgekit_verify.measure.experiment import measure
from bridgekit_verify.measure.workload import Workload, thread_ids
from bridgekit_verify.variants import Variant, variant
from tests.observers.attendance import Attendance, Opened
from tests.observers.transcripts import differences, judged, seen_by

KINDS = ("thread_123", "prefixes of one another", "spaces and unicode", "1 kB")
MIXED = tuple(owned for name in KINDS for owned in thread_ids(name, 3))


@dataclass(frozen=True)
class Scene:
    """A run, and what our client counts in it."""

    variant: Variant
    workload: Workload
    events: int
    """Event frames that our sockets read."""
    to_others: int = 0
    """Those of them that another user's socket read."""


SCENES = [
    # Everything arrives: 12 threads × 2 runs × 8 events × 2 sockets.
    Scene(variant("sound"), Workload(threads=MIXED, runs_per_thread=2, steps=2, at_once=4, subscribers=2), 384),
    # As many frames as are expected, but of three threads the two longer ones are taken for the shortest.
    Scene(variant("fix 1"), Workload(threads=thread_ids("prefixes of one another", 6), at_once=3), 30, to_others=20),
    # Nothing arrives but the confirmation of the subscription.
    Scene(variant("as reported"), Workload(threads=MIXED, at_once=4), 0),
]

every_scene = pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.variant.name)


async def assert_accounts_agree(scene: Scene, witness: Opened) -> None:
    """Show the run to the witness: every frame, every close code, the verdict and the ledger must be ours."""
    attendance = Attendance(witness)
    measurement = await measure(scene.variant, scene.workload, observer=attendance)
    ours, theirs = attendance.ours, attendance.theirs
    sockets = len(scene.workload.threads) * scene.workload.subscribers
    found = differences(ours, theirs)
    assert not found, "\n".join(found)
    assert sum(map(len, theirs.frames.values())) == sockets + scene.events
    assert theirs.closed == dict.fromkeys(range(sockets), CLOSE_DRAINED)
    assert judged(seen_by(theirs, measurement.history)) == judged(measurement.history)
    assert (measurement.verdict.frames, measurement.verdict.wrong_user) == (scene.events, scene.to_others)
