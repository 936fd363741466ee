"""The notebooks' two comparisons, with their tables and figures, on a small scale."""

from __future__ import annotations

from typing import Any

import pytest

from bridgekit_verify.errors import InvalidParameter
from bridgekit_verify.measure.tables import loss_table, transcript
from bridgekit_verify.probes.tables import chain_table
from bridgekit_verify.studies.links_and_fixes import EXAMPLE, FixStudy, study_fixes, study_link
from bridgekit_verify.variants import AS_REPORTED, FIX_1, SOUND

pytestmark = pytest.mark.slow

LEAKING = "starts with another id"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # uvicorn runs on asyncio only


@pytest.fixture(scope="module")
async def fixes() -> FixStudy:
    return await study_fixes(
        threads=3, runs=1, at_once=1, families=[EXAMPLE, LEAKING], variants=[AS_REPORTED, FIX_1, SOUND]
    )


async def test_fix_study_counts_the_families_that_each_fix_delivers(fixes: FixStudy) -> None:
    assert (fixes.delivering("fix 1"), fixes.dropping("fix 1"), fixes.leaking("fix 1")) == (
        (EXAMPLE,),
        (LEAKING,),
        (LEAKING,),
    )


async def test_fix_study_has_one_row_for_each_family_and_no_sum(fixes: FixStudy) -> None:
    rows = fixes.counts("fix 1")
    assert rows[["thread ids", "documented", "expected", "delivered", "misrouted"]].to_numpy().tolist() == [
        [EXAMPLE, True, 15, 15, 0],
        [LEAKING, False, 15, 5, 10],
    ]
    assert not [name for name in rows.columns if "%" in name]
    assert len(fixes.counts()) == 6


async def test_summary_states_how_many_families_are_affected(fixes: FixStudy) -> None:
    assert fixes.summary("fix 1") == (
        "every event reaches its user for 1 of 1 documented kind and 0 of 1 stress kind of thread id."
        f" Events of 1 of 2 kinds of thread id leak to another user: '{LEAKING}'."
    )
    assert fixes.summary("sound").endswith(" No event leaks.")


async def test_own_thread_ids_are_studied_like_any_family() -> None:
    own = {"mine": ["thread_alice_1", "thread_alice", "support-42"]}
    study = await study_fixes(threads=9, runs=1, at_once=2, families=own, variants=[FIX_1, SOUND])
    assert study.groups == {"your own": ("mine",)}
    assert study.example_family == "mine"
    rows = study.counts()
    assert rows[["variant", "expected", "delivered", "misrouted"]].to_numpy().tolist() == [
        ["fix 1", 15, 5, 5],
        ["sound", 15, 15, 0],
    ]


async def test_each_fix_alone_and_together_delivers_these_families() -> None:
    """Fix 1 makes Fix 2 with its method worse, and Fix 3 alone delivers everything."""
    study = await study_fixes(threads=3, runs=1, at_once=3)
    assert [len(study.delivering(name)) for name in study.variants] == [0, 5, 0, 13, 13, 5, 8, 13, 13]
    assert [len(study.leaking(name)) for name in study.variants] == [0, 1, 0, 0, 0, 1, 1, 0, 0]


async def test_transcript_of_misrouted_frames_shows_both_users(fixes: FixStudy) -> None:
    misrouted = transcript(fixes.cells[LEAKING, "fix 1"], misrouted=True, frames=4)
    assert len(misrouted) == 4
    assert (misrouted["socket of"] != misrouted["event of"]).all()


async def test_link_study_shows_before_and_after() -> None:
    study = await study_link(8, threads=2, runs=1, at_once=2)
    assert [each.verdict.delivered for each in (study.before, study.after)] == [4, 10]
    assert list(loss_table([study.before, study.after])["link"]) == [8]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"threads": 0}, "threads must be a whole number of at least 1, not 0"),
        ({"threads": "six"}, "threads must be a whole number of at least 1, not 'six'"),
        ({"runs": 0}, "runs must be a whole number of at least 1, not 0"),
        ({"runs": True}, "runs must be a whole number of at least 1, not True"),
        ({"at_once": 0}, "at_once must be a whole number of at least 1, not 0"),
    ],
)
async def test_link_study_says_which_sizes_are_allowed(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter, match=f"^{message}$"):
        await study_link(1, **{"threads": 1, "runs": 1, "at_once": 1} | changed)


async def test_study_of_link_4_records_that_startup_refuses_it() -> None:
    study = await study_link(4, threads=1, runs=1, at_once=1)
    assert study.checked.refused is not None
    assert study.checked.refused.link == 4
    assert not study.checked.verdict.delivery.known


def test_chain_table_has_the_audits_nine_links() -> None:
    table = chain_table()
    assert list(table["link"]) == list(range(1, 10))
    assert list(table["audit says"]) == ["working"] * 8 + ["broken"]
