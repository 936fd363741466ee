"""Finds listening sockets that a parent process passed on, and locks each of them for one worker process.

A server that starts workers gives each of them the same listening socket. With a single-process store, each worker
would know only its own clients. A worker therefore locks a file that is named after the socket's address. A worker does
not start if another process holds the lock.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridgekit.errors import StoreInUse

if sys.platform != "win32":
    import fcntl

__all__ = ["anything_listens", "inherited_address", "inherited_listeners", "release_listeners", "single_worker_lock"]

OPEN_FILES: Final = Path("/dev/fd")
"""The folder that lists this process's open file descriptors, on Linux and macOS."""
NETWORK_NAMESPACE: Final = Path("/proc/self/ns/net")
"""Identifies the container's network. Containers may share the folder of lock files, but have different addresses."""


def inherited_listeners() -> dict[int, str]:
    """Return the address of each inherited listening socket, by descriptor.

    The result is empty on Windows, which does not list open files.
    """
    found = {descriptor: inherited_address(descriptor) for descriptor in _open_files()}
    return {descriptor: address for descriptor, address in found.items() if address is not None}


def inherited_address(descriptor: int) -> str | None:
    """Return the address of an inherited listening socket, such as "127.0.0.1:8000" or a path.

    Return None for any other descriptor.
    """
    with suppress(OSError), _inspect(descriptor) as found:
        # A socket that is not inheritable was opened by this process, because Python makes a socket inheritable only on
        # request.
        return _listening_address(found) if os.get_inheritable(descriptor) else None
    return None


def anything_listens() -> bool:
    """Return whether this process has a listening socket, inherited or not."""
    return any(map(_listens, _open_files()))


def release_listeners(descriptors: Iterable[int]) -> None:
    """Stop listening on these sockets. The descriptors stay open, because the sockets' owners will close them."""
    for descriptor in filter(_listens, descriptors):
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, descriptor, inheritable=False)
        os.close(null)


def _open_files() -> list[int]:
    if not OPEN_FILES.exists():
        return []
    names = os.listdir(OPEN_FILES)  # noqa: PTH208 - the names are numbers, not paths
    return [int(name) for name in names if name.isdecimal()]


@contextmanager
def _inspect(descriptor: int) -> Iterator[socket.socket]:
    """Wrap a descriptor in a socket object while the block runs.

    Raises OSError if the descriptor is closed or not a socket.
    """
    found = socket.socket(fileno=descriptor)
    try:
        yield found
    finally:
        found.detach()  # its owner closes it


def _listens(descriptor: int) -> bool:
    with suppress(OSError), _inspect(descriptor) as found:
        return bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    return False


def _listening_address(found: socket.socket) -> str | None:
    # A bound socket counts even if it does not listen yet, because uvicorn starts workers before the socket listens.
    if found.type != socket.SOCK_STREAM:
        return None
    with suppress(OSError):
        found.getpeername()
        return None  # a connection
    name = found.getsockname()
    if found.family == socket.AF_UNIX:
        return os.fsdecode(name) or None
    if found.family in (socket.AF_INET, socket.AF_INET6) and name[1]:
        return f"{name[0]}:{name[1]}"
    return None


@contextmanager
def single_worker_lock(store: str) -> Iterator[None]:
    """Lock every inherited listening address while the block runs. Raises StoreInUse if another process holds a lock.

    A server that binds its own port needs no lock, because the system refuses the port to every other process.
    """
    with ExitStack() as stack:
        for address in sorted(set(inherited_listeners().values())):
            stack.enter_context(_address_locked(address, store))
        yield


@dataclass
class _AddressLock:
    file: int
    """Descriptor of the lock file. The system releases the lock when the process ends, even if it is killed."""
    applications: int = 0
    """The number of applications in this process that hold the lock. Two applications in one process count as one
    worker."""


_locks: dict[tuple[int, str], _AddressLock] = {}
"""Locks by process id and address. A forked process has a copy of `_locks` but holds no lock."""
_mutex: Final = threading.Lock()
"""Guards `_locks`, because a process may run servers in several threads."""


@contextmanager
def _address_locked(address: str, store: str) -> Iterator[None]:
    key = (os.getpid(), address)
    with _mutex:
        lock = _locks.get(key) or _AddressLock(_locked_file(address, store))
        _locks[key] = lock
        lock.applications += 1
    try:
        yield
    finally:
        with _mutex:
            lock.applications -= 1
            if not lock.applications and os.getpid() == key[0]:
                del _locks[key]
                # Closing the descriptor does not release the lock if a forked process has a copy of the descriptor.
                fcntl.flock(lock.file, fcntl.LOCK_UN)
                os.close(lock.file)


def _locked_file(address: str, store: str) -> int:
    # Open the file read-only and without following symbolic links, so that a file of another user is never changed. The
    # file is kept when the lock is released, because another process may already have opened it to lock it.
    file = os.open(_lock_path(address), os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        if isinstance(error, BlockingIOError):
            raise StoreInUse(store, f"another process serves {address} already") from None
        raise
    return file


def _lock_path(address: str) -> Path:
    network = NETWORK_NAMESPACE.stat().st_ino if NETWORK_NAMESPACE.exists() else 0
    name = hashlib.blake2s(f"{network} {address}".encode(), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"bridgekit-{os.getuid()}-{name}.lock"
