"""The listening sockets that this process was started with: a server that has workers hands each of them the same."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

__all__ = ["address_of", "anything_listens", "inherited_listeners"]

OPEN_FILES: Final = Path("/dev/fd")
"""Where a process finds its own open files, on Linux and macOS."""


def inherited_listeners() -> dict[int, str]:
    """Descriptor and address of every socket that listens, or will, and that other processes may have as well.

    Nothing where the system does not say (Windows).
    """
    found = {descriptor: address_of(descriptor) for descriptor in _open_files()}
    return {descriptor: address for descriptor, address in found.items() if address is not None}


def address_of(descriptor: int) -> str | None:
    """The address of such a socket, "127.0.0.1:8000" or a path; None for whatever else has that number, or nothing."""
    with suppress(OSError), _looked_at(descriptor) as here:
        # What is not inheritable was opened here, for nobody else: Python makes no other unless it is asked to, and
        # every server that has workers asks.
        return _waits_at(here) if os.get_inheritable(descriptor) else None
    return None


def anything_listens() -> bool:
    """Whether this process has a socket that listens, inherited or not."""
    return any(map(_listens, _open_files()))


def _open_files() -> list[int]:
    if not OPEN_FILES.exists():
        return []
    names = os.listdir(OPEN_FILES)  # noqa: PTH208 - the names are numbers, not paths
    return [int(name) for name in names if name.isdecimal()]


@contextmanager
def _looked_at(descriptor: int) -> Iterator[socket.socket]:
    """OSError where it is no socket, or was closed in the meantime."""
    here = socket.socket(fileno=descriptor)
    try:
        yield here
    finally:
        here.detach()  # it is somebody else's, and stays open


def _listens(descriptor: int) -> bool:
    with suppress(OSError), _looked_at(descriptor) as here:
        return bool(here.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    return False


def _waits_at(here: socket.socket) -> str | None:
    # Asked whether it is bound, not whether it listens: a worker is started on a socket that does not listen yet.
    if here.type != socket.SOCK_STREAM or _is_connected(here):
        return None
    name = here.getsockname()
    if here.family == socket.AF_UNIX:
        return os.fsdecode(name) or None
    if here.family in (socket.AF_INET, socket.AF_INET6) and name[1]:
        return f"{name[0]}:{name[1]}"
    return None


def _is_connected(here: socket.socket) -> bool:
    try:
        here.getpeername()
    except OSError:
        return False
    return True
