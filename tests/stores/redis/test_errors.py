"""Errors of the server: named in receipts, `/healthz` and the log, and those of one key affect only its thread."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import anyio
import httpx
import pytest

from bridgekit.chain.link_1_startup import Application, BridgeConfig, create_app
from bridgekit.cursors_and_gaps import START, Cursor
from bridgekit.errors import Disconnected, StoreUnavailable, SubscriptionRefused
from bridgekit.events import Outcome, Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import ActiveRun
from bridgekit.serve.in_process import serving
from bridgekit.stores import redis_stores
from bridgekit.stores.redis import topology
from bridgekit.transport.client import connect
from bridgekit.transport.tickets import Tickets
from bridgekit_verify.faults.redis_servers import RedisServer, redis_server
from bridgekit_verify.harness.declared_owners import DeclaredOwners
from tests.factories import ALICE, OTHER, RUN, THREAD, emitted
from tests.stores.redis.workers import (
    POLL_SECONDS,
    SOON_SECONDS,
    RedisWorker,
    event_with,
    publish,
    publish_and_wait,
    redis_worker,
)

pytestmark = pytest.mark.slow

KEY = b"a key that every worker of the tests knows"

FOREIGN = "WRONGTYPE|another format|specified in XADD"
VALUES = {
    "string": ("SET", "{key}", "foreign"),
    "list": ("RPUSH", "{key}", "foreign"),
    "set": ("SADD", "{key}", "foreign"),
    "hash": ("HSET", "{key}", "foreign", "value"),
    "sorted set": ("ZADD", "{key}", "1", "foreign"),
    "stream": ("XADD", "{key}", "*", "foreign", "value"),
}


async def store_foreign(server: RedisServer, key: bytes, kind: str) -> None:
    await server.ask("DEL", key.decode())
    await server.ask(*(word.format(key=key.decode()) for word in VALUES[kind]))


def keys_of(worker: RedisWorker, thread: ThreadId) -> dict[str, bytes]:
    keys = worker.topology.names.thread(thread)
    return {"head": keys.head, "log": keys.log}


async def join_and_replay(worker: RedisWorker) -> None:
    await worker.log.join(OTHER)
    await worker.log.replay(OTHER, Cursor("0" * 16, 0))


@pytest.mark.parametrize(
    ("key", "kind"),
    [("head", kind) for kind in VALUES] + [("log", kind) for kind in VALUES],
)
async def test_foreign_value_under_a_key_affects_only_its_thread(
    key: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with redis_server() as server, redis_worker(server.url, backlog_events=10) as worker:
        await worker.log.join(THREAD)
        await publish(worker, "a head and a log exist", thread_id=OTHER)
        await store_foreign(server, keys_of(worker, OTHER)[key], kind)
        for _ in range(20):  # more than the backlog holds
            [refused] = await publish(worker, "refused", thread_id=OTHER)
            assert refused.outcome is Outcome.REFUSED
            assert re.search(FOREIGN, refused.reason)
            assert OTHER not in refused.reason, "metrics have the reason as a label"
            [sent] = await publish(worker, "sent")
            assert sent.outcome is Outcome.RELAYED
        if (key, kind) == ("log", "stream"):
            await join_and_replay(worker)  # its entries are skipped
        else:
            with pytest.raises(StoreUnavailable, match=FOREIGN):
                await join_and_replay(worker)
        assert worker.log.healthy
        assert worker.log.problem in caplog.text
        assert len(re.findall(FOREIGN, caplog.text)) <= 4, "not once for each event"
        await server.ask("DEL", keys_of(worker, OTHER)[key].decode())
        [again] = await publish(worker, "again", thread_id=OTHER)
        assert again.kept


async def test_foreign_value_while_sockets_are_joined_leaves_the_worker_healthy() -> None:
    async with redis_server() as server, redis_worker(server.url) as worker, redis_worker(server.url) as other:
        for thread in (THREAD, OTHER):
            await worker.log.join(thread)
        await store_foreign(server, keys_of(worker, OTHER)["log"], "set")
        await server.ask("CLIENT", "KILL", "TYPE", "pubsub")  # each thread is read again
        await worker.until_healthy()
        await publish(other, "arrives")
        await worker.sink.until_delivered(1)


@pytest.mark.parametrize("name", ["route", "ticket", "generation", "runs", "workers"])
async def test_foreign_value_under_another_key_is_named_at_once(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async with redis_server() as server, redis_stores(server.url)() as stores:
        names = stores.log._topology.names  # type: ignore[attr-defined]
        runs, workers, generation, _ = names.runs()
        keys = {
            "route": names.route(RunId("run")), "ticket": names.ticket("ticket"), "generation": generation,
            "runs": runs, "workers": workers,
        }  # fmt: skip
        await store_foreign(server, keys[name].name, "list")
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "route": lambda: stores.routes.add(RunId("run"), THREAD),
            "ticket": lambda: stores.used_tickets.mark_used("ticket", 60),
            "generation": lambda: stores.used_tickets.mark_used("ticket", 60),
            "runs": lambda: stores.runs.open(ActiveRun(RunId("run"), THREAD, "agent")),
            "workers": lambda: stores.runs._renew_once(0.0),  # type: ignore[attr-defined]
        }
        with anyio.fail_after(SOON_SECONDS), pytest.raises(StoreUnavailable, match="WRONGTYPE"):
            await calls[name]()
        assert "WRONGTYPE" in stores.log.problem
        assert "WRONGTYPE" in caplog.text


@pytest.mark.parametrize("permission", ["set", "channels"])
@pytest.mark.parametrize("before", [["first"], []], ids=["retained events", "empty log"])
async def test_event_is_appended_once_when_the_user_lacks_a_permission_for_a_while(
    before: list[str], permission: str
) -> None:
    """The default of Redis 7 is that a user may append to logs, and may not publish to channels."""
    denied, allowed = (
        ("resetchannels", "allchannels") if permission == "channels" else (f"-{permission}", f"+{permission}")
    )
    async with redis_server() as server, redis_worker(server.url) as worker:
        await server.ask("ACL", "SETUSER", "admin", "on", "nopass", "~*", "&*", "+@all")
        await worker.log.replay(THREAD, START)  # begins the thread's epoch
        await publish(worker, *before)
        await server.ask("ACL", "SETUSER", "default", denied)
        batch = [worker.log.publish(event_with(text)) for text in ("second", "third")]
        for answer in batch:
            assert (await answer).outcome is Outcome.PENDING
        attempts = await appends(server)
        with anyio.fail_after(SOON_SECONDS):
            while await appends(server) < attempts + 2:  # noqa: ASYNC110
                await anyio.sleep(POLL_SECONDS)
        await server.ask("ACL", "SETUSER", "default", allowed)
        with anyio.fail_after(SOON_SECONDS):
            while worker.log.unconfirmed:  # noqa: ASYNC110
                await anyio.sleep(POLL_SECONDS)
        await publish(worker, "fourth")
        frames = (await worker.log.replay(THREAD, START)).frames
        assert [frame.event.payload["text"] for frame in frames] == [*before, "second", "third", "fourth"]
        assert [frame.seq for frame in frames] == list(range(1, len(frames) + 1))
        assert int(await server.ask("PTTL", keys_of(worker, THREAD)["log"].decode())) > 0


async def appends(server: RedisServer) -> int:
    """Return how many times the server has executed a function."""
    return int((await server.ask("INFO", "commandstats")).partition("cmdstat_fcall:calls=")[2].partition(",")[0])


async def out_of_memory(server: RedisServer) -> None:
    await server.ask("CONFIG", "SET", "maxmemory", "1")


async def became_a_replica(server: RedisServer) -> None:
    await server.ask("REPLICAOF", "127.0.0.1", "1")


async def password_was_set(server: RedisServer) -> None:
    await server.ask("CONFIG", "SET", "requirepass", "secret")
    server._password = "secret"  # for the test's own connections
    await server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await server.ask("CLIENT", "KILL", "TYPE", "pubsub")


async def permission_was_removed(server: RedisServer) -> None:
    await server.ask("ACL", "SETUSER", "admin", "on", "nopass", "~*", "&*", "+@all")
    await server.ask("ACL", "SETUSER", "default", "-fcall")


async def too_few_replicas(server: RedisServer) -> None:
    await server.ask("CONFIG", "SET", "min-replicas-to-write", "1")


async def hangs(server: RedisServer) -> None:
    server.stop()


async def is_killed(server: RedisServer) -> None:
    await server.kill()


ERRORS = {
    "OOM": (out_of_memory, "OOM command not allowed"),
    "READONLY": (became_a_replica, "READONLY"),
    "NOAUTH": (password_was_set, "NOAUTH"),
    "NOPERM": (permission_was_removed, "NOPERM"),
    "NOREPLICAS": (too_few_replicas, "NOREPLICAS"),
    "hangs": (hangs, "no reply within 1 s"),
    "killed": (is_killed, "onnect"),
}


@asynccontextmanager
async def served(server: RedisServer, edge: str = "native") -> AsyncIterator[tuple[str, Application]]:
    config = BridgeConfig(
        agents={},
        stores=redis_stores(server.url),
        db_session_factory=DeclaredOwners(),
        authorizer=partial(Tickets, keys=(KEY,)),
        drain_seconds=0,
    )
    app = create_app(config)
    async with serving(app, edge=edge) as url:
        await app.state.bridgekit.open_thread(THREAD, ALICE)
        yield url, app.state.bridgekit


@pytest.mark.parametrize("name", ERRORS)
async def test_error_of_the_server_is_named_in_healthz_receipts_and_the_log(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    cause, expected = ERRORS[name]
    async with redis_server() as server, served(server) as (url, application), httpx.AsyncClient() as client:
        healthz = url.replace("ws", "http").rstrip("/") + "/healthz"
        answer = await client.get(healthz)
        with anyio.fail_after(SOON_SECONDS):
            while answer.status_code != 200:
                await anyio.sleep(POLL_SECONDS)
                answer = await client.get(healthz)
        await application.bridge.mapping.register_mapping(RUN, THREAD)
        await cause(server)
        receipt = await publish_named(application, expected)
        assert receipt.outcome is Outcome.PENDING
        with anyio.fail_after(SOON_SECONDS):
            while expected not in (answer := await client.get(healthz)).json()["status"]:  # noqa: ASYNC110
                await anyio.sleep(POLL_SECONDS)
        assert answer.status_code == 503
        assert expected in caplog.text
        if name == "hangs":
            server.resume()


async def publish_named(application: Application, expected: str) -> Receipt:
    """Publish until the receipt has the reason: the first one may be returned before the error is known."""
    with anyio.fail_after(SOON_SECONDS):
        while True:
            receipt = await application.bridge.notify(emitted())
            if expected in receipt.reason:
                return receipt
            await anyio.sleep(POLL_SECONDS)


@pytest.mark.parametrize("edge", ["native", "asgi"])
async def test_ticket_that_an_unresponsive_server_did_not_accept_can_be_presented_again(edge: str) -> None:
    async with redis_server() as server, served(server, edge) as (url, application), served(server, edge) as (other, _):
        ticket = application.ticket(THREAD, ALICE)
        server.stop()
        with pytest.raises(Disconnected) as closed:
            async with connect(url, thread_id=THREAD, ticket=ticket):
                pass
        assert closed.value.code == 4009
        server.resume()
        assert await refusal_of(other, ticket) is None
        with pytest.raises(SubscriptionRefused) as refused:
            async with connect(url, thread_id=THREAD, ticket=ticket):
                pass
        assert refused.value.code == 4505


async def flushed(server: RedisServer) -> None:
    await server.ask("FLUSHALL")


async def database_flushed(server: RedisServer) -> None:
    await server.ask("FLUSHDB")


async def restarted_empty(server: RedisServer) -> None:
    await server.restart()


async def key_deleted(server: RedisServer) -> None:
    for key in (await server.ask("KEYS", "bridgekit:generation*")).split():
        await server.ask("DEL", key.strip())


LOSSES = {"FLUSHALL": flushed, "FLUSHDB": database_flushed, "restart": restarted_empty, "deleted key": key_deleted}


@pytest.mark.parametrize("loss", LOSSES)
async def test_used_ticket_stays_used_when_the_server_loses_its_data(loss: str) -> None:
    async with redis_server() as server, served(server) as (url, application), served(server) as (other, issuer):
        used = application.ticket(THREAD, ALICE)
        async with connect(url, thread_id=THREAD, ticket=used):
            pass
        await LOSSES[loss](server)
        for each in (url, other):
            with anyio.fail_after(SOON_SECONDS):
                assert await refusal_of(each, used) in {4502, 4505}
        with anyio.fail_after(SOON_SECONDS):
            while await refusal_of(url, issuer.ticket(THREAD, ALICE)) is not None:  # noqa: ASYNC110 - see lease
                await anyio.sleep(POLL_SECONDS)


async def refusal_of(url: str, ticket: str) -> int | None:
    """Return the code with which the ticket is refused at last; None if it is accepted."""
    while True:
        try:
            async with connect(url, thread_id=THREAD, ticket=ticket):
                return None
        except SubscriptionRefused as error:
            return error.code
        except Disconnected:
            await anyio.sleep(POLL_SECONDS)


def test_names_of_errors_are_those_of_the_server() -> None:
    from redis.exceptions import OutOfMemoryError, ResponseError

    assert topology.error_message(OutOfMemoryError("no memory", status_code="OOM")) == "OOM no memory"
    assert topology.error_message(ResponseError("WRONGTYPE of a key")) == "WRONGTYPE of a key"
    assert topology.error_message(ExceptionGroup("two", [TimeoutError()])) == "TimeoutError"


async def test_events_that_waited_are_stored_when_the_error_is_over() -> None:
    async with redis_server() as server, redis_worker(server.url) as worker:
        await worker.log.join(THREAD)
        await out_of_memory(server)
        receipts = await publish_and_wait(worker, "a", "b")
        assert [receipt.outcome for receipt in receipts] == [Outcome.PENDING] * 2
        await server.ask("CONFIG", "SET", "maxmemory", "0")
        await worker.sink.until_delivered(2)
        await worker.until_healthy()
        assert worker.log.problem == ""
