"""The recipes in docs/recipes.md: each is executed as it is printed, and used over real servers and sockets."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redis.exceptions import RedisError
from starlette.applications import Starlette

import bridgekit
from bridgekit import (
    AgentEvent,
    BaseAgent,
    EventType,
    Gap,
    Policy,
    RunContext,
    connect,
    define_event_type,
    errors,
    serving,
)
from bridgekit.chain.link_1_startup import BridgeConfig, lifespan, publisher, start_application
from bridgekit.errors import Disconnected, ServeError, SubscriptionRefused, ThreadNotOwned
from bridgekit.ids import RunId, ThreadId, UserId, new_id
from bridgekit.stores import in_memory, memory_stores, redis_stores
from bridgekit.transport.authorization import OwnerAuthorizer
from bridgekit_verify.faults.redis_servers import redis_server
from bridgekit_verify.harness.declared_owners import DeclaredOwners
from tests.chain.agents import Failing, Researcher
from tests.factories import ALICE, BOB, THREAD, emitted
from tests.tree import ROOT

PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
RECIPES: dict[str, str] = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", PAGE, re.MULTILINE))
TIMEOUT_SECONDS = 60.0

both_edges = pytest.mark.parametrize("edge", ["asgi", "native"])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # uvicorn, SQLAlchemy and Redis need it


@pytest.fixture
def recipe(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the recipe with the heading that the test names, executed in an empty folder."""
    [source] = re.findall(r"```python\n(.*?)```", RECIPES[request.param], re.DOTALL)
    monkeypatch.chdir(tmp_path)
    module = ModuleType("recipe")
    monkeypatch.setitem(sys.modules, "recipe", module)
    exec(compile(source, "docs/recipes.md", "exec"), module.__dict__)
    return module


def uses(heading: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("recipe", [heading], indirect=True, ids=[""])


def http(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url.replace("ws", "http", 1), trust_env=False)


def test_every_recipe_is_run_here_or_with_a_real_nginx() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    nginx = (ROOT / "tests" / "interop" / "test_nginx.py").read_text(encoding="utf-8")
    assert len(RECIPES) == PAGE.count("\n## ")
    assert [heading for heading in RECIPES if f'"{heading}"' not in tests + nginx] == []


def test_table_of_statuses_has_every_error_with_a_status() -> None:
    rows = re.findall(r"^\| (\d+) \| (`.+?) \|", RECIPES["Statuses of HTTP responses"], re.MULTILINE)
    documented = {name: int(status) for status, names in rows for name in re.findall(r"`(\w+)`", names)}
    kinds = [
        each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.BridgekitError)
    ]
    assert documented == {each.__name__: each.status_code for each in kinds if each.status_code != 500}


@both_edges
@uses("Prefix")
async def test_prefix_is_in_front_of_every_route(recipe: Any, edge: str) -> None:
    async with serving(recipe.app, edge=edge) as url, http(url) as browser:
        application = recipe.app.state.bridgekit
        await application.open_thread(THREAD, ALICE)
        ticket = application.ticket(THREAD, ALICE)
        async with connect(f"{url}/api/v1", thread_id=THREAD, ticket=ticket) as client:
            await application.bridge.notify(emitted())
            assert (await client.receive()).seq == 1
        assert (await browser.get("/api/v1/healthz")).status_code == 200
        assert (await browser.get("/healthz")).status_code == 404


@both_edges
@pytest.mark.parametrize(("name", "prefix"), [("app", ""), ("outer", "/chat")])
@uses("Lifespan of your own, and a mounted application")
async def test_own_lifespan_is_entered_first_and_left_last(recipe: Any, edge: str, name: str, prefix: str) -> None:
    if (name, edge) == ("outer", "native"):
        edge = "asgi"  # an application that is mounted has no native edge
    async with serving(getattr(recipe, name), edge=edge) as url:
        application = recipe.app.state.bridgekit
        await application.open_thread(THREAD, ALICE)
        ticket = application.ticket(THREAD, ALICE)
        async with connect(url + prefix, thread_id=THREAD, ticket=ticket) as client:
            await application.bridge.notify(emitted())
            assert (await client.receive()).seq == 1
        assert not recipe.app.state.http.is_closed
    assert recipe.app.state.http.is_closed


