"""Localization: every link broken in every way, and probes and ledger name it. On asyncio, over real sockets."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import pytest

from bridgekit_verify.probes.probes import ProbeAnswer
from bridgekit_verify.validation.breakages import BREAKAGES, WAYS, Breakage
from bridgekit_verify.validation.localization import NAMES, UNEXPLAINED, Localization, localize
from bridgekit_verify.variants import SOUND

pytestmark = pytest.mark.slow

WHERE_ONLY_THE_PROBES_NAME_IT = {"link 1 swallowed"}
"""Startup's check is broken, and no event passes a check: the ledger names what the check failed to notice."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # uvicorn's own


@pytest.fixture(scope="module")
async def found() -> Localization:
    return await localize()


def test_every_link_is_broken_in_every_way_and_only_once() -> None:
    assert [(row.link, row.way) for row in BREAKAGES] == [(link, way) for link in NAMES for way in WAYS]
    assert len({row.variant.name for row in BREAKAGES}) == len(BREAKAGES)
    assert all(row.name == row.variant.name and row.variant.summary for row in BREAKAGES)


async def test_probes_name_the_broken_link_and_no_sound_one_but_the_hub_that_startup_let_pass(
    found: Localization,
) -> None:
    named = {case.breakage.name: case.by_probes for case in found.cases}
    expected = {row.name: (row.link,) for row in BREAKAGES} | {"link 1 swallowed": (1, 10)}
    assert named == expected


async def test_ledger_charges_every_loss_misroute_and_delay_to_the_broken_link(found: Localization) -> None:
    named = {case.breakage.name: case.by_ledger for case in found.cases}
    expected = {row.name: (row.link,) for row in BREAKAGES} | {"link 1 swallowed": (10,)}
    assert named == expected
    assert set(WHERE_ONLY_THE_PROBES_NAME_IT) == {
        name for name, links in expected.items() if int(name.split()[1]) not in links
    }


async def test_every_breakage_does_harm_or_keeps_the_application_from_starting(found: Localization) -> None:
    """A breakage that harms nobody would be named by nobody, and prove nothing."""
    assert [case.breakage.name for case in found.cases if not case.attributions] == []
    refused = [case.breakage.name for case in found.cases if case.measurement.refused is not None]
    assert refused == ["link 1 raises"]


async def test_delayed_events_are_named_by_how_many_later_ones_came_first(found: Localization) -> None:
    late = {
        case.breakage.link: [attribution.reason for attribution in case.attributions]
        for case in found.cases
        if case.breakage.way == "delayed" and case.measurement.verdict.lost == 0
    }
    assert late == {
        5: ["the core emitted it late"],
        8: ["requested in order, but emitted late"],
        9: ["emitted in order, but sent late"],
    }


async def test_nothing_that_a_link_does_reorders_what_a_socket_reads(found: Localization) -> None:
    """Whatever is held back before it is numbered keeps the order of its numbers."""
    assert {case.breakage.name for case in found.cases if case.measurement.verdict.reordered} == set()


async def test_what_is_held_back_after_the_hub_is_told_to_be_missing(found: Localization) -> None:
    """A socket is sent rising numbers only: one that comes too late is a gap, and its user knows."""
    [late] = [case.measurement.verdict for case in found.cases if case.breakage.name == "link 10 delayed"]
    assert late.lost_signalled > 0
    assert late.misrouted == late.extra_copies == 0


async def test_what_a_link_raises_is_the_evidence(found: Localization) -> None:
    raising = [case for case in found.cases if case.breakage.way == "raises"]
    for case in raising:
        [evidence] = [probe.evidence for probe in case.probes if probe.answer is ProbeAnswer.DOES_NOT_HOLD]
        assert f"OSError: link {case.breakage.link} is broken" in evidence


async def test_sound_chain_is_named_nowhere(found: Localization) -> None:
    assert (found.sound.by_probes, found.sound.by_ledger, found.sound.attributions) == ((), (), {})
    assert all(probe.answer is ProbeAnswer.HOLDS for probe in found.sound.probes)


async def test_matrix_is_full_on_its_diagonal_and_explains_the_rest(found: Localization) -> None:
    matrix = found.matrix()
    diagonal = [matrix.iloc[place, place] for place in range(10)]
    assert diagonal == ["5 of 5, ledger 4", *["5 of 5"] * 9]
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
    assert found.alt_text().startswith("50 of 50 breakages were named")
    assert len(found.table()) == 50


async def test_figure_prints_counts_and_explanations(found: Localization) -> None:
    figure = found.figure("title")
    figure.savefig(BytesIO(), format="png")
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert words.count("5 of 5") == 10
    assert "a" in words
    assert "no socket" in str(figure.get_supxlabel())


async def test_breakage_that_nobody_can_name_leaves_a_hole_in_the_diagonal() -> None:
    """The matrix can fail: a link that is called broken and is sound, and one that is taken for another."""
    sound = Breakage(4, "raises", replace(SOUND, name="not broken at all"))
    mistaken = replace(BREAKAGES[5], link=7)
    found = await localize([sound, mistaken])
    assert (found.named, found.holds) == (0, False)
    assert [found.matrix().iloc[link - 1, link - 1] for link in (4, 7)] == ["0 of 1", "0 of 1"]
    assert list(found.explanations()["why"]) == [UNEXPLAINED]
    found.figure("title").savefig(BytesIO(), format="png")


async def test_nothing_tried_is_not_a_success() -> None:
    assert not (await localize([])).holds
