"""Whole measurements over real sockets: the verdict of each variant on a workload, some on both async backends.

`test_both_backends` checks that both backends give the same verdict for every variant.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridgekit_verify import as_committed
from bridgekit_verify.audited_routing import EmbeddedRunIds
from bridgekit_verify.measure.experiment import measure
from bridgekit_verify.measure.ledger import Attribution
from bridgekit_verify.measure.statistics import Rate
from bridgekit_verify.measure.workload import FAMILIES, Workload, thread_ids
from bridgekit_verify.variants import AS_COMMITTED, BROKEN, FIXES, SOUND, Fix, variant

SMALL = Workload(threads=thread_ids("thread_123", 4), at_once=2)
EVERY_FAMILY = tuple(owned for name in FAMILIES for owned in thread_ids(name, 3))
REFUSED_BY_ITS_CHECK = replace(SOUND, name="refused", engine=as_committed.EngineWithItsOwnBridge)


on_both_backends = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.slow
@on_both_backends
async def test_sound_chain_delivers_everything_in_every_family_to_every_subscriber() -> None:
    workload = Workload(threads=EVERY_FAMILY, runs_per_thread=2, steps=2, at_once=7, subscribers=2)
    verdict = (await measure(SOUND, workload)).verdict
    n = len(EVERY_FAMILY) * 2 * 8 * 2
    assert verdict.delivery == Rate(n, n)
    assert (verdict.frames, verdict.acknowledged) == (n, n // 2)
    assert (verdict.extra_copies, verdict.misrouted, verdict.unexpected, verdict.reordered) == (0, 0, 0, 0)
    assert (verdict.false_success, verdict.false_failure) == (0, 0)


async def test_chain_as_reported_loses_every_event_at_link_9() -> None:
    verdict = (await measure(variant("as reported"), SMALL)).verdict
    assert verdict.delivery == Rate(0, 20)
    assert verdict.lost_at == {9: 20}
    assert verdict.false_success == 0


@pytest.mark.parametrize("name", [name for name in FIXES if name != "fix 2 as written"])
async def test_fix_delivers_everything_with_the_reports_own_thread_ids(name: str) -> None:
    verdict = (await measure(variant(name), SMALL)).verdict
    assert (verdict.delivery, verdict.misrouted) == (Rate(20, 20), 0)


async def test_fix_2_as_written_delivers_nothing_alone() -> None:
    """D9b: the run id names no thread, and the orchestrator lacks the method."""
    assert (await measure(variant("fix 2 as written"), SMALL)).verdict.delivery == Rate(0, 20)


async def test_fix_1_makes_fix_2_with_its_method_worse() -> None:
    """D9c: the parser comes before the query, so a run id that contains a thread id resolves to a part of it."""
    workload = Workload(threads=thread_ids("starts with another id", 6))
    alone, with_fix_1 = [
        (await measure(variant(name), workload)).verdict
        for name in ("fix 2 with its method", "fixes 1 and 2 with the method")
    ]
    assert (alone.delivery, alone.misrouted) == (Rate(30, 30), 0)
    assert (with_fix_1.delivery, with_fix_1.wrong_user) == (Rate(10, 30), 20)


@pytest.mark.parametrize("fix", FIXES.values(), ids=lambda fix: fix.name)
async def test_no_fix_delivers_anything_on_the_chain_as_committed(fix: Fix) -> None:
    verdict = (await measure(fix.applied_to(AS_COMMITTED), SMALL)).verdict
    assert verdict.delivery == Rate(0, 20)
    assert verdict.lost_at[8] == 12


async def test_fix_1_misroutes_where_ids_are_prefixes_of_one_another() -> None:
    """D9c: of three threads, the parser resolves the two longer ids to the shortest."""
    workload = Workload(threads=thread_ids("starts with another id", 6))
    verdict = (await measure(variant("fix 1"), workload)).verdict
    assert verdict.delivery == Rate(10, 30)
    assert (verdict.wrong_user, verdict.wrong_thread, verdict.false_success) == (20, 0, 20)
    assert verdict.misroutes == {Attribution(9, "sent to another thread"): 20}
    assert verdict.reordered == 0


async def test_loss_to_a_thread_that_fix_1_invented_is_attributed_to_link_9() -> None:
    """No socket is subscribed to `thread_alice`, but link 9 named that thread."""
    workload = Workload(threads=thread_ids("thread_<user>_<name>", 2))
    verdict = (await measure(variant("fix 1"), workload)).verdict
    assert verdict.losses == {Attribution(9, "sent to another thread"): 10}


@on_both_backends
@pytest.mark.parametrize(
    ("link", "attributed", "reason", "delivered"),
    [
        (1, 10, "no socket of the thread accepted it", 0),
        (2, 2, "the supervisor holds another bridge", 0),
        (3, 3, "the agent received no bridge", 0),
        (4, 4, "the engine holds another bridge", 0),
        (5, 5, "the agent emitted the event for another run", 14),
        (6, 6, "the agent did not bind its adapter", 8),
        (7, 7, "the adapter does not hold both a bridge and a run", 8),
        (8, 8, "the adapter did not pass the event to the bridge", 8),
        (9, 9, "the orchestrator call failed; the run id names no thread", 0),
    ],
)
async def test_losses_are_attributed_to_the_broken_link(
    link: int, attributed: int, reason: str, delivered: int
) -> None:
    """With link 1 broken, link 10 loses the events: startup should have detected this."""
    workload = replace(SMALL, outside_core=link == 3)
    measurement = await measure(BROKEN[link], workload)
    assert measurement.verdict.delivered == delivered
    assert measurement.verdict.losses == {Attribution(attributed, reason): measurement.verdict.expected - delivered}
    assert sum(row.copies for row in measurement.ledger) == delivered


@pytest.mark.parametrize("at_once", [1, 2, 3, 6])
async def test_shared_agents_misroute_all_but_one_of_the_concurrent_runs(at_once: int) -> None:
    """D5: the share (c - 1) / c of agents' events goes to the user whose run started last."""
    workload = Workload(threads=thread_ids("chat_<n>", 6), steps=2, at_once=at_once)
    verdict = (await measure(BROKEN[5], workload)).verdict
    emitted_by_agents = 6 * 2 * 3
    assert verdict.wrong_user * at_once == emitted_by_agents * (at_once - 1)
    assert verdict.lost == verdict.misrouted
    assert verdict.frames == verdict.expected


