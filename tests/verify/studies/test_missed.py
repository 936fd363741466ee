"""Repairs step by step."""

from __future__ import annotations

from dataclasses import fields
from io import BytesIO
from itertools import pairwise
from typing import Any

import pandas as pd
import pytest

from bridgekit_verify.repairs import REPAIR_SEQUENCE
from bridgekit_verify.studies.missed import RepairStudy, study_repairs
from bridgekit_verify.variants import AS_COMMITTED, SOUND

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # uvicorn runs on asyncio only


@pytest.fixture(scope="module")
async def study() -> RepairStudy:
    return await study_repairs(threads=3, users_without_socket=1, runs=1, at_once=3)


def test_repairs_start_as_committed_and_change_one_link_each() -> None:
    assert REPAIR_SEQUENCE[0] is AS_COMMITTED
    repairs = [
        {field.name for field in fields(repair) if getattr(repair, field.name) != getattr(previous, field.name)}
        for previous, repair in pairwise(REPAIR_SEQUENCE)
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


def test_last_repair_has_every_link_sound() -> None:
    parts = ("supervisor", "registry", "engine", "core", "agent", "adapter", "hub")
    assert [getattr(REPAIR_SEQUENCE[-1], part) for part in parts] == [getattr(SOUND, part) for part in parts]


def row(table: pd.DataFrame, **labels: object) -> dict[Any, Any]:
    """Return the one row with these values; `_` in a name stands for a space in a column name."""
    wanted = {name.replace("_", " "): value for name, value in labels.items()}
    found = [each for each in table.to_dict("records") if wanted.items() <= each.items()]
    assert len(found) == 1, wanted
    return found[0]


async def test_no_event_arrives_before_sockets_are_assigned_to_threads(study: RepairStudy) -> None:
    assert [m.verdict.delivered for m in study.alone] == [0, 0, 0, 0, 0, 0, 10, 10, 10]
    assert study.first_delivery() == "+ link 10"


async def test_concurrent_runs_leak_until_each_has_its_own_agent(study: RepairStudy) -> None:
    assert [m.verdict.delivered for m in study.together] == [0, 0, 0, 0, 0, 0, 7, 7, 10]
    assert [m.verdict.misrouted for m in study.together] == [0, 0, 0, 0, 0, 0, 6, 6, 0]


async def test_fix_1_turns_losses_into_false_successes(study: RepairStudy) -> None:
    table = study.table()
    assert row(table, repair="as committed", runs_at_once=1)["false success"] == 0
    assert row(table, repair="+ Fix 1", runs_at_once=1)["false success"] == 6
    assert row(table, repair="+ an agent per run", runs_at_once=3)["false success"] == 0


async def test_events_of_core_and_agents_are_counted_separately(study: RepairStudy) -> None:
    accurate = row(study.table(), repair="+ truthful receipts", runs_at_once=3)
    assert accurate["emitted by the core"] == "4 of 4"
    assert accurate["emitted by agents"] == "3 of 6"


async def test_figure_can_be_drawn(study: RepairStudy) -> None:
    study.figure("t").savefig(BytesIO(), format="png")
    assert "7 of 10 and 6 misrouted together" in study.alt_text()
