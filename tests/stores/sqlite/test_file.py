"""The file of a SQLite store: one process opens it, other files are refused unchanged, lost events lead to a gap."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import sys
import time
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bridgekit.cursors_and_gaps import Cursor
from bridgekit.errors import StoreInUse, StoreUnusable, UnknownName
from bridgekit.ids import RunId
from bridgekit.mapping import RunThreadMappingService
from bridgekit.stores import sqlite_stores, stores_from
from bridgekit.stores.sqlite.file import STALE_ROUTE_SECONDS, StoreFile
from bridgekit_verify.harness.processes import ChildProcess, start_process
from tests.contract.stores import Worker, numbers
from tests.factories import RUN, THREAD
from tests.stores.sqlite.files import query, run_script, snapshot

BOOT = Path("/proc/sys/kernel/random/boot_id")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def contents(folder: Path) -> dict[str, bytes]:
    """Return the contents of every file in a folder, by name."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def modes(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


@asynccontextmanager
async def worker(path: Path, synchronous: str = "normal") -> AsyncIterator[Worker]:
    async with sqlite_stores(path, synchronous=synchronous)() as stores:
        yield Worker(stores.log)


@asynccontextmanager
async def held_elsewhere(path: Path, backend: str) -> AsyncIterator[ChildProcess]:
    async with start_process(
        [sys.executable, "-m", "tests.stores.sqlite.holder", f"sqlite:///{path}", backend]
    ) as holder:
        yield holder


async def test_second_connection_is_refused_at_once_and_the_first_is_not_disturbed(path: Path) -> None:
    async with sqlite_stores(path)() as stores:
        took = []
        for _ in range(5):
            began = time.monotonic()
            with pytest.raises(StoreInUse) as refused:
                async with sqlite_stores(path)():
                    pass
            assert str(path) in str(refused.value)
            took.append(time.monotonic() - began)
        assert min(took) < 3, "by itself SQLite would wait for 5 s"
        assert await stores.routes.add(RUN, THREAD) == THREAD
    async with sqlite_stores(path)():
        pass


@pytest.mark.slow
async def test_second_process_is_refused_until_the_first_is_killed(
    path: Path, anyio_backend: tuple[str, dict[str, Any]]
) -> None:
    async with held_elsewhere(path, anyio_backend[0]) as holder:
        assert await holder.line() == "open"
        with pytest.raises(StoreInUse):
            async with sqlite_stores(path)():
                pass
        async with held_elsewhere(path, anyio_backend[0]) as other:
            assert await other.line() == "StoreInUse"
        await holder.kill()
        async with sqlite_stores(path)():
            shutil.copy(path, path.with_name("copy.db"))  # releases the lock of SQLite
            async with held_elsewhere(path, anyio_backend[0]) as other:
                assert await other.line() == "StoreInUse"


async def test_forked_child_that_outlives_the_store_does_not_keep_the_lock(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # this process has other threads
        async with sqlite_stores(path)():
            if not (child := os.fork()):
                signal.pause()
    try:
        async with sqlite_stores(path)() as stores:
            assert await stores.routes.add(RUN, THREAD) == THREAD
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)  # noqa: ASYNC222 - it was killed


