"""Inherited listening sockets, and the lock that allows one worker: real processes and real servers."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridgekit.errors import StoreInUse
from bridgekit.transport.listeners_and_worker_lock import (
    anything_listens,
    inherited_address,
    inherited_listeners,
    single_worker_lock,
)
from tests.server_processes import APP, started

REFUSED = "the memory store serves a single process, and another process serves 127.0.0.1:"

# A worker that inherited a socket: it tries to lock, prints the result, and keeps the lock until stdin is closed.
WORKER = """
import sys
from bridgekit.errors import StoreInUse
from bridgekit.transport.listeners_and_worker_lock import single_worker_lock
try:
    with single_worker_lock("memory"):
        print("started", flush=True)
        sys.stdin.read()
except StoreInUse as refusal:
    print(refusal)
"""
FORKED = """
import os
from bridgekit.errors import StoreInUse
from bridgekit.transport.listeners_and_worker_lock import single_worker_lock
with single_worker_lock("memory"):
    if not os.fork():
        try:
            with single_worker_lock("memory"):
                print("started", flush=True)
        except StoreInUse:
            print("refused", flush=True)
        os._exit(0)
    os.wait()
"""
RELEASED_WHILE_A_CHILD_LIVES = """
import os
from bridgekit.transport.listeners_and_worker_lock import single_worker_lock
end, ends = os.pipe()
with single_worker_lock("memory"):
    if not (child := os.fork()):
        os.close(ends)
        os.read(end, 1)
        os._exit(0)
if not os.fork():
    with single_worker_lock("memory"):
        print("started", flush=True)
    os._exit(0)
