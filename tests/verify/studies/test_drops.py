"""Drop rates before and after each fix: of each link, and of the chains as committed and as reported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO

import pytest

from bridgekit.errors import InvalidId, UnknownName
from bridgekit_verify.measure.drops import DropCount, count_drops
from bridgekit_verify.measure.experiment import measure
from bridgekit_verify.measure.workload import Workload, thread_ids
from bridgekit_verify.studies.drops import (
    BEFORE,
    COMMITTED,
    REPORTED,
    FixDrops,
    study_drops,
    study_fix_drops,
    with_each_fix,
    with_link_9_as_reported,
)
from bridgekit_verify.variants import AS_COMMITTED, AS_REPORTED, BROKEN, FIXES

PREFIXES = "starts with another id"
NAMED = "thread_<user>_<name>"
KINDS = ("thread_123", NAMED, PREFIXES)
ALL_FIXES = "fixes 1, 2 and 3"
WORKLOAD = Workload(threads=thread_ids("thread_123", 2), at_once=2)
DROPPED_BY_LINK = {1: 10, 2: 10, 3: 6, 4: 10, 5: 10, 6: 10, 7: 10, 8: 10, 9: 10}
"""The events that a chain with this link and link 9 broken drops, of two runs."""
LEFT_BY_THE_FIXES = {1: 10, 2: 10, 3: 6, 4: 10, 5: 3, 6: 6, 7: 6, 8: 6, 9: 0}
"""The events of two concurrent runs that are dropped after all fixes."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # uvicorn runs on asyncio only


@pytest.fixture(scope="module")
async def drops() -> FixDrops:
    return await study_fix_drops(threads=3, runs=1, at_once=3, families=KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("number", BROKEN)
async def test_link_drops_events_before_and_none_after_its_repair(number: int) -> None:
    study = await study_drops(number, WORKLOAD)
    steps = list(study.counts)
    assert steps[0] == BEFORE
    assert study.counts[BEFORE].dropped == DROPPED_BY_LINK[number]
    assert study.counts[ALL_FIXES].dropped == LEFT_BY_THE_FIXES[number]
    assert study.counts[study.repair].complete
    assert study.repair.endswith(f"link {number} repaired")
    assert [count.expected for count in study.counts.values()] == [DROPPED_BY_LINK[number]] * len(steps)


@pytest.mark.slow
async def test_shared_agent_leaks_after_the_fixes_and_the_figure_says_so() -> None:
    study = await study_drops(5, WORKLOAD)
    assert study.counts[ALL_FIXES].leaked == 3
    assert study.counts[BEFORE].leaked == 0
    assert study.finding() == (
        "After all three fixes, 3 of 10 events are dropped, and 3 leak. With link 5 repaired as well, no event is"
        " dropped"
    )
    assert "Fix 3: 3 of 10, 3 leaked (at link 5: 3)" in study.alt_text()
    figure = study.figure(study.finding())
    figure.savefig(BytesIO(), format="png")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "3 leaked" in texts
    assert "at link 5: 3" in texts


@pytest.mark.slow
async def test_table_of_a_link_agrees_with_its_measurements() -> None:
    table = (await study_drops(8, WORKLOAD)).table().set_index("step")
    before = count_drops(await measure(with_link_9_as_reported(BROKEN[8]), WORKLOAD))
    assert table.loc[BEFORE, "delivered"] == before.delivered == 0
    by_link = table[["dropped at link 8", "dropped at other links"]]
    assert [*by_link.loc[BEFORE]] == [6, 4]
    assert [*by_link.loc[ALL_FIXES]] == [6, 0]
    assert (table["expected"] == table["delivered"] + table["lost"] + table["leaked"]).all()


async def test_unknown_link_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="no link is called 10; known: '1', '2'"):
        await study_drops(10, WORKLOAD)


@pytest.mark.parametrize("number", BROKEN)
def test_broken_link_keeps_its_defect_beside_link_9(number: int) -> None:
    chain = with_link_9_as_reported(BROKEN[number])
    parts = ("hub", "supervisor", "registry", "engine", "core", "agent", "adapter")
    assert [getattr(chain, part) for part in parts] == [getattr(BROKEN[number], part) for part in parts]
    assert (chain.run_ids, chain.resolver) == (AS_REPORTED.run_ids, AS_REPORTED.resolver)


