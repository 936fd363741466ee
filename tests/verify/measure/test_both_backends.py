"""The same seed gives the same counts on asyncio and on trio, over real sockets.

trio shuffles the order of its tasks on purpose, and servers and clients of the two backends share no code. A count that
depended on the order of tasks would differ here.
"""

from __future__ import annotations

from functools import partial

import anyio
import pytest

from bridgekit_verify.measure.experiment import Measurement, measure
from bridgekit_verify.measure.workload import OfflinePattern, Workload, thread_ids
from bridgekit_verify.validation.frame_loss import HubThatLoses, with_frame_loss
from bridgekit_verify.variants import BROKEN, SOUND, Variant, variant

pytestmark = pytest.mark.slow

TRIALS_ON_TRIO = 2

WORKLOADS = {
    "several at once": Workload(threads=thread_ids("starts with another id", 6), steps=2, at_once=3, subscribers=2),
    "two runs of a thread at once": Workload(threads=thread_ids("chat_<n>", 2), runs_per_thread=4, at_once=4),
    "some users without a socket": Workload(
        threads=thread_ids("spaces and unicode", 4), runs_per_thread=2, at_once=4, users_without_socket=1
    ),
    "users go offline and return": Workload(
        threads=thread_ids("thread_123", 3), runs_per_thread=6, at_once=3, offline=OfflinePattern(1, of=3)
    ),
}
VARIANTS = (SOUND, *(variant(name) for name in ("as reported", "fix 1", "fixes 1, 2 and 3", "as committed")), BROKEN[5])


def measured_on(backend: str, row: Variant, workload: Workload, seed: int = 11) -> Measurement:
    return anyio.run(partial(measure, row, workload, seed=seed), backend=backend)


@pytest.mark.short_form(12)
@pytest.mark.parametrize("row", VARIANTS, ids=lambda row: row.name)
@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS)
def test_verdict_is_the_same_on_both_backends(row: Variant, workload: Workload) -> None:
    on_asyncio = measured_on("asyncio", row, workload)
    assert on_asyncio.verdict.expected > 0
    for _ in range(TRIALS_ON_TRIO):
        on_trio = measured_on("trio", row, workload)
        assert on_trio.verdict == on_asyncio.verdict
        assert read(on_trio) == read(on_asyncio)


def read(measurement: Measurement) -> list[tuple[object, ...]]:
    """Return what each socket read, in any order."""
    return sorted((arrival.socket.number, arrival.key) for arrival in measurement.history.arrivals)


def test_dropped_frames_are_the_same_on_both_backends() -> None:
    measured = [
        measured_on(backend, with_frame_loss(SOUND, HubThatLoses(0.3, seed=3)), WORKLOADS["several at once"])
        for backend in ("asyncio", "trio", "trio")
    ]
    assert 0 < measured[0].verdict.lost < measured[0].verdict.expected
    assert [each.verdict for each in measured] == [measured[0].verdict] * 3
    assert [read(each) for each in measured] == [read(measured[0])] * 3
