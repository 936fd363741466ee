"""A damaged, old or deleted SQLite file: it is refused at startup, or clients get a gap, and never other events."""

# ruff: noqa: ASYNC240  # these tests act on files from outside, while the store waits for nothing

from __future__ import annotations

import logging
import os
import random
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from bridgekit.cursors_and_gaps import Cursor, GapReason
from bridgekit.errors import BridgekitError, StoreUnusable
from bridgekit.events import Outcome
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import ActiveRun
from bridgekit.stores import sqlite_stores
from bridgekit.stores.sqlite import file
from tests.backends import ASYNCIO
from tests.contract.stores import POLL_INTERVAL_SECONDS, WAIT_SECONDS, Worker, event_with_number, number_in, numbers
from tests.factories import OTHER, THREAD
from tests.stores.sqlite.files import hide_change, query, run_script

PAGE_BYTES = 4_096
THREADS = tuple(ThreadId(f"thread {number}") for number in range(8))
EVENTS = 8

# What a file contains is checked in a thread, in the same way on both backends.
on_asyncio = pytest.mark.parametrize("anyio_backend", [ASYNCIO], ids=["asyncio"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@asynccontextmanager
async def worker(path: Path) -> AsyncIterator[Worker]:
    async with sqlite_stores(path)() as stores:
        yield Worker(stores.log)


async def fill(path: Path, first: int = 0) -> dict[ThreadId, str]:
    """Publish events to each thread, close the file, and return the epochs."""
    epochs = {}
    async with worker(path) as busy:
        for thread in THREADS:
            for number in range(first, first + EVENTS):
                # Large events have pages of their own, whose content SQLite does not check.
                receipt = await busy.log.publish(event_with_number(thread, number, padding=500 * (number % 10)))
                assert receipt.kept
                epochs[thread] = receipt.epoch or ""
    return epochs


def overwrite(path: Path, start: int, data: bytes) -> None:
    with path.open("r+b") as opened:
        opened.seek(start)
        opened.write(data)


def middle_page(path: Path) -> int:
    return path.stat().st_size // PAGE_BYTES // 2 * PAGE_BYTES


def in_table(table: str, offset: int, data: bytes) -> Callable[[Path], None]:
    """Return a function that overwrites bytes of a table's first page."""

    def damage(path: Path) -> None:
        ((page,),) = query(path, f"SELECT rootpage FROM sqlite_master WHERE name = '{table}'")
        overwrite(path, (page - 1) * PAGE_BYTES + offset, data)

    return damage


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "header": lambda path: overwrite(path, 0, b"\0" * 100),
    "magic": lambda path: overwrite(path, 0, b"X"),
    "page size": lambda path: overwrite(path, 16, b"\xff\xff"),
    "schema page": lambda path: overwrite(path, 100, os.urandom(500)),
    "noise in the middle": lambda path: overwrite(path, middle_page(path), os.urandom(PAGE_BYTES)),
    "ones in the middle": lambda path: overwrite(path, middle_page(path), b"\xff" * PAGE_BYTES),
    "truncated to half": lambda path: os.truncate(path, middle_page(path)),
    "truncated in a page": lambda path: os.truncate(path, middle_page(path) + 100),
    "one page missing": lambda path: os.truncate(path, path.stat().st_size - PAGE_BYTES),
    "one page only": lambda path: os.truncate(path, PAGE_BYTES),
    "half a header": lambda path: os.truncate(path, 50),
    "root of events": in_table("events", 0, b"\0" * 100),
    "root of threads": in_table("threads", 0, b"\0" * 100),
    "root of routes": in_table("routes", 0, b"\xff" * 100),
    "cells of threads": in_table("threads", PAGE_BYTES - 60, b"\x42" * 50),
    "not a database": lambda path: path.write_bytes(b"Dear diary, " * 1_000),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@on_asyncio
@pytest.mark.parametrize("damage", DAMAGES)
async def test_damaged_file_is_refused_with_what_to_do(path: Path, damage: str) -> None:
    await fill(path)
    DAMAGES[damage](path)
    before = path.read_bytes()
    with pytest.raises(StoreUnusable) as refused:
        async with worker(path):
            pass
    assert str(path) in str(refused.value)
    assert "move it away" in str(refused.value) or "choose another path" in str(refused.value)
    assert path.read_bytes() == before


async def test_empty_file_is_a_new_store_and_clients_get_a_gap(path: Path) -> None:
    epochs = await fill(path)
    os.truncate(path, 0)
    async with worker(path) as back:
        replay = await back.join(THREADS[0], Cursor(epochs[THREADS[0]], EVENTS))
        assert replay.gap is not None
        assert replay.gap.reason is GapReason.RESTARTED


@on_asyncio
@pytest.mark.parametrize("size", [1, 16, 200])
async def test_no_client_gets_changed_events_wherever_the_file_is_damaged(path: Path, size: int) -> None:
    """The store refuses the file, or each client gets its own events as they were published, or a gap."""
    epochs = await fill(path)
    chance, whole = random.Random(size), path.read_bytes()  # reproducible
    outcomes = dict[str, int]()
    for _ in range(25):
        start = chance.randrange(100, len(whole) - size)
        overwrite(path, 0, whole)
        os.truncate(path, len(whole))
        overwrite(path, start, chance.randbytes(size))
        hide_change(path)
        outcome = await resume_everywhere(path, epochs)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert outcomes.keys() <= {"refused", "same", "gap"}, outcomes


async def resume_everywhere(path: Path, epochs: dict[ThreadId, str]) -> str:
    try:
        async with worker(path) as back:
            outcome = "same"
            for thread, epoch in epochs.items():
                replay = await back.join(thread, Cursor(epoch, 0))
                for frame in replay.frames:
                    assert frame.event.thread_id == thread
                    assert number_in(frame) == frame.seq - 1
                if replay.gap is not None or len(replay.frames) < EVENTS:
                    outcome = "gap"
            return outcome
    except (BridgekitError, BaseExceptionGroup):
        return "refused"


async def test_damaged_event_is_a_gap_and_later_events_arrive(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with worker(path) as busy:
        begun = await busy.join(THREAD)
        for number in range(5):
            await busy.publish(THREAD, number)
        await busy.publish(OTHER)
    overwrite(path, path.read_bytes().index(b'"number":2'), b'"number":7')
    hide_change(path)
    async with worker(path) as back:
        replay = await back.join(THREAD, begun.cursor)
        assert numbers(replay.frames) == [1, 2, 4, 5]
        first = await back.join(THREAD, Cursor(begun.cursor.epoch, 2))
        assert (numbers(first.frames), first.gap) == ([4, 5], None), "the client sees from the numbers what is lost"
        assert (await back.publish(THREAD)).seq == 6
    assert "its row in the file is damaged" in caplog.text


RUINED = {
    "checksum of another type": "UPDATE events SET sum = 'x' WHERE seq = 3",
    "checksum that is no integer": "UPDATE events SET sum = 1.5 WHERE seq = 3",
    "checksum with a separator": "UPDATE events SET sum = '1,2 3' WHERE seq = 3",
    "empty": "UPDATE events SET data = x'' WHERE seq = 3",
    "text": "UPDATE events SET data = CAST(data AS TEXT) || 'é' WHERE seq = 3",
    "number": "UPDATE events SET data = 5 WHERE seq = 3",
    "deleted": "DELETE FROM events WHERE seq = 3",
}


@on_asyncio
@pytest.mark.parametrize("ruin", RUINED)
async def test_row_that_is_no_event_is_a_gap_also_at_the_end(path: Path, ruin: str) -> None:
    async with worker(path) as busy:
        begun = await busy.join(THREAD)
        for number in range(5):
            await busy.publish(THREAD, number)
    run_script(path, RUINED[ruin])
    hide_change(path)
    async with worker(path) as back:
        replay = await back.join(THREAD, begun.cursor)
        assert (numbers(replay.frames), replay.last) == ([1, 2, 4, 5], 5)
    run_script(path, RUINED[ruin].replace("3", "5"))
    hide_change(path)
    async with worker(path) as back:
        replay = await back.join(THREAD, begun.cursor)
        assert (numbers(replay.frames), replay.last) == ([1, 2, 4], 5), "the client gets a gap for the last event"


WRONG_TYPES = {
    "thread of an event": "UPDATE events SET thread = 'x'",
    "number of an event": "UPDATE events SET seq = 'x'",
    "first of an event": "UPDATE events SET first = 'x'",
    "time of an event": "UPDATE events SET at = 'x'",
    "time of a thread": "UPDATE threads SET used_at = 'x'",
    "time of a route": "UPDATE routes SET due = 'x'",
    "no session": "DELETE FROM store",
    "two sessions": "INSERT INTO store SELECT * FROM store",
}


@on_asyncio
@pytest.mark.parametrize("change", WRONG_TYPES)
async def test_value_of_a_wrong_type_is_refused_at_startup(path: Path, change: str) -> None:
    async with sqlite_stores(path)() as stores:
        await Worker(stores.log).publish(THREAD)
        await stores.routes.add(RunId("run_1"), THREAD)
    run_script(path, f"PRAGMA ignore_check_constraints = 1; {WRONG_TYPES[change]}")
    hide_change(path)
    with pytest.raises(StoreUnusable, match="the file is damaged: move it away"):
        async with worker(path):
            pass


CHANGES = {
    "seq of a thread": "UPDATE threads SET seq = seq - 1, last = last - 1",
    "epoch of a thread": "UPDATE threads SET epoch = 'f' || substr(epoch, 2) || 'f'",
    "owner of the log": "UPDATE threads SET thread_id = 'thread_x'",
    "route of a run": "UPDATE routes SET thread_id = 'thread_x'",
    "thread of an active run": "UPDATE runs SET thread_id = 'thread_x'",
}


@on_asyncio
@pytest.mark.parametrize("change", CHANGES)
async def test_changed_row_is_refused_at_startup(path: Path, change: str) -> None:
    async with sqlite_stores(path)() as stores:
        await Worker(stores.log).publish(THREAD)
        await stores.routes.add(RunId("run_1"), THREAD)
        await stores.runs.open(ActiveRun(RunId("run_1"), THREAD, "researcher"))
    run_script(path, CHANGES[change])
    with pytest.raises(StoreUnusable, match="was changed; the file is damaged: move it away"):
        async with worker(path):
            pass


async def test_page_that_is_damaged_while_the_file_is_open_is_a_gap(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = await fill(path)
    monkeypatch.setattr(file, "CACHE_KB", 1)
    ((page,),) = query(path, "SELECT rootpage FROM sqlite_master WHERE name = 'events'")
    async with worker(path) as open_:
        overwrite(path, (page - 1) * PAGE_BYTES, b"\0" * 100)
        replay = await open_.join(THREADS[3], Cursor(epochs[THREADS[3]], 0))
        assert replay.gap is not None
        assert (replay.gap.first, replay.gap.last, replay.gap.reason) == (1, EVENTS, GapReason.LOST)


def with_copy(path: Path) -> dict[str, Path]:
    """Copy the file and its companions into a folder."""
    folder = path.parent / "backup"
    folder.mkdir(exist_ok=True)
    return {
        suffix: Path(shutil.copy2(f"{path}{suffix}", folder))
        for suffix in ("", "-wal", "-state")
        if Path(f"{path}{suffix}").exists()
    }


def restore(path: Path, backup: dict[str, Path], *suffixes: str, keep_times: bool) -> None:
    for suffix in ("", "-wal", "-state"):
        if suffix in suffixes:
            (shutil.copy2 if keep_times else shutil.copy)(backup[suffix], f"{path}{suffix}")
        elif suffix == "-wal":
            Path(f"{path}{suffix}").unlink(missing_ok=True)


@pytest.mark.parametrize("keep_times", [True, False], ids=["times kept", "new times"])
@pytest.mark.parametrize("suffixes", [("",), ("", "-state")], ids=["file only", "with its state file"])
async def test_restored_backup_begins_new_epochs(path: Path, suffixes: tuple[str, ...], keep_times: bool) -> None:
    epochs = await fill(path)
    backup = with_copy(path)
    assert await fill(path, EVENTS) == epochs, "a restart alone begins none"
    restore(path, backup, *suffixes, keep_times=keep_times)
    await check_new_epochs(path, epochs)


async def check_new_epochs(path: Path, epochs: dict[ThreadId, str]) -> None:
    async with worker(path) as back:
        for thread, epoch in epochs.items():
            receipt = await back.publish(thread, 7)
            assert receipt.epoch != epoch
            replay = await back.join(thread, Cursor(epoch, 1))
            assert replay.gap is not None
            assert (replay.gap.reason, numbers(replay.frames)) == (GapReason.RESTARTED, [1])


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the files as a killed process does, except that SQLite still empties the write-ahead log."""

    def crash(opened: file.StoreFile) -> None:
        wal = Path(f"{opened.path}-wal")
        left = wal.read_bytes(), opened.path.read_bytes()
        opened._connection.close()
        opened.unlock()
        wal.write_bytes(left[0])
        opened.path.write_bytes(left[1])

    monkeypatch.setattr(file.StoreFile, "close", crash)


LOST: dict[str, Callable[[Path], Any]] = {
    "write-ahead log deleted": lambda path: Path(f"{path}-wal").unlink(),
    "write-ahead log empty": lambda path: os.truncate(f"{path}-wal", 0),
    "write-ahead log cut": lambda path: os.truncate(f"{path}-wal", Path(f"{path}-wal").stat().st_size - 50_000),
    "write-ahead log damaged": lambda path: overwrite(
        Path(f"{path}-wal"), Path(f"{path}-wal").stat().st_size - 50_000, b"\0" * 1_000
    ),
    "write-ahead log of something else": lambda path: Path(f"{path}-wal").write_bytes(b"Dear diary, " * 10_000),
    "state file deleted": lambda path: Path(f"{path}-state").unlink(),
    "state file empty": lambda path: os.truncate(f"{path}-state", 0),
    "state file damaged": lambda path: Path(f"{path}-state").write_bytes(b"\xff" * 64),
}


@pytest.mark.usefixtures("crashing")
@pytest.mark.parametrize("loss", LOST)
async def test_new_epochs_begin_when_the_latest_commits_of_a_killed_process_are_lost(path: Path, loss: str) -> None:
    epochs = await fill(path)
    LOST[loss](path)
    await check_new_epochs(path, epochs)


@pytest.mark.usefixtures("crashing")
async def test_complete_files_of_a_killed_process_continue(path: Path) -> None:
    epochs = await fill(path)
    assert await fill(path, EVENTS) == epochs


@pytest.mark.usefixtures("crashing")
async def test_restored_backup_begins_new_epochs_also_after_the_clock_was_set_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = await fill(path)
    monkeypatch.setattr("time.time", lambda: 86_400.0)
    backup = with_copy(path)
    assert await fill(path, EVENTS) == epochs
    restore(path, backup, "", "-wal", keep_times=False)
    await check_new_epochs(path, epochs)


@pytest.mark.usefixtures("crashing")
async def test_backup_of_an_open_file_begins_new_epochs(path: Path) -> None:
    """The connection's own backup, restored after the process was killed."""
    async with worker(path) as busy:
        before = await busy.publish(THREAD)
        saved = path.with_name("saved.db")
        await busy.log._database.read(f"VACUUM INTO '{saved}'")  # type: ignore[attr-defined]
        await busy.publish(THREAD)
    Path(f"{path}-wal").unlink()
    shutil.copy(saved, path)
    await check_new_epochs(path, {THREAD: before.epoch or ""})


REMOVED: dict[str, Callable[[Path], Any]] = {
    "file deleted": lambda path: path.unlink(),
    "file renamed": lambda path: path.rename(path.with_name("elsewhere.db")),
    "file replaced": lambda path: (
        shutil.copy(path, path.with_name("new.db")) and path.with_name("new.db").replace(path)
    ),
    "write-ahead log deleted": lambda path: Path(f"{path}-wal").unlink(),
    "state file deleted": lambda path: Path(f"{path}-state").unlink(),
    "folder deleted": lambda path: shutil.rmtree(path.parent),
}


@pytest.mark.parametrize("removal", REMOVED)
async def test_removed_file_is_reported_and_its_events_are_refused(
    path: Path, removal: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr("bridgekit.stores.sqlite.group_commit.RETRY_SECONDS", POLL_INTERVAL_SECONDS)
    monkeypatch.setattr(file, "CHECK_SECONDS", POLL_INTERVAL_SECONDS)
    async with worker(path) as busy:
        assert (await busy.publish(THREAD)).kept
        REMOVED[removal](path)
        with anyio.fail_after(WAIT_SECONDS):
            while busy.log.healthy:  # noqa: ASYNC110  # nothing is published, and the store checks at intervals
                await anyio.sleep(POLL_INTERVAL_SECONDS)
        refused = await busy.publish(THREAD)
        assert (refused.outcome, refused.kept) == (Outcome.REFUSED, False)
        for text in (refused.reason, busy.log.problem, caplog.text):
            assert f"{path}* was deleted, moved or replaced; restart the application" in text


async def test_file_that_is_moved_back_is_used_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridgekit.stores.sqlite.group_commit.RETRY_SECONDS", POLL_INTERVAL_SECONDS)
    monkeypatch.setattr(file, "CHECK_SECONDS", 0)
    async with worker(path) as busy:
        await busy.publish(THREAD)
        path.rename(aside := path.with_name("aside.db"))
        assert (await busy.publish(THREAD)).outcome is Outcome.REFUSED
        aside.rename(path)
        with anyio.fail_after(WAIT_SECONDS):
            while not busy.log.healthy:  # noqa: ASYNC110  # the store retries at intervals
                await anyio.sleep(POLL_INTERVAL_SECONDS)
        assert (await busy.publish(THREAD)).kept
