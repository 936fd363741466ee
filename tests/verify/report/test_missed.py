"""Findings of notebooks 11 and 14: each verdict follows from the measurements, in both directions."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from bridgekit_verify.measure.experiment import measure
from bridgekit_verify.measure.workload import Workload, thread_ids
from bridgekit_verify.repairs import REPAIR_SEQUENCE
from bridgekit_verify.report.missed import repair_sequence_claim, sharing_claim, truth_claim
from bridgekit_verify.report.trust import calibration_claim, mutation_claim
from bridgekit_verify.studies.missed import RepairStudy, SharingStudy, study_repairs, study_sharing
from bridgekit_verify.validation.calibration import study_calibration
from bridgekit_verify.variants import SOUND

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # required by uvicorn


@pytest.fixture(scope="module")
async def ladder() -> RepairStudy:
    return await study_repairs(threads=2, users_without_socket=0, runs=1, at_once=2)


@pytest.fixture(scope="module")
async def repaired() -> RepairStudy:
    """Return the study as it would be if every step were sound."""
    sound = await measure(SOUND, Workload(threads=thread_ids("thread_123", 2), at_once=2))
    rungs = [replace(sound, variant=replace(SOUND, name=rung.name)) for rung in REPAIR_SEQUENCE]
    return RepairStudy(alone=rungs, together=rungs)


async def test_single_line_is_not_enough_on_the_chain_as_committed(ladder: RepairStudy) -> None:
    finding = repair_sequence_claim(ladder)
    assert finding.verdict == "does not hold"
    assert (finding.before, finding.after) == ((0, 10), (0, 10))
    assert "'+ link 10'" in finding.answer


async def test_single_line_would_be_enough_on_a_sound_chain(repaired: RepairStudy) -> None:
    assert repair_sequence_claim(repaired).verdict == "holds"


async def test_sent_is_not_delivered_until_receipts_are_truthful(ladder: RepairStudy, repaired: RepairStudy) -> None:
    assert truth_claim(ladder).verdict == "does not hold"
    assert "+ Fix 1" in truth_claim(ladder).evidence[0]
    assert truth_claim(repaired).verdict == "holds"


async def test_shared_agent_contradicts_the_audit_and_a_fresh_one_does_not(ladder: RepairStudy) -> None:
    study = await study_sharing([2], runs=2)
    assert sharing_claim(study, ladder).verdict == "does not hold"
    assert sharing_claim(SharingStudy(shared=study.fresh, fresh=study.fresh), ladder).verdict == "holds"


async def test_wrong_known_rate_contradicts_the_claim() -> None:
    study = await study_calibration(threads=2, runs=2, losses=[0.0, 1.0], offline=[(1, 2)])
    assert calibration_claim(study).verdict == "holds"
    mistaken = replace(study, losses=[replace(loss, p=1 - loss.p) for loss in study.losses])
    assert calibration_claim(mistaken).verdict == "does not hold"


def test_mutation_that_is_not_reported_exactly_contradicts_the_claim() -> None:
    planted = pd.DataFrame({"expected": ["1 lost", "1 extra copy"], "exactly": ["yes", "no"]})
    finding = mutation_claim(planted)
    assert finding.verdict == "does not hold"
    assert finding.evidence == ("Not exactly: 1 extra copy.",)
    assert mutation_claim(planted[:1]).verdict == "holds"
    assert mutation_claim(planted[:0]).verdict == "does not hold"
