"""What surrounds a SQLite file when it is opened: locks of other programs, permissions, a full disk."""

# these tests act on files from outside, while the store waits for nothing

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from bridgekit.errors import StoreInUse
from bridgekit.stores import sqlite_stores
from bridgekit_verify.harness.processes import ChildProcess, start_process
from tests.contract.stores import Worker
from tests.factories import THREAD

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    connection.execute(statement).fetchall()
print("locked", flush=True)
sys.stdin.read()
"""
LOCKS = {
    "writing": ("BEGIN EXCLUSIVE", "UPDATE store SET synchronous = synchronous"),
    "about to write": ("BEGIN IMMEDIATE",),
    "reading": ("BEGIN", "SELECT count(*) FROM threads"),
    "exclusive mode": ("PRAGMA locking_mode=EXCLUSIVE", "SELECT count(*) FROM threads"),
}


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """The path of a closed store."""
    path = tmp_path / "data" / "store.db"
    os.mkdir(path.parent)  # noqa: PTH102  # an async fixture must not use methods of paths that may block
    async with sqlite_stores(path)() as stores:
        await Worker(stores.log).publish(THREAD)
    return path


@asynccontextmanager
async def held(path: Path, *statements: str) -> AsyncIterator[ChildProcess]:
    async with start_process([sys.executable, "-c", HOLD, str(path), *statements]) as holder:
        assert await holder.line() == "locked"
        yield holder


@pytest.mark.slow
@pytest.mark.parametrize("lock", LOCKS)
async def test_file_that_another_program_holds_is_refused_until_it_lets_go(path: Path, lock: str) -> None:
    async with held(path, *LOCKS[lock]) as holder:
        with pytest.raises(StoreInUse, match=r"store\.db open"):
            async with sqlite_stores(path)():
                pass
        await holder.kill()
    async with sqlite_stores(path)() as stores:
        assert (await Worker(stores.log).publish(THREAD)).seq == 2


async def test_other_program_cannot_write_while_the_store_is_open(path: Path) -> None:
    async with sqlite_stores(path)() as stores:
        with (
            closing(sqlite3.connect(path, timeout=0)) as other,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            other.execute("DELETE FROM events")
        assert (await Worker(stores.log).publish(THREAD)).kept


def unwritable(*paths: str, mode: int = 0o555) -> Callable[[Path], None]:
    def hinder(path: Path) -> None:
        path.parent.chmod(0o777)
        for each in path.parent.iterdir():
            each.chmod(0o666)
        for suffix in paths:
            (path.parent if suffix == "folder" else Path(f"{path}{suffix}")).chmod(mode)

    return hinder


def new_file_in_unwritable_folder(path: Path) -> None:
    for each in path.parent.iterdir():
        each.unlink()
    path.parent.chmod(0o555)


PERMISSIONS: dict[str, tuple[Callable[[Path], None], str]] = {
    "folder": (unwritable("folder"), "needs to write to it and to its folder"),
    "folder, and no file yet": (new_file_in_unwritable_folder, "Permission denied"),
    "file": (unwritable("", mode=0o444), "may not write to the file"),
    "file that cannot be read": (unwritable("", mode=0), "needs to write to its folder"),
    "state file": (unwritable("-state", mode=0o444), "Permission denied"),
}


async def answer(path: Path, hindrance: str, backend: str) -> str:
    command = [sys.executable, "-m", "tests.stores.sqlite.hindered", str(path), hindrance, backend]
    async with start_process(command) as child:
        return await child.line()


@pytest.mark.short_form(5)
@pytest.mark.slow
@pytest.mark.parametrize("what", PERMISSIONS)
async def test_missing_permission_is_named_at_startup(
    path: Path, what: str, anyio_backend: tuple[str, dict[str, Any]]
) -> None:
    hinder, expected = PERMISSIONS[what]
    hinder(path)
    for folder in path.parents[1:]:  # others may pass through the folders of pytest
        if folder.stat().st_uid == os.getuid() and str(folder).startswith("/tmp/"):
            folder.chmod(0o711)
    line = await answer(path, "permissions", anyio_backend[0])
    assert line.startswith(f"StoreUnusable: the SQLite store cannot use {path}: ")
    assert expected in line


@pytest.mark.short_form(3)
@pytest.mark.slow
@pytest.mark.parametrize("size_bytes", [0, 1_000, 10_000])
async def test_full_disk_at_startup_is_named(
    path: Path, size_bytes: int, anyio_backend: tuple[str, dict[str, Any]]
) -> None:
    line = await answer(path.with_name("new.db"), str(size_bytes), anyio_backend[0])
    assert line.startswith("StoreUnusable: the SQLite store cannot use")
    assert "full" in line or "disk I/O error" in line or "File too large" in line
