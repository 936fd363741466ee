"""Ended access on real servers: each edge closes the socket with its final code, and sends nothing more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus
from starlette.applications import Starlette

from bridgekit.chain.link_1_startup import BridgeConfig, create_app, lifespan
from bridgekit.errors import Disconnected, ShuttingDown, SubscriptionRefused
from bridgekit.events import EventType
from bridgekit.transport.asgi import routes
from bridgekit.transport.authorization import CLOSE_ACCESS_ENDED, CLOSE_DRAINED, OwnerAuthorizer
from bridgekit.transport.client import connect
from tests.factories import ALICE, BOB, OTHER, THREAD, emitted
from tests.timeouts import TIMEOUT_SECONDS
from tests.transport.edges import anyio_backend, serving  # noqa: F401  # a fixture
from tests.transport.raw_client import RawPeer, raw_peer

KEY = "key"
CRITERIA: dict[str, dict[str, Any]] = {
    "user": {"user_id": ALICE},
    "thread": {"thread_id": THREAD},
    "former owner": {"thread_id": THREAD, "except_user_id": BOB},
    "ticket key": {"ticket_key": KEY},
}


@pytest.mark.parametrize("criteria", CRITERIA.values(), ids=CRITERIA)
async def test_socket_is_closed_and_gets_nothing_that_is_published_later(criteria: dict[str, Any]) -> None:
    app = create_app(BridgeConfig(agents={}))
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(app) as url:
            bridgekit, connections = app.state.bridgekit, app.state.bridgekit_connections
            if KEY in criteria.values():
                criteria = {"ticket_key": connections.authorizer._keys[0]}
            for thread, user in ((THREAD, ALICE), (OTHER, BOB)):
                await bridgekit.open_thread(thread, user)
            async with (
                connect(url, thread_id=THREAD, ticket=bridgekit.ticket(THREAD, ALICE)) as alice,
                connect(url, thread_id=OTHER, ticket=bridgekit.ticket(OTHER, BOB)) as bob,
            ):
                await bridgekit.bridge.notify(emitted())
                assert (await alice.receive()).seq == 1
                assert connections.end_access(**criteria) == (2 if "ticket_key" in criteria else 1)
                assert not await bridgekit.bridge.notify(emitted())
                with pytest.raises(SubscriptionRefused) as ended:
                    await alice.receive()
                assert ended.value.code == CLOSE_ACCESS_ENDED
                if "ticket_key" not in criteria:
                    assert await bridgekit.bridge.notify(emitted(thread_id=OTHER))
                    assert (await bob.receive()).seq == 1


async def test_sockets_are_closed_and_refused_when_the_lifespan_ends_before_the_server() -> None:
    """As when a background task of the application's own lifespan fails under a plain server."""
    ends, ended = anyio.Event(), anyio.Event()
    config = BridgeConfig(agents={}, authorizer=OwnerAuthorizer)

    async def run_bridge(*, task_status: TaskStatus[None]) -> None:
        async with lifespan(config)(app):
            task_status.started()
            await ends.wait()
        ended.set()

    @asynccontextmanager
    async def with_bridge(app: Starlette) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            await tasks.start(run_bridge)
            yield

    app = Starlette(routes=routes(), lifespan=with_bridge)
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(app) as url:
            application = app.state.bridgekit
            await application.open_thread(THREAD, ALICE)
            async with connect(url, thread_id=THREAD, user_id=ALICE) as client:
                ends.set()
                await ended.wait()
                with pytest.raises(Disconnected) as closed:
                    await client.receive()
                assert closed.value.code == CLOSE_DRAINED
            with pytest.raises(Disconnected, match="4000"):
                async with connect(url, thread_id=THREAD, user_id=ALICE):
                    raise AssertionError("was subscribed")
            assert app.state.bridgekit_connections.health == ("shutting down", 503)
            with pytest.raises(ShuttingDown):
                await application.supervisor.run(agent_name="a", thread_id=THREAD, user_id=ALICE, request="")


async def read_and_confirm_the_close(peer: RawPeer, wanted: bytes) -> None:
    """Otherwise, uvicorn waits ten seconds for the client's close frame."""
    await peer.read_until(CLOSE_ACCESS_ENDED.to_bytes(2, "big"))
    await peer.send_close()
    await peer.read_until(wanted)


async def test_client_that_reads_nothing_is_disconnected_and_its_waiting_events_are_discarded() -> None:
    app = create_app(BridgeConfig(agents={}, authorizer=OwnerAuthorizer))
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(app, send_buffer_bytes=4_096) as url:
            await app.state.bridgekit.open_thread(THREAD, ALICE)
            connections = app.state.bridgekit_connections
            async with raw_peer(url) as peer:
                for _ in range(64):
                    await app.state.bridgekit.bridge.notify(
                        emitted(EventType.TOOL_EXECUTING, payload={"parameters": "x" * 16_384})
                    )
                assert connections.end_access(user_id=ALICE) == 1
                await app.state.bridgekit.bridge.notify(emitted(payload={"reasoning": "later"}))
                with pytest.raises((EOFError, ConnectionError)):
                    await read_and_confirm_the_close(peer, b"later")
                assert b"later" not in peer.read
        assert connections.counters.unwritten["access ended"] > 0
