"""One process behind one address, where the store is for one: locks, real processes, and real servers."""

from __future__ import annotations

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
from bridgekit.transport.only_worker import only_worker
from tests.server_processes import APP, started

REFUSED = "the memory store serves one process, and another process serves 127.0.0.1:"

# What a worker does that was handed a socket: tries, says what came of it, and keeps what it has until told to end.
WORKER = """
import sys
from bridgekit.errors import StoreInUse
from bridgekit.transport.only_worker import only_worker
try:
    with only_worker("memory"):
        print("started", flush=True)
        sys.stdin.read()
except StoreInUse as refusal:
    print(refusal)
"""
FORKED = """
import os
from bridgekit.errors import StoreInUse
from bridgekit.transport.only_worker import only_worker
with only_worker("memory"):
    if not os.fork():
        try:
            with only_worker("memory"):
                print("started", flush=True)
        except StoreInUse:
            print("refused", flush=True)
        os._exit(0)
    os.wait()
"""


@contextmanager
def handed_on() -> Iterator[socket.socket]:
    """A socket that every process may have which this one starts."""
    with socket.socket() as here:
        here.bind(("127.0.0.1", 0))
        here.set_inheritable(True)
        yield here


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


def says(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def locks() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob(f"bridgekit-{os.getuid()}-*.lock"))


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Ours, who only read what servers say."""
    return "asyncio"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of locks: what other tests hold at the same time is none of these tests' business."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.mark.slow
def test_second_worker_behind_an_address_is_refused_until_the_first_is_gone_even_by_kill() -> None:
    with handed_on() as here:
        with worker(here) as first:
            assert says(first) == "started"
            with worker(here) as second:
                assert says(second).startswith(REFUSED)
            first.send_signal(signal.SIGKILL)
            first.wait()
        with worker(here) as third:
            assert says(third) == "started"


@pytest.mark.slow
def test_workers_of_one_parent_behind_two_addresses_are_both_fine() -> None:
    with handed_on() as here, handed_on() as there, worker(here) as one, worker(there) as other:
        assert (says(one), says(other)) == ("started", "started")


@pytest.mark.slow
def test_child_of_a_fork_holds_nothing_of_its_parents() -> None:
    with handed_on() as here:
        done = subprocess.run(
            [sys.executable, "-c", FORKED], pass_fds=[here.fileno()], capture_output=True, text=True, check=True
        )
    assert done.stdout.split() == ["refused"]
    assert locks() == set()


def test_two_applications_of_one_process_are_no_two_workers_and_the_last_lets_go() -> None:
    with handed_on():
        first, second = only_worker("memory"), only_worker("memory")
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert len(locks()) == 1
        second.__exit__(None, None, None)
    assert locks() == set()


def test_two_threads_may_start_at_the_same_moment() -> None:
    barrier = threading.Barrier(8)
    errors: list[StoreInUse] = []

    def serve() -> None:
        barrier.wait()
        try:
            with only_worker("memory"):
                barrier.wait()
        except StoreInUse as error:
            errors.append(error)

    with handed_on():
        threads = [threading.Thread(target=serve) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (errors, locks()) == ([], set())


def test_server_with_a_port_of_its_own_takes_no_lock() -> None:
    with socket.create_server(("127.0.0.1", 0)), only_worker("memory"):
        assert locks() == set()


def test_lock_that_is_let_go_of_between_opening_and_locking_is_not_taken_for_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[Path] = []
    really_open = os.open

    def open_and_lose(path: Path, flags: int, mode: int) -> int:
        file = really_open(path, flags, mode)
        opened.append(path)
        if len(opened) == 1:
            path.unlink()  # as its holder does, who lets go in this moment
        return file

    tempfile.gettempdir()  # it tries the folder with a file of its own
    monkeypatch.setattr(os, "open", open_and_lose)
    with handed_on(), only_worker("memory"):
        assert len(opened) == 2
        assert locks() == {opened[-1]}


def test_what_a_stranger_put_in_the_place_of_a_lock_comes_to_no_harm(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("words")
    with handed_on():
        with only_worker("memory"):
            [lock] = locks()
        lock.symlink_to(precious)
        with pytest.raises(OSError, match="symbolic link"), only_worker("memory"):
            pass
        lock.unlink()
        lock.hardlink_to(precious)
        with only_worker("memory"):
            pass
    assert precious.read_text() == "words"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [("uvicorn", APP, "--port", "0", "--workers", "2"), ("hypercorn", APP, "--bind", "127.0.0.1:0", "--workers", "2")],
    ids=["uvicorn", "hypercorn"],
)
async def test_two_workers_with_a_store_for_one_do_not_start_and_say_why(
    command: tuple[str, ...],
) -> None:
    async with started(*command) as server:
        # Its exit code says nothing: both servers end with 0 when their workers could not start.
        await server.end()
    reasons = [line for line in server.said if line.startswith("bridgekit.errors.DeterministicStartupError")]
    assert {REFUSED in line and line.endswith("use the Redis store") for line in reasons} == {True}


@pytest.mark.slow
async def test_workers_that_inherit_a_listening_socket_are_refused_but_the_first() -> None:
    """As a server that forks its workers hands it on: gunicorn, for one."""
    async with started("tests.prefork") as server:
        await server.read_until(REFUSED)
        await server.read_until("a worker ended with 3")
        assert await server.health() == (200, "ok")
