"""SQLite files as another program sees them, and time that passes when a test says so."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any


class Clock:
    """Seconds since 1970, in no hurry."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def asked(path: Path, sql: str) -> list[Any]:
    """What the file answers to another program."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def changed(path: Path, script: str) -> None:
    """Have another program do something to the file."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def image(path: Path) -> Path:
    """What the disk has of an open file: what would be left of it if its process were killed now."""
    copy = path.with_name("image.db")
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    return copy
