"""Which sockets of a process may be another's as well."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridgekit.transport.inherited import address_of, anything_listens, inherited_listeners


@contextmanager
def made(
    family: int = socket.AF_INET, *, bound_to: tuple[str, int] | str | None = ("127.0.0.1", 0)
) -> Iterator[socket.socket]:
    """A socket that would be inherited, bound and not listening, as uvicorn hands it to its workers."""
    with socket.socket(family) as here:
        here.set_inheritable(True)
        if bound_to is not None:
            here.bind(bound_to)
        yield here


def port(here: socket.socket) -> int:
    number: int = here.getsockname()[1]
    return number


def test_socket_that_is_bound_counts_before_it_listens_and_after() -> None:
    with made() as here:
        expected = {here.fileno(): f"127.0.0.1:{port(here)}"}
        assert inherited_listeners() == expected
        here.listen()
        assert inherited_listeners() == expected
    assert inherited_listeners() == {}


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_ipv6_counts() -> None:
    with made(socket.AF_INET6, bound_to=("::1", 0)) as here:
        assert inherited_listeners() == {here.fileno(): f"::1:{port(here)}"}


def test_unix_socket_counts_by_its_path(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with made(socket.AF_UNIX, bound_to=path) as here:
        assert inherited_listeners() == {here.fileno(): path}


def test_what_python_opens_unasked_is_nobody_elses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as here:
        assert address_of(here.fileno()) is None
        assert inherited_listeners() == {}


def test_connections_unbound_sockets_pairs_datagrams_and_files_do_not_count(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with (
        socket.create_server(("127.0.0.1", 0)) as door,
        socket.create_connection(door.getsockname()) as client,
        door.accept()[0] as accepted,
        made(bound_to=None) as unbound,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
        (tmp_path / "f").open("wb") as file,
        ours,
        theirs,
    ):
        datagram.bind(("127.0.0.1", 0))
        for each in (client, accepted, unbound, datagram, file, ours, theirs):
            os.set_inheritable(each.fileno(), True)
        assert inherited_listeners() == {}


def test_looking_leaves_the_socket_open_and_as_it_was() -> None:
    with made() as here:
        inherited_listeners()
        here.listen()
        with socket.create_connection(here.getsockname()):
            here.accept()[0].close()


def test_closed_descriptor_has_no_address() -> None:
    with made() as here:
        descriptor = here.fileno()
        assert address_of(descriptor) is not None
    assert address_of(descriptor) is None


def test_anything_listens_only_while_something_does() -> None:
    assert not anything_listens()
    with made() as here:
        assert not anything_listens()
        here.listen()
        assert anything_listens()
    with socket.create_server(("127.0.0.1", 0)):
        assert anything_listens()
    assert not anything_listens()