def test_each_fix_is_applied_once_to_the_chain_itself() -> None:
    chains = with_each_fix(AS_COMMITTED)
    assert chains[0] is AS_COMMITTED
    assert [chain.name for chain in chains[1:]] == list(FIXES)
    assert all(chain.hub is AS_COMMITTED.hub for chain in chains)


@pytest.mark.slow
async def test_readers_own_ids_are_counted_like_the_others() -> None:
    drops = await study_fix_drops(threads=1, runs=1, at_once=1, families={"mine": ["thread_7", "thread_7_late"]})
    after_fix_1, after_fix_3 = (drops.counts[REPORTED][fix]["mine"] for fix in ("fix 1", "fix 3"))
    assert (after_fix_1.expected, after_fix_1.delivered, after_fix_1.leaked) == (10, 5, 5)
    assert after_fix_3.delivered == 10
    assert drops.table()["documented"].all()


async def test_unusable_id_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(InvalidId, match=re.escape("families['mine'][1]")):
        await study_fix_drops(threads=1, runs=1, at_once=1, families={"mine": ["thread_7", ""]})


@pytest.mark.slow
async def test_table_has_every_chain_step_and_kind_once(drops: FixDrops) -> None:
    table = drops.table()
    assert list(table.columns) == [
        "chain", "step", "thread ids", "documented", "expected", "delivered", "lost", "leaked", "false success",
    ]  # fmt: skip
    keys = list(zip(table["chain"], table["step"], table["thread ids"], strict=True))
    assert keys == [
        (chain, step, kind) for chain in (COMMITTED, REPORTED) for step in (BEFORE, *FIXES) for kind in KINDS
    ]
    assert dict(zip(table["thread ids"], table["documented"], strict=True)) == {
        "thread_123": True,
        NAMED: True,
        PREFIXES: False,
    }
    assert set(table["expected"]) == {15}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chain", "step", "delivered", "leaked"),
    [
        (COMMITTED, BEFORE, (0, 0, 0), 0),
        *((COMMITTED, fix, (0, 0, 0), 0) for fix in FIXES),
        (REPORTED, BEFORE, (0, 0, 0), 0),
        (REPORTED, "fix 1", (15, 0, 5), 10),
        (REPORTED, "fix 2 as written", (0, 0, 0), 0),
        (REPORTED, "fix 2 with its method", (15, 15, 15), 0),
        (REPORTED, "fix 3", (15, 15, 15), 0),
        (REPORTED, "fixes 1 and 2 as written", (15, 0, 5), 10),
        (REPORTED, "fixes 1 and 2 with the method", (15, 0, 5), 10),
        (REPORTED, "fixes 1, 2 and 3", (15, 15, 15), 0),
    ],
)
async def test_each_step_delivers_what_its_chain_can(
    drops: FixDrops, chain: str, step: str, delivered: tuple[int, ...], leaked: int
) -> None:
    assert tuple(count.delivered for count in drops.counts[chain][step].values()) == delivered
    assert drops.total(chain, step).leaked == leaked


@pytest.mark.slow
async def test_counts_are_those_of_the_measured_chains(drops: FixDrops) -> None:
    workload = Workload(threads=thread_ids(PREFIXES, 3), at_once=3)
    base = {COMMITTED: AS_COMMITTED, REPORTED: AS_REPORTED}
    for chain, steps in drops.counts.items():
        for step, kinds in steps.items():
            variant = base[chain] if step == BEFORE else FIXES[step].applied_to(base[chain])
            assert kinds[PREFIXES] == count_drops(await measure(variant, workload)), (chain, step)


