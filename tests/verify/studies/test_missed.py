"""The ladder, shared agents, and answers held against sockets."""

from __future__ import annotations

from dataclasses import fields
from io import BytesIO
from itertools import pairwise
from typing import Any

import pandas as pd
import pytest

from bridgekit_verify.repairs import REPAIR_SEQUENCE
from bridgekit_verify.studies.missed import GOT, RepairStudy, study_repairs, study_sharing, measure_receipts
from bridgekit_verify.variants import AS_COMMITTED, SOUND, VARIANTS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # uvicorn's own


@pytest.fixture(scope="module")
async def ladder() -> RepairStudy:
    return await study_repairs(threads=3, users_without_socket=1, runs=1, at_once=3)


def test_ladder_starts_as_committed_and_each_rung_repairs_something() -> None:
    assert REPAIR_SEQUENCE[0] is AS_COMMITTED
    repairs = [
        {field.name for field in fields(rung) if getattr(rung, field.name) != getattr(below, field.name)}
        for below, rung in pairwise(REPAIR_SEQUENCE)
    ]
    assert [changed - {"name", "summary"} for changed in repairs] == [
        {"run_ids"},
        {"resolver"},
        {"mapping", "resolver"},
        {"registry"},
        {"adapter"},
        {"hub"},
        {"hub", "self_checks"},
        {"core"},
    ]


def test_ladder_ends_with_every_link_sound() -> None:
    parts = ("supervisor", "registry", "engine", "core", "agent", "adapter", "hub")
    assert [getattr(REPAIR_SEQUENCE[-1], part) for part in parts] == [getattr(SOUND, part) for part in parts]


def row(table: pd.DataFrame, **labels: object) -> dict[Any, Any]:
    """The one row with those values, `_` standing for a space in a column's name."""
    wanted = {name.replace("_", " "): value for name, value in labels.items()}
    found = [each for each in table.to_dict("records") if wanted.items() <= each.items()]
    assert len(found) == 1, wanted
    return found[0]


async def test_nothing_arrives_before_sockets_belong_to_threads(ladder: RepairStudy) -> None:
    assert [m.verdict.delivered for m in ladder.alone] == [0, 0, 0, 0, 0, 0, 10, 10, 10]
    assert ladder.first_delivery() == "+ link 10"


async def test_several_runs_at_once_leak_until_each_has_its_own_agent(ladder: RepairStudy) -> None:
    assert [m.verdict.delivered for m in ladder.together] == [0, 0, 0, 0, 0, 0, 7, 7, 10]
    assert [m.verdict.misrouted for m in ladder.together] == [0, 0, 0, 0, 0, 0, 6, 6, 0]


async def test_fix_1_turns_losses_into_false_successes(ladder: RepairStudy) -> None:
    table = ladder.table()
    assert row(table, rung="as committed", runs_at_once=1)["false success"] == 0
    assert row(table, rung="+ Fix 1", runs_at_once=1)["false success"] == 6
    assert row(table, rung="+ an agent per run", runs_at_once=3)["false success"] == 0


async def test_core_and_agents_are_told_apart(ladder: RepairStudy) -> None:
    accurate = row(ladder.table(), rung="+ truthful receipts", runs_at_once=3)
    assert accurate["said by the core"] == "4 of 4"
    assert accurate["said by agents"] == "3 of 6"


async def test_truth_counts_every_event_once(ladder: RepairStudy) -> None:
    truths = ladder.receipts_table("+ truthful receipts", "+ an agent per run")
    sent = row(truths, variant="+ truthful receipts", answer="sent")
    assert [sent[got] for got in GOT] == [7, 6, 0]
    not_sent = row(truths, variant="+ an agent per run", answer="not sent")
    assert [not_sent[got] for got in GOT] == [0, 0, 5]
    assert truths[list(GOT)].to_numpy().sum() == 2 * 15


async def test_every_variant_is_held_against_the_sockets() -> None:
    table = await measure_receipts(threads=2, users_without_socket=1, at_once=2)
    assert list(dict.fromkeys(table["variant"])) == list(VARIANTS)
    sound = row(table, variant="sound", answer="sent")
    assert [sound[got] for got in GOT] == [5, 0, 0]
    lost = row(table, variant="as reported", answer="not sent")
    assert [lost[got] for got in GOT] == [0, 0, 10]


async def test_figures_can_be_drawn(ladder: RepairStudy) -> None:
    for figure in (ladder.figure("t"), ladder.receipts_figure("as committed", "+ link 10", title="t")):
        figure.savefig(BytesIO(), format="png")
    assert "7 of 10 and 6 misrouted together" in ladder.alt_text()


async def test_shared_agent_hands_on_all_but_one_runs_words() -> None:
    study = await study_sharing([1, 2, 4], runs=4)
    table = study.table()
    assert list(table["shared: to others"]) == [0, 6, 9]
    assert list(table["fresh: to others"]) == [0, 0, 0]
    study.figure("t").savefig(BytesIO(), format="png")
