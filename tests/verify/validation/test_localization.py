"""Localization: probes and ledger name the link for every breakage. On asyncio, over real sockets.

Notebook 14, which `make test` executes, breaks all links.
"""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import pytest

from bridgekit_verify.probes.probes import ProbeAnswer
from bridgekit_verify.validation.broken_links import BREAKAGES, WAYS, Breakage
from bridgekit_verify.validation.localization import NAMES, UNEXPLAINED, Localization, localize
from bridgekit_verify.variants import SOUND

pytestmark = pytest.mark.acceptance  # `make test` breaks each link in notebook 14

BROKEN_LINKS = (1, 5, 8, 9, 10)
"""The first and the last link, and those in which a delayed event has its own reason."""
CHOSEN = [row for row in BREAKAGES if row.link in BROKEN_LINKS]

WHERE_ONLY_THE_PROBES_NAME_IT = {"link 1 swallowed"}
"""Only the startup check is broken, and no event passes through it.

The ledger names the defect that the check missed.
"""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # uvicorn runs on asyncio only


@pytest.fixture(scope="module")
async def found() -> Localization:
    return await localize(CHOSEN)


def test_every_link_is_broken_in_every_way_and_only_once() -> None:
    assert [(row.link, row.way) for row in BREAKAGES] == [(link, way) for link in NAMES for way in WAYS]
    assert len({row.variant.name for row in BREAKAGES}) == len(BREAKAGES)
    assert all(row.name == row.variant.name and row.variant.summary for row in BREAKAGES)


async def test_probes_name_only_the_broken_link_and_the_hub_that_startup_did_not_check(
    found: Localization,
) -> None:
    named = {case.breakage.name: case.by_probes for case in found.cases}
    expected = {row.name: (row.link,) for row in CHOSEN} | {"link 1 swallowed": (1, 10)}
    assert named == expected


async def test_ledger_attributes_every_loss_misroute_and_delay_to_the_broken_link(found: Localization) -> None:
    named = {case.breakage.name: case.by_ledger for case in found.cases}
    expected = {row.name: (row.link,) for row in CHOSEN} | {"link 1 swallowed": (10,)}
    assert named == expected
    assert set(WHERE_ONLY_THE_PROBES_NAME_IT) == {
        name for name, links in expected.items() if int(name.split()[1]) not in links
    }


async def test_every_breakage_has_an_effect(found: Localization) -> None:
    """A breakage without an effect could not be named, and would prove nothing."""
    assert [case.breakage.name for case in found.cases if not case.attributions] == []
    refused = [case.breakage.name for case in found.cases if case.measurement.refused is not None]
    assert refused == ["link 1 raises"]


async def test_delays_are_attributed_with_these_reasons(found: Localization) -> None:
    late = {
        case.breakage.link: [attribution.reason for attribution in case.attributions]
        for case in found.cases
        if case.breakage.way == "delayed" and case.measurement.verdict.lost == 0
    }
    assert late == {
        5: ["the core emitted the event late"],
        8: ["requested in order, but emitted late"],
        9: ["emitted in order, but sent late"],
    }


async def test_no_link_reorders_what_a_socket_reads(found: Localization) -> None:
    """An event that is delayed before it is numbered keeps the order of its number."""
    assert {case.breakage.name for case in found.cases if case.measurement.verdict.reordered} == set()


async def test_frame_delayed_after_the_hub_is_signalled_as_a_gap(found: Localization) -> None:
    """A socket receives only rising numbers: a delayed one becomes a gap, which the client receives."""
    [late] = [case.measurement.verdict for case in found.cases if case.breakage.name == "link 10 delayed"]
    assert late.lost_signalled > 0
    assert late.misrouted == late.extra_copies == 0


async def test_error_that_a_link_raises_is_the_evidence(found: Localization) -> None:
    raising = [case for case in found.cases if case.breakage.way == "raises"]
    for case in raising:
        [evidence] = [probe.evidence for probe in case.probes if probe.answer is ProbeAnswer.DOES_NOT_HOLD]
        assert f"OSError: link {case.breakage.link} is broken" in evidence


async def test_no_link_of_the_sound_chain_is_named(found: Localization) -> None:
    assert (found.sound.by_probes, found.sound.by_ledger, found.sound.attributions) == ((), (), {})
    assert all(probe.answer is ProbeAnswer.HOLDS for probe in found.sound.probes)


async def test_matrix_has_a_full_diagonal_and_explains_every_other_cell(found: Localization) -> None:
    matrix = found.matrix()
    diagonal = [matrix.iloc[link - 1, link - 1] for link in BROKEN_LINKS]
    assert diagonal == ["5 of 5, ledger 4", *["5 of 5"] * 4]
    beside = {
        (row + 1, column + 1): matrix.iloc[row, column]
        for row in range(10)
        for column in range(10)
        if row != column and matrix.iloc[row, column]
    }
    assert beside == {(1, 10): "a"}
    why = found.explanations()
    assert list(why["cell"]) == ["a"]
    assert UNEXPLAINED not in set(why["why"])
    assert found.holds
    assert found.alt_text().startswith("For 25 of 25 breakages, the suite names the broken link")
    assert len(found.table()) == len(CHOSEN) == 25


async def test_figure_prints_counts_and_explanations(found: Localization) -> None:
    figure = found.figure()
    figure.savefig(BytesIO(), format="png")
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert words.count("5 of 5") == len(BROKEN_LINKS)
    assert "a" in words
    assert "is assigned to a thread" in str(figure.get_supxlabel())
    [axis] = figure.axes
    cell_width = axis.get_window_extent().width / len(NAMES)
    too_wide = [text.get_text() for text in axis.texts if text.get_window_extent().width > cell_width]
    assert too_wide == []


async def test_breakage_that_cannot_be_named_leaves_its_diagonal_cell_empty() -> None:
    """The matrix can fail: one link is labelled broken and is sound, and one is labelled as another."""
    sound = Breakage(4, "raises", replace(SOUND, name="not broken at all"))
    mistaken = replace(BREAKAGES[5], link=7)
    found = await localize([sound, mistaken])
    assert (found.named, found.holds) == (0, False)
    assert [found.matrix().iloc[link - 1, link - 1] for link in (4, 7)] == ["0 of 1", "0 of 1"]
    assert list(found.explanations()["why"]) == [UNEXPLAINED]
    found.figure().savefig(BytesIO(), format="png")


async def test_localization_without_cases_does_not_hold() -> None:
    assert not (await localize([])).holds