os.wait()
os.close(ends)
"""


@contextmanager
def inheritable(
    family: int = socket.AF_INET, *, bound_to: tuple[str, int] | str | None = ("127.0.0.1", 0)
) -> Iterator[socket.socket]:
    """Return a socket that child processes can inherit, bound and not listening, as uvicorn passes it to its
    workers."""
    with socket.socket(family) as made:
        made.set_inheritable(True)
        if bound_to is not None:
            made.bind(bound_to)
        yield made


def port(bound: socket.socket) -> int:
    number: int = bound.getsockname()[1]
    return number


def test_bound_socket_is_found_before_it_listens_and_after() -> None:
    with inheritable() as bound:
        expected = {bound.fileno(): f"127.0.0.1:{port(bound)}"}
        assert inherited_listeners() == expected
        bound.listen()
        assert inherited_listeners() == expected
    assert inherited_listeners() == {}


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_ipv6_socket_is_found() -> None:
    with inheritable(socket.AF_INET6, bound_to=("::1", 0)) as bound:
        assert inherited_listeners() == {bound.fileno(): f"::1:{port(bound)}"}


def test_unix_socket_is_found_by_its_path(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with inheritable(socket.AF_UNIX, bound_to=path) as bound:
        assert inherited_listeners() == {bound.fileno(): path}


def test_socket_that_python_opens_by_default_is_not_inherited() -> None:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        assert inherited_address(opened.fileno()) is None
        assert inherited_listeners() == {}


def test_connections_unbound_sockets_pairs_datagrams_and_files_are_not_listeners(tmp_path: Path) -> None:
    left, right = socket.socketpair()
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as accepted,
        inheritable(bound_to=None) as unbound,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
        (tmp_path / "f").open("wb") as file,
        left,
        right,
    ):
        datagram.bind(("127.0.0.1", 0))
        for each in (client, accepted, unbound, datagram, file, left, right):
            os.set_inheritable(each.fileno(), True)
        assert inherited_listeners() == {}


def test_inspecting_a_socket_leaves_it_open() -> None:
    with inheritable() as bound:
        inherited_listeners()
        bound.listen()
        with socket.create_connection(bound.getsockname()):
            bound.accept()[0].close()


def test_closed_descriptor_has_no_address() -> None:
    with inheritable() as bound:
        descriptor = bound.fileno()
        assert inherited_address(descriptor) is not None
    assert inherited_address(descriptor) is None


def test_anything_listens_only_while_a_socket_listens() -> None:
    assert not anything_listens()
    with inheritable() as bound:
        assert not anything_listens()
        bound.listen()
        assert anything_listens()
    with socket.create_server(("127.0.0.1", 0)):
        assert anything_listens()
    assert not anything_listens()


@contextmanager
def worker(*sockets: socket.socket) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", WORKER],
        pass_fds=[each.fileno() for each in sockets],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def output(program: str, inherited: socket.socket) -> list[str]:
    """Return what a program prints that inherits this socket."""
    done = subprocess.run(
        [sys.executable, "-c", program], pass_fds=[inherited.fileno()], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def lock_files() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"bridgekit-{os.getuid()}-*.lock"))


def is_locked() -> bool:
    """Return whether this process holds the only lock, as another process sees it."""
    [path] = lock_files()
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """These tests only read what servers print."""
    return "asyncio"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of lock files for each test: other tests hold locks at the same time."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.mark.slow
def test_second_worker_on_an_address_is_refused_until_the_first_has_ended_or_is_killed() -> None:
    with inheritable() as bound:
        with worker(bound) as first:
            assert first_line(first) == "started"
            with worker(bound) as second:
                assert first_line(second).startswith(REFUSED)
            first.send_signal(signal.SIGKILL)
            first.wait()
        with worker(bound) as third:
            assert first_line(third) == "started"


@pytest.mark.slow
def test_workers_on_two_addresses_both_start() -> None:
    with inheritable() as one, inheritable() as other, worker(one) as first, worker(other) as second:
        assert (first_line(first), first_line(second)) == ("started", "started")


@pytest.mark.slow
def test_forked_process_does_not_share_the_lock_of_its_parent() -> None:
    with inheritable() as bound:
        assert output(FORKED, bound) == ["refused"]


@pytest.mark.slow
def test_released_lock_is_free_while_a_forked_process_is_alive() -> None:
    with inheritable() as bound:
        assert output(RELEASED_WHILE_A_CHILD_LIVES, bound) == ["started"]


def test_two_applications_of_one_process_share_the_lock_until_both_have_ended() -> None:
    with inheritable():
        first, second = single_worker_lock("memory"), single_worker_lock("memory")
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert is_locked()
        second.__exit__(None, None, None)
        assert not is_locked()


def test_two_threads_may_start_at_the_same_moment() -> None:
    barrier = threading.Barrier(8)
    errors: list[StoreInUse] = []

    def serve() -> None:
        barrier.wait()
        try:
            with single_worker_lock("memory"):
                barrier.wait()
        except StoreInUse as error:
            errors.append(error)

    with inheritable():
        threads = [threading.Thread(target=serve) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (errors, is_locked()) == ([], False)


def test_server_with_its_own_port_takes_no_lock() -> None:
    with socket.create_server(("127.0.0.1", 0)), single_worker_lock("memory"):
        assert lock_files() == []


def test_another_users_file_at_the_lock_path_is_not_changed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("words")
    with inheritable():
        with single_worker_lock("memory"):
            [lock] = lock_files()
        lock.unlink()
        lock.symlink_to(precious)
        with pytest.raises(OSError, match="symbolic link"), single_worker_lock("memory"):
            pass
        lock.unlink()
        lock.hardlink_to(precious)
        with single_worker_lock("memory"):
            pass
    assert precious.read_text() == "words"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [("uvicorn", APP, "--port", "0", "--workers", "2"), ("hypercorn", APP, "--bind", "127.0.0.1:0", "--workers", "2")],
    ids=["uvicorn", "hypercorn"],
)
async def test_two_workers_with_a_single_worker_store_do_not_start_and_print_the_reason(
    command: tuple[str, ...],
) -> None:
    async with started(*command) as server:
        # Both servers end with exit code 0 when their workers could not start.
        await server.end()
    reasons = [line for line in server.output if line.startswith("bridgekit.errors.DeterministicStartupError")]
    assert {REFUSED in line and line.endswith("use the Redis store") for line in reasons} == {True}


@pytest.mark.slow
async def test_only_the_first_worker_that_inherits_a_listening_socket_starts() -> None:
    """A server that forks its workers passes the socket on, for example gunicorn."""
    async with started("tests.prefork") as server:
        await server.read_until(REFUSED)
        await server.read_until("a worker ended with 3")
        assert await server.health() == (200, "ok")
