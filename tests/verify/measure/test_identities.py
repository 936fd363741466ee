"""The identities of a measurement can fail: each mistake of harness or ledger raises LedgerImbalance with both numbers.

What a workload expects comes from its parameters. A test that damages the recorded events, the sockets or the ledger
must therefore make an identity fail, although all recorded numbers agree with each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bridgekit_verify.errors import LedgerImbalance
from bridgekit_verify.measure import checker, experiment
from bridgekit_verify.measure.checker import check
from bridgekit_verify.measure.experiment import measure
from bridgekit_verify.measure.history import ExpectedEvents, History
from bridgekit_verify.measure.ledger import Row, ledger
from bridgekit_verify.measure.tables import count_table
from bridgekit_verify.measure.workload import Run, Workload, thread_ids
from bridgekit_verify.variants import SOUND, variant
from tests.verify.measure.histories import BOBS, SOCKETS, clean

WORKLOAD = Workload(threads=thread_ids("thread_123", 3), runs_per_thread=2, at_once=2)
EXPECTED_AND_LOST = "expected = delivered + dropped"
STATED = re.escape(EXPECTED_AND_LOST)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def drop(rows: list[Row]) -> list[Row]:
    return rows[1:]


def repeat(rows: list[Row]) -> list[Row]:
    return [*rows, rows[-1]]


@pytest.mark.parametrize(("damage", "rows"), [(drop, 14), (repeat, 16)])
@pytest.mark.parametrize("expected", [None, ExpectedEvents(15, 0)])
def test_damaged_ledger_is_detected(
    damage: Callable[[list[Row]], list[Row]],
    rows: int,
    expected: ExpectedEvents | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checker, "ledger", lambda history: damage(ledger(history)))
    with pytest.raises(LedgerImbalance, match=f"{STATED}, but 15 is not {rows}"):
        check(clean(), expected)


def forget_an_event(history: History) -> None:
    forgotten = history.expected.pop()
    history.arrivals = [arrival for arrival in history.arrivals if arrival.key != forgotten.key]


def forget_a_run(history: History) -> None:
    history.expected = history.expected[5:]
    history.arrivals = history.arrivals[5:]


def add_a_socket(history: History) -> None:
    history.sockets.append(replace(BOBS, number=len(SOCKETS)))


def remove_a_socket(history: History) -> None:
    history.sockets.remove(BOBS)
    history.arrivals = [arrival for arrival in history.arrivals if arrival.socket != BOBS]


@pytest.mark.parametrize(
    ("damage", "counted"), [(forget_an_event, 14), (forget_a_run, 10), (add_a_socket, 20), (remove_a_socket, 10)]
)
def test_history_that_agrees_with_itself_is_compared_with_the_workload(
    damage: Callable[[History], None], counted: int
) -> None:
    history = clean()
    damage(history)
    assert check(history).expected == counted
    with pytest.raises(LedgerImbalance) as raised:
        check(history, ExpectedEvents(15, 0))
    assert (raised.value.identity, raised.value.left, raised.value.right) == (EXPECTED_AND_LOST, 15, counted)


async def test_run_that_the_harness_forgets_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Workload.expectations

    def forgetful(workload: Workload, run: Run) -> Any:
        return [] if run.request == "question 4" else recorded(workload, run)

    monkeypatch.setattr(Workload, "expectations", forgetful)
    with pytest.raises(LedgerImbalance, match=f"{STATED}, but 30 is not 25"):
        await measure(SOUND, WORKLOAD)


async def test_socket_that_is_opened_twice_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = experiment._sockets

    def twice(workload: Workload) -> Any:
        sockets = opened(workload)
        return [*sockets, replace(sockets[0], number=len(sockets))]

    monkeypatch.setattr(experiment, "_sockets", twice)
    with pytest.raises(LedgerImbalance, match=f"{STATED}, but 30 is not 40"):
        await measure(SOUND, WORKLOAD)


async def test_group_that_never_runs_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = Workload.groups
    monkeypatch.setattr(Workload, "groups", lambda workload: iter([*groups(workload)][1:]))
    with pytest.raises(LedgerImbalance, match=f"{STATED}, but 30 is not 20"):
        await measure(SOUND, WORKLOAD)


def test_event_without_a_socket_is_counted_and_not_expected() -> None:
    history = clean()
    remove_a_socket(history)
    verdict = check(history, ExpectedEvents(10, 5))
    assert (verdict.expected, verdict.no_socket, verdict.delivered, verdict.lost) == (10, 5, 10, 0)
    with pytest.raises(LedgerImbalance, match="without a row of the ledger, but 4 is not 5"):
        check(history, ExpectedEvents(10, 4))


@pytest.mark.parametrize("name", ["sound", "as reported", "as committed", "fix 1", "link 5 broken"])
async def test_users_without_a_socket_appear_in_verdict_and_tables(name: str) -> None:
    workload = replace(WORKLOAD, users_without_socket=1)
    measurement = await measure(variant(name), workload)
    assert (measurement.verdict.expected, measurement.verdict.no_socket) == (20, 10)
    table = count_table([measurement])
    assert list(table["expected"]) == [20]
    assert list(table["no socket"]) == [10]


async def test_offline_users_still_have_a_socket() -> None:
    workload = replace(WORKLOAD, offline=replace(WORKLOAD.offline, groups=1, of=3))
    verdict = (await measure(SOUND, workload)).verdict
    assert (verdict.expected, verdict.no_socket, verdict.lost) == (30, 0, 10)
