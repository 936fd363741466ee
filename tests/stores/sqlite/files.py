"""SQLite files as another program reads them, and a clock that a test advances."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from bridgekit.stores.sqlite.file import identity


class Clock:
    """Seconds since 1970; a test advances `now`."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def query(path: Path, sql: str) -> list[Any]:
    """Query the file from another connection."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def run_script(path: Path, script: str) -> None:
    """Change the file from another connection, unnoticed: otherwise, the store takes it for a restored backup."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    hide_change(path)


def hide_change(path: Path) -> None:
    """Let the state file describe the file as it is now."""
    state = Path(f"{path}-state")
    if state.exists() and state.read_text().startswith("closed"):
        state.write_text(f"closed {identity(path)}")


def snapshot(path: Path) -> Path:
    """Copy an open file with its write-ahead log, as it would remain if its process were killed now."""
    copy = path.with_name("image.db")
    for suffix in ("", "-wal", "-state"):
        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    return copy
