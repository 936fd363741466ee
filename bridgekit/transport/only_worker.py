"""Two processes behind one port, with a store that each has for itself, would lose half of all events: refuse it.

A server that starts workers hands each the same listening socket. So whoever holds a listening socket takes a lock
that is named after its address, and who finds it taken by another process does not start.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from bridgekit.errors import StoreInUse

__all__ = ["only_worker"]

OPEN_FILES: Final = Path("/dev/fd")
"""Where a process finds its own open files, on Linux and macOS."""

_held: dict[str, int] = {}
"""Addresses that this process holds, and how often: two applications in one process are no two workers."""


@contextmanager
def only_worker(store: str) -> Iterator[None]:
    """Hold every address that this process listens on, for the length of a block; StoreInUse where another has it.

    Where the system has neither /dev/fd nor file locks (Windows), nothing is checked.
    """
    with ExitStack() as stack:
        if sys.platform != "win32" and OPEN_FILES.exists():
            for address in _listening_addresses():
                stack.enter_context(_holding(address, store))
        yield


def _listening_addresses() -> list[str]:
    names = os.listdir(OPEN_FILES)  # noqa: PTH208 - the names are numbers, not paths
    found = (_listening_address(int(name)) for name in names if name.isdecimal())
    return sorted({address for address in found if address is not None})


def _listening_address(descriptor: int) -> str | None:
    try:
        here = socket.socket(fileno=descriptor)
    except OSError:
        return None  # no socket, or closed in the meantime
    try:
        if here.family in (socket.AF_INET, socket.AF_INET6) and here.getsockopt(
            socket.SOL_SOCKET, socket.SO_ACCEPTCONN
        ):
            host, port = here.getsockname()[:2]
            return f"{host.replace(':', '.')}-{port}"
    except OSError:
        return None
    finally:
        here.detach()  # it is somebody else's, and stays open
    return None


@contextmanager
def _holding(address: str, store: str) -> Iterator[None]:
    import fcntl

    if _held.get(address):
        _held[address] += 1
        try:
            yield
        finally:
            _held[address] -= 1
        return
    path = Path(tempfile.gettempdir()) / f"bridgekit-{os.getuid()}-{address}.lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise StoreInUse(store, f"process {file.read().strip() or 'another'} serves {address} already") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        _held[address] = 1
        try:
            yield
        finally:
            del _held[address]
            path.unlink(missing_ok=True)