@uses("Owners of threads in SQLAlchemy")
async def test_thread_has_one_owner_however_many_claim_it_at_once(recipe: Any) -> None:
    refused: list[str] = []

    async def claim(user: str) -> None:
        try:
            async with recipe.open_session() as session:
                await session.claim(THREAD, UserId(user))
        except ThreadNotOwned as error:
            refused.append(error.user_id)

    users = [f"user_{number}" for number in range(20)]
    async with recipe.engine.begin() as connection:
        await connection.run_sync(recipe.Base.metadata.create_all)
    async with anyio.create_task_group() as tasks:
        for user in users:
            tasks.start_soon(claim, user)
    async with recipe.open_session() as session:
        owner = await session.owner_of(THREAD)
        assert await session.owner_of(ThreadId("another")) is None
    assert sorted([*refused, str(owner)]) == sorted(users)
    await recipe.engine.dispose()


@both_edges
@uses("Owners of threads in SQLAlchemy")
async def test_database_that_fails_asks_the_client_to_try_again(recipe: Any, edge: str) -> None:
    app = Starlette(routes=bridgekit.routes(), lifespan=lifespan(recipe.config))
    async with serving(app, edge=edge) as url:
        application = app.state.bridgekit
        with pytest.raises(bridgekit.StoreUnavailable) as failed:
            await application.open_thread(THREAD, ALICE)
        assert failed.value.status_code == 503
        with pytest.raises(Disconnected) as closed:
            async with connect(url, thread_id=THREAD, ticket=application.ticket(THREAD, ALICE)):
                raise AssertionError("was subscribed")
        assert closed.value.code == 4009
        async with recipe.engine.begin() as connection:
            await connection.run_sync(recipe.Base.metadata.create_all)
        await application.open_thread(THREAD, ALICE)
        with pytest.raises(ThreadNotOwned):
            await application.open_thread(THREAD, BOB)
        async with connect(url, thread_id=THREAD, ticket=application.ticket(THREAD, ALICE)):
            pass
    await recipe.engine.dispose()


