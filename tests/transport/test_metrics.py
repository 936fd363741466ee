"""`/metrics`: every counter by worker, from the start, also of the workers that share a folder."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import anyio
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Message, Scope

from bridgekit.counters import DeliveryCounters
from bridgekit.cursors_and_gaps import GapReason
from bridgekit.events import EventType, Outcome, Receipt
from bridgekit.transport import metrics
from bridgekit.transport.authorization import CLOSE_NOT_OWNER
from bridgekit.transport.hub import Hub
from bridgekit.transport.log import NO_SUBSCRIBER
from bridgekit.transport.metrics import FOLDER_VARIABLE, counters_shared, exposition, health
from tests.factories import ALICE, BOB, THREAD, emitted
from tests.timeouts import TIMEOUT_SECONDS
from tests.transport.fake_browser import Site

OWN = str(os.getpid())
OTHER_WORKER = "1000000000-0"
"""No process has this id."""


def own(counters: DeliveryCounters) -> str:
    """Return the name of the worker in a folder that workers share."""
    return f"{OWN}-{counters.instance}"


def samples(exposed: str) -> dict[tuple[str, ...], float]:
    """Return the value of each sample by its name and labels, the worker last."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(exposed)
        for sample in family.samples
    }


async def scraped(site: Site) -> dict[tuple[str, ...], float]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(site.app), base_url="http://bridgekit.test") as client:
        answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return samples(answer.text)


async def test_metrics_count_by_type_link_and_reason(site: Site) -> None:
    site.counters.count(emitted(EventType.AGENT_STARTED), Receipt(outcome=Outcome.SENT, sockets=2))
    for _ in range(2):
        site.counters.count(emitted(), Receipt(outcome=Outcome.UNROUTABLE, link=9, reason="no route"))
    site.counters.count(emitted(), Receipt(outcome=Outcome.NO_SUBSCRIBER, kept=True))
    site.counters.count(emitted(), Receipt(outcome=Outcome.PENDING))
    site.counters.unwritten["too slow"] += 3
    site.counters.coalesced += 7
    site.counters.concatenated += 8
    site.counters.gaps[GapReason.COALESCED] += 5
    await site.browser(BOB, THREAD).run()
    async with site.visited((ALICE, THREAD)), site.open(site.browser(epoch="f" * 16, seq="1")):
        found = await scraped(site)
    assert {sample: value for sample, value in found.items() if value} == {
        ("bridgekit_events_sent_total", "agent_started", OWN): 1,
        ("bridgekit_events_lost_total", "9", "no route", OWN): 2,
        ("bridgekit_frames_unwritten_total", "too slow", OWN): 3,
        ("bridgekit_events_kept_total", "agent_thinking", OWN): 1,
        ("bridgekit_events_pending_total", "agent_thinking", OWN): 1,
        ("bridgekit_frames_coalesced_total", OWN): 7,
        ("bridgekit_frames_concatenated_total", OWN): 8,
        ("bridgekit_subscriptions_total", "new", OWN): 1,
        ("bridgekit_subscriptions_total", "gap", OWN): 1,
        ("bridgekit_gaps_total", "coalesced", OWN): 5,
        ("bridgekit_gaps_total", "restarted", OWN): 1,
        ("bridgekit_refused_total", str(CLOSE_NOT_OWNER), OWN): 1,
        ("bridgekit_connections", OWN): 2,
    }


FROM_THE_START = [
    *[(f"bridgekit_events_{what}_total", kind) for what in ("sent", "kept", "pending") for kind in EventType],
    ("bridgekit_events_lost_total", "9", "the event carries no thread; the run is not in the mapping"),
    ("bridgekit_events_lost_total", "9", "the event carries another thread than its run's"),
    ("bridgekit_events_lost_total", "9", "StoreUnavailable"),
    ("bridgekit_events_lost_total", "8", "WrongEventLoop"),
    ("bridgekit_events_lost_total", "10", NO_SUBSCRIBER),
    ("bridgekit_frames_coalesced_total",),
    ("bridgekit_frames_concatenated_total",),
    ("bridgekit_frames_unwritten_total", "socket left"),
    ("bridgekit_frames_unwritten_total", "too slow"),
    *[("bridgekit_subscriptions_total", began) for began in ("new", "resumed", "gap")],
    *[("bridgekit_gaps_total", reason) for reason in GapReason],
    ("bridgekit_refused_total", "4505"),
    ("bridgekit_connections",),
]


@pytest.mark.parametrize("sample", FROM_THE_START, ids=" ".join)
def test_sample_exists_with_value_0_before_anything_happens(sample: tuple[str, ...]) -> None:
    assert samples(exposition(DeliveryCounters(), Hub()).decode())[*sample, OWN] == 0


def test_losses_that_the_links_count_exist_from_the_start() -> None:
    """A loss under labels that did not exist is no increase for a query over time."""
    counters = DeliveryCounters()
    before = samples(exposition(counters, Hub()).decode())
    counters.count(emitted(), Receipt(outcome=Outcome.NO_SUBSCRIBER, link=10, reason=NO_SUBSCRIBER))
    after = samples(exposition(counters, Hub()).decode())
    assert {sample: value - before[sample] for sample, value in after.items() if value != before[sample]} == {
        ("bridgekit_events_lost_total", "10", NO_SUBSCRIBER, OWN): 1
    }


