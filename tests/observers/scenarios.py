"""The runs that independent clients observe, and the comparison of both transcripts."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from bridgekit.transport.authorization import CLOSE_DRAINED
from bridgekit_verify.measure.experiment import measure
from bridgekit_verify.measure.workload import Workload, thread_ids
from bridgekit_verify.variants import Variant, variant
from tests.observers.independent_clients import ClientLauncher, TranscriptPair
from tests.observers.transcripts import differences, history_from, verdict_and_rows

KINDS = ("thread_123", "starts with another id", "spaces and unicode", "1 kB")
MIXED = tuple(owned for name in KINDS for owned in thread_ids(name, 3))


@dataclass(frozen=True)
class Scenario:
    """A run and the number of events that bridgekit's client reads in it."""

    variant: Variant
    workload: Workload
    events: int
    """Event frames that the sockets read."""
    misrouted_events: int = 0
    """Event frames that another user's socket read."""


SCENARIOS = [
    # Everything arrives: 12 threads × 2 runs × 8 events × 2 sockets.
    Scenario(variant("sound"), Workload(threads=MIXED, runs_per_thread=2, steps=2, at_once=4, subscribers=2), 384),
    # As many frames as expected, but the events of the two longer thread ids go to the shortest one.
    Scenario(
        variant("fix 1"), Workload(threads=thread_ids("starts with another id", 6), at_once=3), 30, misrouted_events=20
    ),
    # Nothing arrives but the confirmation of the subscription.
    Scenario(variant("as reported"), Workload(threads=MIXED, at_once=4), 0),
]

every_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.variant.name)


async def assert_transcripts_agree(scenario: Scenario, client: ClientLauncher) -> None:
    """Measure with the independent client and compare every frame, every close code, the verdict and the ledger."""
    transcripts = TranscriptPair(client)
    measurement = await measure(scenario.variant, scenario.workload, observer=transcripts)
    ours, theirs = transcripts.ours, transcripts.theirs
    sockets = len(scenario.workload.threads) * scenario.workload.subscribers
    found = differences(ours, theirs)
    assert not found, "\n".join(found)
    assert sum(map(len, theirs.frames.values())) == sockets + scenario.events
    assert theirs.closed == dict.fromkeys(range(sockets), CLOSE_DRAINED)
    assert verdict_and_rows(history_from(theirs, measurement.history)) == verdict_and_rows(measurement.history)
    assert (measurement.verdict.frames, measurement.verdict.wrong_user) == (scenario.events, scenario.misrouted_events)
