"""What receipts report, against what sockets read."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Any

import pandas as pd
import pytest

from bridgekit_verify.studies.receipts import ARRIVALS, RECEIPT_CHAINS, ReceiptStudy, study_receipts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # uvicorn runs on asyncio only


@pytest.fixture(scope="module")
async def study() -> ReceiptStudy:
    return await study_receipts(threads=3, users_without_socket=1, at_once=3)


def counts(table: pd.DataFrame, chain: str, receipt: str) -> list[int]:
    found: list[dict[Any, Any]] = [
        each for each in table.to_dict("records") if (each["chain"], each["receipt"]) == (chain, receipt)
    ]
    assert len(found) == 1, (chain, receipt)
    return [found[0][got] for got in ARRIVALS]


async def test_each_chain_counts_every_event_once(study: ReceiptStudy) -> None:
    table = study.table()
    assert list(dict.fromkeys(table["chain"])) == [chain.name for chain in RECEIPT_CHAINS]
    assert [group[list(ARRIVALS)].to_numpy().sum() for _, group in table.groupby("chain")] == [15] * len(RECEIPT_CHAINS)


async def test_sound_chain_fills_only_the_accurate_cells(study: ReceiptStudy) -> None:
    assert counts(study.table(), "sound", "sent") == [10, 0, 0]
    assert counts(study.table(), "sound", "not sent") == [0, 0, 5]


async def test_fix_1_turns_losses_into_false_successes(study: ReceiptStudy) -> None:
    assert counts(study.table(), "as committed", "sent") == [0, 0, 0]
    assert counts(study.table(), "as committed with fix 1", "sent") == [0, 0, 6]
    assert "'as committed with fix 1', 6 of 15 events" in study.title()


async def test_shared_agent_makes_an_accurate_receipt_wrong_about_the_user(study: ReceiptStudy) -> None:
    assert counts(study.table(), "link 5 broken", "sent") == [7, 6, 0]


async def test_figure_prints_its_counts_and_alt_text_leaves_out_empty_cells(study: ReceiptStudy) -> None:
    figure = study.figure()
    figure.savefig(BytesIO(), format="png")
    assert len([axes for axes in figure.axes if axes.get_visible()]) == len(RECEIPT_CHAINS)
    assert (
        "chain 'sound': 10 events with the receipt 'sent' that their user read, 5 events with the receipt 'not sent'"
        " that no user read" in study.alt_text()
    )
    assert ": 0" not in study.alt_text()


async def test_title_without_false_success_says_so(study: ReceiptStudy) -> None:
    sound = study.of("sound")
    honest = ReceiptStudy([replace(sound, variant=each.variant) for each in study.measurements])
    assert honest.title() == "On every chain, the user reads every event that is reported as sent"