async def test_store_that_could_not_be_opened_can_be_opened_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error may outlive the attempt, and its traceback holds what the attempt opened."""

    def fail(_: object, __: str) -> None:
        raise sqlite3.OperationalError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(StoreFile, "_write_state", fail)
        with pytest.raises(StoreUnusable, match="disk full") as failed:
            async with sqlite_stores(path)():
                raise AssertionError("was opened")
    async with sqlite_stores(path)():
        assert failed.tb is not None


def text(path: Path) -> None:
    path.write_text("Dear diary, " * 1_000)


def another_database(path: Path) -> None:
    run_script(path, "CREATE TABLE theirs (value); INSERT INTO theirs VALUES (1)")


def another_database_with_a_log(path: Path) -> None:
    run_script(path, "PRAGMA journal_mode=WAL; CREATE TABLE theirs (value); INSERT INTO theirs VALUES (1)")


def another_application(path: Path) -> None:
    run_script(path, "PRAGMA application_id = 7")


@pytest.mark.parametrize("make", [text, another_database, another_database_with_a_log, another_application])
async def test_foreign_file_is_refused_and_left_unchanged(path: Path, make: Callable[[Path], None]) -> None:
    make(path)
    before = contents(path.parent)
    with pytest.raises(StoreUnusable) as refused:
        async with sqlite_stores(path)():
            pass
    assert (refused.value.store, refused.value.path) == ("SQLite", str(path))
    assert contents(path.parent) == before


async def test_file_of_another_version_is_refused_and_left_unchanged(path: Path) -> None:
    async with worker(path) as first:
        await first.publish(THREAD)
    run_script(path, "PRAGMA user_version = 9")
    before = contents(path.parent)
    with pytest.raises(StoreUnusable, match="version 9, but this release needs version 4"):
        async with sqlite_stores(path)():
            pass
    assert contents(path.parent) == before


@pytest.mark.parametrize("name", [".", "nowhere/store.db"])
async def test_path_where_no_file_can_be_created_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreUnusable):
        async with sqlite_stores(tmp_path / name)():
            pass
    assert contents(tmp_path) == {}


async def test_unknown_setting_is_refused_before_anything_is_opened(path: Path) -> None:
    with pytest.raises(UnknownName, match="extra") as refused:
        sqlite_stores(path, synchronous="extra")
    assert refused.value.known == ("off", "normal", "full")
    with pytest.raises(UnknownName, match="synchronous"):
        stores_from(f"sqlite:///{path}?synchronized=full")
    assert contents(path.parent) == {}


async def test_url_names_the_file_and_its_setting(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    async with stores_from("sqlite:///a%20store.db?synchronous=full")() as stores:
        assert stores.name == "sqlite"
        assert not stores.shared
    assert query(path.with_name("a store.db"), "SELECT synchronous FROM store") == [("full",)]


async def test_files_are_private_and_the_write_ahead_log_is_removed_when_closed(path: Path) -> None:
    async with worker(path) as open_:
        await open_.publish(THREAD)
        assert modes(path.parent) == {"store.db": 0o600, "store.db-state": 0o600, "store.db-wal": 0o600}
    assert modes(path.parent) == {"store.db": 0o600, "store.db-state": 0o600}
    assert query(path, "SELECT boot FROM store") == [(None,)]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("synchronous", ["off", "normal", "full"])
async def test_numbering_continues_after_a_kill_without_a_reboot(path: Path, synchronous: str) -> None:
    async with worker(path, synchronous) as first:
        before = [await first.publish(THREAD) for _ in range(3)][-1]
        left = snapshot(path)
    async with worker(left, synchronous) as second:
        after = await second.publish(THREAD)
        assert (after.seq, after.epoch) == (4, before.epoch)


@pytest.mark.skipif(not BOOT.exists(), reason="only Linux names its boots; elsewhere every kill counts as a power loss")
@pytest.mark.parametrize(("synchronous", "same"), [("off", False), ("normal", False), ("full", True)])
async def test_new_epoch_begins_when_a_power_loss_may_have_lost_events(
    path: Path, synchronous: str, same: bool
) -> None:
    """A client that received more events than the disk has must not mistake new events for them."""
    async with worker(path, synchronous) as first:
        await first.publish(THREAD)
        left = snapshot(path)
        read = [await first.publish(THREAD) for _ in range(2)][-1]
    run_script(left, "UPDATE store SET boot = 'another'")
    async with worker(left, synchronous) as second:
        for number in range(5):
            await second.publish(THREAD, number)
        replay = await second.join(THREAD, Cursor(read.epoch or "", read.seq or 0))
        assert (replay.cursor.epoch == read.epoch) == same
        if not same:
            assert replay.gap is not None
            assert replay.gap.last is None
            assert numbers(replay.frames) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("synchronous", ["off", "normal", "full"])
async def test_closed_file_is_complete_after_a_reboot(
    path: Path, synchronous: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker(path, synchronous) as first:
        before = await first.publish(THREAD)
    monkeypatch.setattr("bridgekit.stores.sqlite.file._boot_id", lambda: "another")
    async with worker(path, synchronous) as second:
        after = await second.publish(THREAD)
        assert (after.seq, after.epoch) == (2, before.epoch)


async def test_run_that_was_live_when_the_process_was_killed_keeps_its_route_for_a_day(path: Path) -> None:
    again = RunId("run_again")
    async with sqlite_stores(path)() as stores:
        mapping = RunThreadMappingService(stores.routes)
        await mapping.register_mapping(RUN, THREAD)
        await mapping.register_mapping(again, THREAD)
        left = snapshot(path)
    async with sqlite_stores(left)() as stores:
        mapping = RunThreadMappingService(stores.routes)
        assert await mapping.get_thread_id(RUN) == THREAD
        await mapping.register_mapping(again, THREAD)
    ((lasts,),) = query(left, "SELECT due - unixepoch() FROM routes WHERE run_id = 'run_1'")
    assert STALE_ROUTE_SECONDS - 60 < lasts < STALE_ROUTE_SECONDS + 1
    assert query(left, "SELECT due FROM routes WHERE run_id = 'run_again'") == [(None,)]
    run_script(left, "UPDATE routes SET due = unixepoch() - 1 WHERE due IS NOT NULL")
    async with sqlite_stores(left)() as stores:
        mapping = RunThreadMappingService(stores.routes)
        assert await mapping.get_thread_id(RUN) is None
        assert await mapping.get_thread_id(again) == THREAD