@pytest.mark.slow
async def test_readers_own_texts_state_the_measured_numbers(drops: FixDrops) -> None:
    assert drops.finding() == (
        "As committed, no fix delivers an event.\n"
        "With only link 9 broken, Fix 1 fails for 1 of 2 documented kinds of thread id, and Fix 3 for none."
    )
    sentences = " ".join(drops.sentences())
    assert (
        "deliver every event of every kind of thread id: Fix 2 with its method; Fix 3; Fixes 1, 2 and 3." in sentences
    )
    assert "Fix 1 (10 of 45 events)" in sentences
    assert (
        "With only link 9 broken, Fix 2 with its method fails for none of 3 kinds of thread id."
        " Together with Fix 1, Fix 2 with its method fails for 2 of 3 kinds." in (sentences)
    )
    assert (
        "Fix 1: documented 1 of 2, stress 1 of 1; Fix 2 as written: documented 2 of 2, stress 1 of 1"
        in drops.alt_text()
    )


def count(delivered: int, *, leaked: int = 0) -> DropCount:
    return DropCount(10, delivered, 10 - delivered - leaked, leaked, 0, {}, frozenset())


def literal(committed: Mapping[str, int], reported: Mapping[str, int], *, leaked: int = 0) -> FixDrops:
    """Return drop rates of one documented kind with these delivered events; a step that is not named delivers none."""
    counts = {
        chain: {step: {"thread_123": count(delivered.get(step, 0))} for step in (BEFORE, *FIXES)}
        for chain, delivered in ((COMMITTED, committed), (REPORTED, reported))
    }
    if leaked:
        counts[REPORTED]["fix 1"] = {"thread_123": count(10 - leaked, leaked=leaked)}
    return FixDrops(counts, {"documented": ["thread_123"]})


@pytest.mark.parametrize(
    ("drops", "finding"),
    [
        (
            literal({}, {"fix 1": 10, "fix 3": 10}),
            "As committed, no fix delivers an event.\nWith only link 9 broken, Fix 1 fails for none of 1"
            " documented kinds of thread id, and Fix 3 for none.",
        ),
        (
            literal({"fix 3": 4, "fix 1": 2}, {"fix 1": 9}),
            "As committed, the fixes deliver at most 4 of 10 events.\nWith only link 9 broken, Fix 1 fails for 1 of 1"
            " documented kinds of thread id, and Fix 3 for 1.",
        ),
        (
            literal({"fix 1": 10}, {"fix 3": 10}),
            "As committed, every event is delivered after Fix 1.\nWith only link 9 broken, Fix 1 fails for 1 of 1"
            " documented kinds of thread id, and Fix 3 for none.",
        ),
    ],
)
def test_finding_follows_from_the_counts(drops: FixDrops, finding: str) -> None:
    assert drops.finding() == finding


def test_leak_makes_a_fix_fail_even_if_most_events_arrive() -> None:
    drops = literal({}, {"fix 3": 10}, leaked=1)
    assert drops.leaking(REPORTED) == ["fix 1"]
    assert "Fix 1 fails for 1 of 1" in drops.finding()
    assert (
        "With only link 9 broken, these fixes leak events to another user: Fix 1 (1 of 10 events)." in drops.sentences()
    )


def test_sentences_change_if_fix_1_does_not_harm_fix_2() -> None:
    drops = literal({}, {"fix 2 with its method": 10, "fixes 1 and 2 with the method": 10})
    assert drops.sentences()[3] == (
        "With only link 9 broken, Fix 2 with its method fails for none of 1 kinds of thread id."
        " Together with Fix 1, Fix 2 with its method fails for none of 1 kinds."
    )


def test_swapping_before_and_after_changes_table_and_texts() -> None:
    drops = literal({}, {"fix 3": 10})
    steps = dict(drops.counts[REPORTED])
    steps[BEFORE], steps["fix 3"] = steps["fix 3"], steps[BEFORE]
    swapped = replace(drops, counts={**drops.counts, REPORTED: steps})
    assert swapped.finding() != drops.finding()
    assert swapped.alt_text() != drops.alt_text()
    assert not swapped.table().equals(drops.table())


async def test_own_ids_may_be_an_iterator() -> None:
    study = await study_fix_drops(threads=1, runs=1, at_once=1, families={"mine": iter(["a", "b"])})
    assert len(study.table())
