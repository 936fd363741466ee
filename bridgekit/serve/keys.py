"""The key for tickets, from where no other user of the machine can read it: a file, or the environment."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bridgekit.errors import ServeError
from bridgekit.transport.tickets import KEY_BYTES

__all__ = ["KEY_VARIABLE", "check_private", "keys_from"]

KEY_VARIABLE: Final = "BRIDGEKIT_TICKET_KEY"
FILE_BYTES: Final = 65_536
"""Longest key file that is read."""


def keys_from(file: Path | None, environment: Mapping[str, str]) -> tuple[bytes, ...]:
    """One key a line: the first signs, and all are believed, so that a key can be changed. None where none is given.

    ServeError where a key is too short, or where others than its owner may read or change the file.
    """
    if file is not None:
        return _keys_in(_read(file), str(file))
    return _keys_in(environment.get(KEY_VARIABLE, "").encode(), KEY_VARIABLE) if KEY_VARIABLE in environment else ()


def _keys_in(text: bytes, source: str) -> tuple[bytes, ...]:
    keys = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not keys:
        raise ServeError(source, "it holds no key for tickets")
    if (shortest := min(map(len, keys))) < KEY_BYTES:
        raise ServeError(
            source, f"a key must have {KEY_BYTES} characters or more, not {shortest}; `openssl rand -hex 32` makes one"
        )
    return keys


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        # Asked of the file that is open: its name may lead elsewhere in the next moment.
        check_private(file, os.fstat(opened.fileno()))
        return opened.read(FILE_BYTES)


def check_private(file: Path, status: os.stat_result) -> None:
    """Ours, and for us alone; or the system's, which may let our group read it, as Kubernetes mounts its secrets."""
    if os.name != "posix":
        return
    if status.st_uid not in (0, os.geteuid()):
        raise ServeError(str(file), "the file with the key belongs to another user")
    allowed = stat.S_IRWXU | (stat.S_IRGRP if status.st_uid == 0 else 0)
    if stat.S_IMODE(status.st_mode) & ~allowed:
        raise ServeError(str(file), f"other users may get at the key; say: chmod 600 {file}")
