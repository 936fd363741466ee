"""Repairs step by step, shared agents, and receipts against arrivals."""

from __future__ import annotations

from dataclasses import fields
from io import BytesIO
from itertools import pairwise
from typing import Any

import pandas as pd
import pytest

from bridgekit_verify.repairs import REPAIR_SEQUENCE
from bridgekit_verify.studies.missed import ARRIVALS, RepairStudy, measure_receipts, study_repairs, study_sharing
from bridgekit_verify.variants import AS_COMMITTED, SOUND, VARIANTS

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


async def test_receipt_table_counts_every_event_once(study: RepairStudy) -> None:
    receipts = study.receipts_table("+ truthful receipts", "+ an agent per run")
    sent = row(receipts, variant="+ truthful receipts", receipt="sent")
    assert [sent[got] for got in ARRIVALS] == [7, 6, 0]
    not_sent = row(receipts, variant="+ an agent per run", receipt="not sent")
    assert [not_sent[got] for got in ARRIVALS] == [0, 0, 5]
    assert receipts[list(ARRIVALS)].to_numpy().sum() == 2 * 15


async def test_receipts_of_every_variant_are_compared_with_the_sockets() -> None:
    table = await measure_receipts(threads=2, users_without_socket=1, at_once=2)
    assert list(dict.fromkeys(table["variant"])) == list(VARIANTS)
    sound = row(table, variant="sound", receipt="sent")
    assert [sound[got] for got in ARRIVALS] == [5, 0, 0]
    lost = row(table, variant="as reported", receipt="not sent")
    assert [lost[got] for got in ARRIVALS] == [0, 0, 10]


async def test_figures_can_be_drawn(study: RepairStudy) -> None:
    for figure in (study.figure("t"), study.receipts_figure("as committed", "+ link 10", title="t")):
        figure.savefig(BytesIO(), format="png")
    assert "7 of 10 and 6 misrouted together" in study.alt_text()


async def test_shared_agent_misroutes_all_but_one_of_the_concurrent_runs() -> None:
    sharing = await study_sharing([1, 2, 4], runs=4)
    table = sharing.table()
    assert list(table["shared: to others"]) == [0, 6, 9]
    assert list(table["fresh: to others"]) == [0, 0, 0]
    sharing.figure("t").savefig(BytesIO(), format="png")