@both_edges
@uses("Logout with several workers")
async def test_logout_ends_the_sockets_of_all_workers(
    recipe: Any, edge: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIDGEKIT_STORE", redis_url)
    workers = [Starlette(routes=recipe.routes(), lifespan=recipe.ending_access) for _ in range(2)]
    async with AsyncExitStack() as stack:
        clients = []
        for worker in workers:
            url = await stack.enter_async_context(serving(worker, edge=edge))
            await worker.state.bridgekit.open_thread(THREAD, ALICE)
            ticket = worker.state.bridgekit.ticket(THREAD, ALICE)
            clients.append(await stack.enter_async_context(connect(url, thread_id=THREAD, ticket=ticket)))
        with anyio.fail_after(TIMEOUT_SECONDS):
            await log_out(workers[0], ALICE, workers=2)
            for client in clients:
                with pytest.raises(SubscriptionRefused) as ended:
                    await client.receive()
                assert ended.value.code == 4506


async def log_out(worker: Starlette, user_id: str, *, workers: int) -> None:
    """Publish the user until every worker has subscribed to the channel."""
    received = 0
    while received < workers:
        with suppress(RedisError):  # its connection may be from before the outage
            received = await worker.state.redis.publish("logout", user_id)
        await anyio.sleep(0.01)


@pytest.mark.slow
@both_edges
@uses("Logout with several workers")
async def test_outage_of_redis_ends_no_worker_and_later_logouts_are_received(
    recipe: Any, edge: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with redis_server() as server:
        monkeypatch.setenv("BRIDGEKIT_STORE", server.url)
        async with serving(recipe.app, edge=edge) as url:
            application = recipe.app.state.bridgekit
            await application.open_thread(THREAD, ALICE)
            with anyio.fail_after(TIMEOUT_SECONDS):
                await log_out(recipe.app, BOB, workers=1)
                async with connect(url, thread_id=THREAD, ticket=application.ticket(THREAD, ALICE)) as client:
                    await server.kill()
                    while "logouts are not received" not in caplog.text:  # noqa: ASYNC110 - no event exists
                        await anyio.sleep(0.01)
                    await application.bridge.notify(emitted())
                    assert (await client.receive()).seq == 1
                    await server.start()
                    await log_out(recipe.app, ALICE, workers=1)
                    with pytest.raises(SubscriptionRefused, match="4506"):
                        await client.receive()


@both_edges
@uses("Login session and logout")
async def test_session_opens_sockets_until_the_user_logs_out(recipe: Any, edge: str) -> None:
    async with serving(recipe.app, edge=edge) as url, http(url) as browser:
        application = recipe.app.state.bridgekit
        await application.open_thread(THREAD, ALICE)
        for wrong in ({"user_id": "alice", "password": "x"}, {"user_id": "mallory", "password": ""}):
            assert (await browser.post("/login", params=wrong)).status_code == 401
        answer = await browser.post("/login", params={"user_id": "alice", "password": "wonderland"})
        assert {"HttpOnly", "Secure", "SameSite=lax"} <= set(answer.headers["set-cookie"].split("; "))
        cookie = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
        with pytest.raises(SubscriptionRefused, match=r"4501.*log in first"):
            async with connect(url, thread_id=THREAD):
                raise AssertionError("was subscribed")
        async with connect(url, thread_id=THREAD, headers=cookie) as client:
            await application.bridge.notify(emitted())
            assert (await client.receive()).seq == 1
            assert (await browser.post("/logout", headers=cookie)).status_code == 204
            await application.bridge.notify(emitted())
            with pytest.raises(SubscriptionRefused, match="4506"):
                await client.receive()
        with pytest.raises(SubscriptionRefused, match="4501"):
            async with connect(url, thread_id=THREAD, headers=cookie):
                raise AssertionError("was subscribed")
        assert (await browser.post("/logout")).status_code == 204


class Talking(BaseAgent):
    """Logs a record, and emits an event that is refused."""

    async def execute(self, context: RunContext) -> object:
        logging.getLogger("agent").warning("hello %s", "world")
        with pytest.raises(errors.PayloadError):
            await self.emit_progress({"value": object()})
        return None


@pytest.fixture
def spans() -> InMemorySpanExporter:
    """What OpenTelemetry would export. Its provider can be set once in a process."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


@uses("Logs and traces")
async def test_observers_log_and_trace_every_run(
    spans: InMemorySpanExporter, recipe: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lines: list[dict[str, Any]] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(self.format(record)))

    handler = Lines()
    handler.setFormatter(recipe.JsonFormatter())
    config = BridgeConfig(
        agents={"talking": Talking, "failing": Failing, "researcher": Researcher}, observers=recipe.config.observers
    )
    caplog.set_level(logging.INFO)
    logging.getLogger().addHandler(handler)
    try:
        application = await start_application(config, in_memory())
        names = {"thread_id": THREAD, "user_id": ALICE}
        await application.supervisor.run(agent_name="talking", request="", **names)
        with pytest.raises(Exception, match="why"):
            await application.supervisor.run(agent_name="failing", request="why", **names)
    finally:
        logging.getLogger().removeHandler(handler)
    [spoken] = [line for line in lines if line["logger"] == "agent"]
    assert (spoken["message"], spoken["thread_id"], spoken["user_id"]) == ("hello world", THREAD, ALICE)
    logged = [(line["type"], line["outcome"], line["level"]) for line in lines if line["logger"] == "events"]
    assert [kind for kind, _, _ in logged] == [
        *("agent_started", "progress_update", "agent_completed"),
        *("agent_started", "agent_thinking", "agent_error"),
    ]
    [failure] = [line for line in lines if line["logger"] == "bridgekit.chain.link_5_execution_core"]
    assert failure["traceback"].endswith("Broken: why")
    assert [line for line in logged if line[2] == "ERROR"] == [("progress_update", "refused", "ERROR")]
    talking, failing = spans.get_finished_spans()
    assert [event.name for event in talking.events] == [kind for kind, _, _ in logged[:3]]
    assert [event.attributes["lost"] for event in talking.events if event.attributes] == [False, True, False]
    assert [status_of(span) for span in (talking, failing)] == ["UNSET", "ERROR"]
    assert spoken["run_id"] == (talking.attributes or {})["run_id"]
    assert recipe.spans == {}


def status_of(span: ReadableSpan) -> str:
    return span.status.status_code.name


class Delegating(BaseAgent):
    """Starts the recipe's task in a process of its own, with nothing but its run id, and waits for its end."""

    async def execute(self, context: RunContext) -> object:
        code = "import sys, recipe; recipe.task(sys.argv[1])"
        done = await anyio.run_process([sys.executable, "-c", code, context.run_id], env=dict(os.environ), check=False)
        return {"code": done.returncode, "error": done.stderr.decode()[-2_000:]}


@pytest.mark.slow
@both_edges
async def test_task_in_another_process_reaches_the_user_with_only_a_run_id(
    redis_url: str, edge: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [source] = re.findall(r"```python\n(.*?)```", RECIPES["Events from another process"], re.DOTALL)
    (tmp_path / "recipe.py").write_text(source)
    store = f"{redis_url}?prefix=test-{new_id()}"
    monkeypatch.setenv("BRIDGEKIT_STORE", store)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    config = BridgeConfig(
        agents={"delegating": Delegating},
        stores=redis_stores(store),
        db_session_factory=DeclaredOwners(),
        authorizer=OwnerAuthorizer,
    )
    app = Starlette(routes=bridgekit.routes(), lifespan=lifespan(config))
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(app, edge=edge) as url:
            application = app.state.bridgekit
            await application.open_thread(THREAD, ALICE)
            async with connect(url, thread_id=THREAD, user_id=ALICE) as client:
                run = await application.supervisor.run(
                    agent_name="delegating", thread_id=THREAD, user_id=ALICE, request=""
                )
                assert run.result == {"code": 0, "error": ""}
                events = [await client.receive() for _ in range(3)]
            unknown = await anyio.run_process(
                [sys.executable, "-c", "import recipe; recipe.task('run_unknown')"], check=False, stderr=subprocess.PIPE
            )
    assert [event.type for event in events] == ["agent_started", "progress_update", "agent_completed"]
    assert (events[1].agent_name, events[1].payload) == ("importer", {"percent": 50})
    assert {event.run_id for event in events} == {run.context.run_id}
    assert b"the user does not get it" in unknown.stderr


@pytest.mark.parametrize("edge", ["asgi"])
async def test_publisher_needs_stores_that_processes_share(edge: str) -> None:
    with pytest.raises(ServeError, match="the memory store: it belongs to one process; a publisher needs redis_stores"):
        async with publisher(memory_stores()):
            raise AssertionError("was opened")


@pytest.mark.slow
async def test_publisher_converts_values_by_its_hook_and_does_not_take_over_runs(redis_url: str) -> None:
    stores = redis_stores(f"{redis_url}?prefix=test-{new_id()}")
    config = BridgeConfig(agents={}, stores=stores, db_session_factory=DeclaredOwners(), authorizer=OwnerAuthorizer)
    app = Starlette(routes=bridgekit.routes(), lifespan=lifespan(config))
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(app) as url:
            application = app.state.bridgekit
            await application.open_thread(THREAD, ALICE)
            names = {"agent_name": "elsewhere", "thread_id": THREAD, "user_id": ALICE, "request": ""}
            context = await application.supervisor.open_run(**names)
            async with (
                publisher(
                    stores, payload_hook=lambda value: sorted(value) if isinstance(value, set) else str(value)
                ) as bridge,
                connect(url, thread_id=THREAD, user_id=ALICE) as client,
            ):
                receipt = await bridge.notify_progress_update(context.run_id, "elsewhere", {"a": {2, 1}, "b": 1j})
                assert (receipt.thread_id, receipt.lost) == (THREAD, False)
                event = await client.receive_any()
                assert not isinstance(event, Gap)
                assert (event.type, event.payload) == (EventType.PROGRESS_UPDATE, {"a": [1, 2], "b": "1j"})
                own = define_event_type("test_from_elsewhere", Policy.MUST_DELIVER)
                emitted_here = AgentEvent(type=own, run_id=context.run_id, agent_name="elsewhere", payload={})
                assert (await bridge.notify(emitted_here)).thread_id == THREAD
                assert (await client.receive()).type is own
                lost = await bridge.notify_progress_update(RunId("run_unknown"), "elsewhere", {})
                assert (lost.lost, lost.link) == (True, 9)
            await application.supervisor.close_run(context)
