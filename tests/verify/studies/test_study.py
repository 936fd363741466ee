"""The notebooks' two comparisons, with their tables and figures, on a small scale."""

from __future__ import annotations

from io import BytesIO

import pytest
from matplotlib.figure import Figure

from bridgekit_verify.measure.experiment import measure
from bridgekit_verify.measure.plots import outcome_counts
from bridgekit_verify.measure.tables import latency_table, transcript
from bridgekit_verify.measure.workload import Workload, thread_ids
from bridgekit_verify.probes.tables import chain_table
from bridgekit_verify.studies.study import EXAMPLE, FixStudy, study_fixes, study_link
from bridgekit_verify.variants import AS_REPORTED, BROKEN, FIX_1, SOUND

pytestmark = pytest.mark.slow

LEAKING = "prefixes of one another"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # uvicorn runs on asyncio only


@pytest.fixture(scope="module")
async def fixes() -> FixStudy:
    return await study_fixes(
        threads=3, runs=1, at_once=1, families=[EXAMPLE, LEAKING], variants=[AS_REPORTED, FIX_1, SOUND]
    )


def texts_in(figure: Figure) -> str:
    """Return every text that a figure draws. Drawing it also detects layout errors."""
    figure.savefig(BytesIO(), format="png")
    return "\n".join(text.get_text() for axes in figure.axes for text in axes.texts)


async def test_fix_study_counts_what_each_fix_delivers(fixes: FixStudy) -> None:
    totals = fixes.totals().set_index("variant")
    assert list(totals[f"{EXAMPLE}: delivered"]) == ["0 of 15", "15 of 15", "15 of 15"]
    assert list(totals["all families: delivered"]) == ["0 of 30", "20 of 30", "30 of 30"]
    assert list(totals["misrouted"]) == [0, 10, 0]
    assert list(totals["families that leak"]) == [0, 1, 0]


async def test_outcome_counts_separate_leaks_from_losses(fixes: FixStudy) -> None:
    leaking = outcome_counts([fixes.cells[LEAKING, "fix 1"]])
    assert (leaking.expected, leaking.delivered, leaking.misrouted, leaking.lost) == (15, 5, 10, 0)
    lost = outcome_counts([fixes.cells[LEAKING, "as reported"]])
    assert (lost.delivered, lost.misrouted, lost.lost) == (0, 0, 15)


async def test_figures_print_their_counts(fixes: FixStudy) -> None:
    assert "20 of 30\n10 to others" in texts_in(fixes.before_after("title"))
    assert "5 of 15\n10 to others" in texts_in(fixes.matrix("title"))


async def test_transcript_of_misrouted_frames_shows_both_users(fixes: FixStudy) -> None:
    misrouted = transcript(fixes.cells[LEAKING, "fix 1"], misrouted=True, frames=4)
    assert len(misrouted) == 4
    assert (misrouted["socket of"] != misrouted["event of"]).all()


async def test_link_study_shows_before_and_after() -> None:
    study = await study_link(8, threads=2, runs=1, at_once=2)
    assert list(study.rates()["delivered"]) == [4, 10]
    assert list(study.losses()["link"]) == [8]
    assert "4 of 10" in texts_in(study.figure("title"))
    assert "link 8 broken: 4 of 10" in study.alt_text()


async def test_study_of_link_4_records_that_startup_refuses_it() -> None:
    study = await study_link(4, threads=1, runs=1, at_once=1)
    assert study.checked.refused is not None
    assert study.checked.refused.link == 4
    assert not study.checked.verdict.delivery.known


async def test_latency_is_missing_if_nothing_arrived() -> None:
    workload = Workload(threads=thread_ids(EXAMPLE, 1))
    table = latency_table([await measure(BROKEN[9], workload), await measure(SOUND, workload)])
    assert list(table["events"]) == [0, 5]
    assert table["p50 ms"].isna().tolist() == [True, False]


def test_chain_table_has_the_audits_nine_links() -> None:
    table = chain_table()
    assert list(table["link"]) == list(range(1, 10))
    assert list(table["audit says"]) == ["working"] * 8 + ["broken"]
