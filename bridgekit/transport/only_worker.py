"""Two processes behind one port, with a store that each has for itself, would lose half of all events: refuse it.

A server that starts workers hands each of them the same socket. So whoever was handed one takes a lock that is named
after its address, and who finds it taken by another process does not start.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridgekit.errors import StoreInUse
from bridgekit.transport.inherited import inherited_listeners

__all__ = ["only_worker"]

NETWORK: Final = Path("/proc/self/ns/net")
"""Tells one container's network from another's. They may share the folder of the locks, and not the addresses."""


@contextmanager
def only_worker(store: str) -> Iterator[None]:
    """Hold every address that other processes may serve too, for the length of a block; StoreInUse where one does.

    A server that binds its own port is not looked at: the system lets nobody else have it. Nor is anything on Windows.
    """
    with ExitStack() as stack:
        for address in sorted({*inherited_listeners().values()}):
            stack.enter_context(_holding(address, store))
        yield


@dataclass
class _Hold:
    path: Path
    file: int
    applications: int = 0
    """Two applications of one process are no two workers."""

    def release(self) -> None:
        # Away with the name while the lock is held: whoever opened the file before sees that it is another by then.
        self.path.unlink(missing_ok=True)
        os.close(self.file)


_holds: dict[tuple[int, str], _Hold] = {}
"""By process too: a process that is forked begins with a copy of its parent's, and holds nothing."""
_turn: Final = threading.Lock()
"""A process may run two servers, in two threads."""


@contextmanager
def _holding(address: str, store: str) -> Iterator[None]:
    holder = (os.getpid(), address)
    with _turn:
        hold = _holds.get(holder) or _held(address, store)
        _holds[holder] = hold
        hold.applications += 1
    try:
        yield
    finally:
        with _turn:
            hold.applications -= 1
            if not hold.applications and os.getpid() == holder[0]:
                del _holds[holder]
                hold.release()


def _held(address: str, store: str) -> _Hold:
    import fcntl  # here: Windows has none, and never comes here

    path = _path_of(address)
    while True:
        # Nothing is ever written to it: whatever a stranger may have put in its place comes to no harm.
        file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            if not isinstance(error, BlockingIOError):
                raise
            raise StoreInUse(store, f"another process serves {address} already") from None
        if _is_at(path, file):
            return _Hold(path, file)
        # Its holder let go of it between our opening and our locking. The next one to come would make a new file, and
        # hold that.
        os.close(file)


def _path_of(address: str) -> Path:
    network = NETWORK.stat().st_ino if NETWORK.exists() else 0
    name = hashlib.blake2s(f"{network} {address}".encode(), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"bridgekit-{os.getuid()}-{name}.lock"


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False