async def test_reason_that_utf_8_cannot_encode_is_replaced(site: Site) -> None:
    site.counters.lost[10, "cannot write \udcff.sqlite"] += 1
    assert (await scraped(site))["bridgekit_events_lost_total", "10", "cannot write ?.sqlite", OWN] == 1
    assert json.loads(health("degraded: \udcff.sqlite", 0))["status"] == "degraded: ?.sqlite"


async def write_as_another_worker(folder: Path, counters: DeliveryCounters, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the counters to the folder as a worker does until its end, with the id of another process."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    async with counters_shared(counters, Hub()):
        counters.lost[9, "no route"] += 1
    (folder / own(counters)).rename(folder / OTHER_WORKER)


async def test_one_worker_answers_for_all_that_share_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = DeliveryCounters(), DeliveryCounters()
    theirs.sent[EventType.AGENT_STARTED] += 3
    ours.sent[EventType.AGENT_STARTED] += 2
    await write_as_another_worker(tmp_path, theirs, monkeypatch)
    found = samples(exposition(ours, Hub()).decode())
    assert found["bridgekit_events_sent_total", "agent_started", OTHER_WORKER] == 3
    assert found["bridgekit_events_sent_total", "agent_started", own(ours)] == 2
    assert found["bridgekit_events_lost_total", "9", "no route", OTHER_WORKER] == 1
    assert found["bridgekit_connections", OTHER_WORKER] == 0


async def test_two_applications_of_one_process_do_not_overwrite_each_others_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    first, second = DeliveryCounters(), DeliveryCounters()
    async with counters_shared(first, Hub()), counters_shared(second, Hub()):
        first.sent[EventType.AGENT_STARTED] += 1
        second.sent[EventType.AGENT_STARTED] += 2
    for counters in (first, second):
        found = samples(exposition(counters, Hub()).decode())
        sent = [found["bridgekit_events_sent_total", "agent_started", own(each)] for each in (first, second)]
        assert sent == [1, 2]


def test_counter_is_not_lower_when_another_worker_answers_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prometheus takes a lower value for a restart, and counts twice."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    counters = DeliveryCounters()
    for count in (1, 2, 3):
        counters.refused[4_503] += 1
        assert samples(exposition(counters, Hub()).decode())["bridgekit_refused_total", "4503", own(counters)] == count
        (tmp_path / own(counters)).rename(tmp_path / OTHER_WORKER)
        found = samples(exposition(DeliveryCounters(), Hub()).decode())
        assert found["bridgekit_refused_total", "4503", OTHER_WORKER] == count


async def test_counters_are_written_while_the_worker_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(metrics, "WRITE_INTERVAL_SECONDS", 0.01)
    counters = DeliveryCounters()
    async with counters_shared(counters, Hub()):
        with anyio.fail_after(TIMEOUT_SECONDS):
            while not (tmp_path / own(counters)).exists():  # noqa: ASYNC110 - a file has no event
                await anyio.sleep(0.01)
            counters.lost[9, "a new reason"] += 1
            while "a new reason" not in (tmp_path / own(counters)).read_text():  # noqa: ASYNC110 - as above
                await anyio.sleep(0.01)


async def test_dead_worker_keeps_its_counts_and_has_no_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = DeliveryCounters()
    theirs.subscriptions["new"] += 4
    await write_as_another_worker(tmp_path, theirs, monkeypatch)
    silent_since = time.time() - 2 * metrics.DEAD_AFTER_SECONDS
    os.utime(tmp_path / OTHER_WORKER, (silent_since, silent_since))
    ours = DeliveryCounters()
    found = samples(exposition(ours, Hub()).decode())
    assert found["bridgekit_subscriptions_total", "new", OTHER_WORKER] == 4
    assert ("bridgekit_connections", OTHER_WORKER) not in found
    assert found["bridgekit_connections", own(ours)] == 0


@pytest.mark.parametrize("name", ["1", "1-2", "1-\udcff"])
@pytest.mark.parametrize(
    "text",
    [
        "not ours",
        "[]",
        "{}",
        '{"refused": [[["4000", "more"], 1]]}',
        '{"events_lost": [[["9"], 1]]}',
        '{"x": [[[], 1]]}',
    ],
)
def test_file_of_another_program_or_version_in_the_folder_is_ignored(
    name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    (tmp_path / name).write_text(text)
    counters = DeliveryCounters()
    for written_at in (time.time(), time.time() - 2 * metrics.DEAD_AFTER_SECONDS):
        os.utime(tmp_path / name, (written_at, written_at))
        assert {worker for *_, worker in samples(exposition(counters, Hub()).decode())} == {own(counters)}


@pytest.mark.parametrize("path", ["/metrics", "/healthz"])
async def test_server_on_a_unix_socket_answers(path: str, site: Site) -> None:
    """The address of its server is None."""
    status = list[int]()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            status.append(message["status"])

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope: Scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [], "server": None}
    await site.app(scope, receive, send)
    assert status == [200]


@pytest.mark.parametrize("folder", ["missing", "a file"])
async def test_folder_that_cannot_be_used_stops_neither_the_worker_nor_its_metrics(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / folder
    if folder == "a file":
        path.touch()
    monkeypatch.setenv(FOLDER_VARIABLE, str(path))
    counters = DeliveryCounters()
    counters.refused[4_503] += 1
    async with counters_shared(counters, Hub()):
        found = samples(exposition(counters, Hub()).decode())
    assert found["bridgekit_refused_total", "4503", own(counters)] == 1
