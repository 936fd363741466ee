"""One agent for all runs: the counts equal the closed form at every size, and the comparison can fail."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from math import ceil

import pytest

from bridgekit_verify.errors import InvalidParameter
from bridgekit_verify.measure.experiment import measure
from bridgekit_verify.measure.workload import Workload, thread_ids
from bridgekit_verify.studies.shared_agent import SharedAgentStudy, concurrency_levels, study_shared_agent
from bridgekit_verify.variants import BROKEN, SOUND


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # uvicorn runs on asyncio only


@pytest.fixture(scope="module")
async def study() -> SharedAgentStudy:
    return await study_shared_agent(runs=5)


def test_levels_are_powers_of_two_and_all_runs() -> None:
    assert [concurrency_levels(runs) for runs in (2, 5, 8)] == [[1, 2], [1, 2, 4, 5], [1, 2, 4, 8]]
    with pytest.raises(InvalidParameter, match="runs must be at least 2, so that runs can be concurrent, not 1"):
        concurrency_levels(1)


@pytest.mark.parametrize("runs", range(1, 14))
@pytest.mark.parametrize("at_once", [1, 2, 3, 5, 8, 12, 64])
def test_prediction_is_one_run_of_each_group_when_each_run_has_a_user(runs: int, at_once: int) -> None:
    workload = Workload(threads=thread_ids("thread_123", runs), at_once=at_once)
    assert workload.misroutes_of_shared_agent() == 3 * (runs - ceil(runs / at_once))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("threads", "runs", "at_once", "steps"), [(12, 1, 8, 1), (12, 2, 8, 1), (3, 2, 4, 2), (2, 3, 3, 1), (1, 3, 3, 1)]
)
async def test_shared_agent_misroutes_what_the_closed_form_predicts(
    threads: int, runs: int, at_once: int, steps: int
) -> None:
    owned = thread_ids("thread_123", threads)
    workload = Workload(threads=owned, runs_per_thread=runs, at_once=at_once, steps=steps)
    assert (await measure(BROKEN[5], workload)).verdict.wrong_user == workload.misroutes_of_shared_agent()
    assert (await measure(SOUND, workload)).verdict.wrong_user == 0


@pytest.mark.slow
async def test_study_counts_what_another_user_read(study: SharedAgentStudy) -> None:
    table = study.table()
    assert list(table["one shared agent: read by another user"]) == list(table["predicted"]) == [0, 6, 9, 12]
    assert list(table["a new agent per run: read by another user"]) == [0, 0, 0, 0]
    assert study.is_closed_form()


@pytest.mark.slow
async def test_title_and_alt_text_state_both_counts(study: SharedAgentStudy) -> None:
    figure = study.figure()
    figure.savefig(BytesIO(), format="png")
    assert "With 5 runs at once, another user reads 12 of 15 events" in study.title()
    assert study.title().endswith("0 of 15 events of new agents")
    assert "5 runs at once: another user read 12 of 15 events with one shared agent, 0 of 15" in study.alt_text()
    swapped = SharedAgentStudy(shared=study.fresh, fresh=study.shared)
    assert swapped.title() != study.title()


@pytest.mark.slow
async def test_more_or_fewer_misroutes_than_predicted_are_not_the_closed_form(study: SharedAgentStudy) -> None:
    fewer = replace(study, shared=study.fresh)
    alone = [replace(each, workload=replace(each.workload, at_once=1)) for each in study.shared]
    assert not fewer.is_closed_form()
    assert not replace(study, shared=alone).is_closed_form()
