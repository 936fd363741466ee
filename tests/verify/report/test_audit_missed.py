"""Findings of notebook 11: each verdict follows from the measurements, in both directions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridgekit_verify.measure.statistics import Sample
from bridgekit_verify.report.audit_missed import receipt_claim, shared_agent_claim
from bridgekit_verify.studies.receipts import ReceiptStudy, study_receipts
from bridgekit_verify.studies.shared_agent import SharedAgentStudy, study_shared_agent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # required by uvicorn


async def test_sent_is_not_delivered_on_the_chain_as_committed() -> None:
    study = await study_receipts(threads=2, users_without_socket=1, at_once=2)
    finding = receipt_claim(study)
    assert finding.verdict == "does not hold"
    assert "'as committed with fix 1', 4 of 10 events" in finding.answer
    assert finding.sample == Sample(10, "events")
    sound = study.of("sound")
    honest = [replace(sound, variant=each.variant) for each in study.measurements]
    assert receipt_claim(ReceiptStudy(honest)).verdict == "holds"


async def test_shared_agent_contradicts_the_audit_and_a_new_one_does_not() -> None:
    study = await study_shared_agent(runs=2)
    finding = shared_agent_claim(study)
    assert finding.verdict == "does not hold"
    assert finding.answer.startswith("With 2 runs at once, another user reads 3 of 6 events")
    assert shared_agent_claim(SharedAgentStudy(shared=study.fresh, fresh=study.fresh)).verdict == "holds"
