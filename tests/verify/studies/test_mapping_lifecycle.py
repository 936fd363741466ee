"""Routes that a mapping keeps too long, loses too early, or changes."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import pytest

from bridgekit.mapping import MemoryMappingStore, RunThreadMappingService
from bridgekit.mapping.service import GRACE_SECONDS
from bridgekit_verify.measure.statistics import Rate
from bridgekit_verify.studies.manual_run import Clock
from bridgekit_verify.studies.mapping_lifecycle import (
    UNDER_WAY,
    LifecycleStudy,
    bytes_of,
    emit_late,
    fill_mapping,
    late_events_figure,
    reroute,
    study_lifecycles,
)
from bridgekit_verify.variants import FIX_3, SOUND

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # uvicorn runs on asyncio only


async def test_mapping_that_is_not_cleaned_up_grows_with_the_runs() -> None:
    few, many = await fill_mapping("fix 3", cleaned_up=False, after=(100, 400))
    assert (few.routes, many.routes) == (100, 400)
    assert many.held_bytes - few.held_bytes > 300 * len("run_0123456789ab")


async def test_sound_mapping_holds_only_active_runs_and_those_in_the_grace_period() -> None:
    few, many = await fill_mapping("sound", cleaned_up=True, after=(100, 400))
    assert few.routes == many.routes == UNDER_WAY + GRACE_SECONDS
    assert many.held_bytes < 1.2 * few.held_bytes


def test_object_that_is_referenced_twice_is_counted_once() -> None:
    text = "x" * 10_000
    assert 10_000 < bytes_of([text, text]) < 11_000
    assert bytes_of([text, "y" * 10_000]) > 20_000


async def test_dict_loses_events_after_the_end_of_a_run() -> None:
    late = await emit_late(FIX_3, Clock(), lateness=(-1, 0, 5), users=2, runs=3)
    assert late.by_lateness == {-1: Rate(3, 3), 0: Rate(0, 3), 5: Rate(0, 3)}
    assert late.verdict.lost_at == {9: 6}


@pytest.mark.parametrize(("carried", "after_grace"), [(False, 0), (True, 3)])
async def test_sound_route_expires_after_the_grace_period_and_a_carried_thread_does_not(
    carried: bool, after_grace: int
) -> None:
    clock = Clock()
    sound = replace(SOUND, mapping=lambda _: RunThreadMappingService(MemoryMappingStore(clock)))
    late = await emit_late(sound, clock, carried=carried, lateness=(29.9, 30), users=2, runs=3)
    assert late.by_lateness == {29.9: Rate(3, 3), 30: Rate(after_grace, 3)}


async def test_second_registration_moves_a_live_run_to_another_user() -> None:
    as_written = await reroute(FIX_3, events=6)
    assert (as_written.verdict.delivered, as_written.verdict.wrong_user, as_written.refused) == (3, 3, None)
    sound = await reroute(SOUND, events=6)
    assert (sound.verdict.delivered, sound.verdict.wrong_user) == (6, 0)
    assert sound.refused is not None
    assert sound.refused.requested == "thread_124"


@pytest.fixture(scope="module")
async def study() -> LifecycleStudy:
    return await study_lifecycles(users=2, runs=4, held_runs=(50, 100), events=4)


async def test_table_compares_the_dict_with_the_sound_service(study: LifecycleStudy) -> None:
    rows = {what: (as_written, sound) for what, as_written, sound in study.table().itertuples(index=False)}
    as_written, sound = rows["delivered, 1 s after the end; the event carries its run id"]
    assert (as_written[:6], sound[:6]) == ("0 of 4", "4 of 4")
    moved = rows["Alice's events at Bob's socket after a second registration"]
    assert moved == ("2 of 4, accepted", "0 of 4, refused: RunAlreadyMapped")
    assert len(rows) == len(study.table())
    assert study.retention()["routes held"].tolist() == [50, 100, 5, 5, 50, 100, 35, 35]


async def test_only_a_carried_thread_works_in_another_process(study: LifecycleStudy) -> None:
    arrived = {(row.variant, row.process, row.address): row.arrived.k for row in study.by_process}
    for process in ("a second process", "the restarted second process"):
        for address in ("run id", "run id and thread"):
            assert arrived["fix 3", process, address] == 0
        assert arrived["sound", process, "run id"] == 0
        assert arrived["sound", process, "run id and thread"] == 4
    assert arrived["fix 3", "the registering process", "run id"] == 4
    assert arrived["fix 3", "a second process that registers the run", "run id"] == 4
    assert study.processes()["reached its user"].tolist() == [row.arrived.k for row in study.by_process]


async def test_late_events_figure_prints_its_counts(study: LifecycleStudy) -> None:
    figure = study.figure()
    figure.savefig(BytesIO(), format="png")
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert words.count("4 of 4") == 1 + 6 + 8
    assert words.count("0 of 4") == 7 + 2
    assert "4 of 4 (29 s after the end), 0 of 4 (30 s after the end)" in study.alt_text()


def test_late_events_figure_draws_no_point_for_an_unknown_rate() -> None:
    figure = late_events_figure({"way": {0.0: Rate(0, 0), 1.0: Rate(1, 2)}}, title="title")
    words = [text.get_text() for text in figure.axes[0].texts]
    assert "1 of 2" in words
    assert "0 of 0" not in words