async def test_chain_as_committed_delivers_nothing_and_loses_agents_events_at_link_8() -> None:
    verdict = (await measure(variant("as committed"), SMALL)).verdict
    assert verdict.delivery == Rate(0, 20)
    assert verdict.lost_at == {8: 12, 9: 8}


async def test_chain_as_committed_reports_unread_events_as_sent_after_fix_1() -> None:
    """D10: the events reach the hub, which has no socket for them and reports them as sent."""
    repaired = replace(variant("as committed"), run_ids=EmbeddedRunIds)
    verdict = (await measure(repaired, SMALL)).verdict
    assert verdict.delivery == Rate(0, 20)
    assert verdict.false_success == verdict.acknowledged == 8


@pytest.mark.parametrize("name", ["fix 1", "link 5 broken"])
async def test_same_seed_gives_the_same_verdict_and_the_same_run_ids(name: str) -> None:
    workload = Workload(threads=thread_ids("starts with another id", 6), steps=2, at_once=3)
    one, other = [await measure(variant(name), workload, seed=5) for _ in range(2)]
    assert one.verdict == other.verdict
    ids = [[run_id for run_id, _ in each.history.acknowledged.values()] for each in (one, other)]
    if name == "fix 1":
        assert ids[0] == ids[1]


async def test_application_that_refuses_to_start_leaves_delivery_unknown() -> None:
    measurement = await measure(REFUSED_BY_ITS_CHECK, SMALL)
    assert measurement.refused is not None
    assert measurement.refused.link == 4
    assert not measurement.verdict.delivery.known
    assert measurement.ledger == []


async def test_sound_chain_outside_the_core_delivers_agents_events() -> None:
    verdict = (await measure(SOUND, replace(SMALL, outside_core=True))).verdict
    assert verdict.delivery == Rate(12, 12)


async def test_latency_is_known_only_for_events_that_arrived() -> None:
    rows = (await measure(BROKEN[8], SMALL)).ledger
    assert {row.copies: row.latency_seconds is not None for row in rows} == {1: True, 0: False}
    assert all(0 <= row.latency_seconds < 60 for row in rows if row.latency_seconds is not None)
