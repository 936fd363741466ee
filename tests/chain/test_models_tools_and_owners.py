"""The built-in collaborators: the thread store, the model and the tools."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from bridgekit.chain import models_tools_and_owners
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.models_tools_and_owners import MemoryThreadStore, PythonTools, ScriptedModel, ToolCall
from bridgekit.chain.self_check import ProbeConnection
from bridgekit.errors import FrameTooLarge, PayloadError, ThreadNotOwned, UnknownName
from bridgekit.events import Answer, EventType, Payload, Receipt
from bridgekit.stores import sqlite_stores
from tests.chain.agents import TOOLS, Broken, event_types, payloads, started, subscribe
from tests.factories import ALICE, BOB, RUN, THREAD


async def connected_adapter() -> tuple[WebSocketBridgeAdapter, ProbeConnection]:
    application = await started()
    adapter = WebSocketBridgeAdapter()
    adapter.set_websocket_bridge(application.bridge, RUN, "researcher", thread_id=THREAD)
    return adapter, subscribe(application)


async def test_tool_events_share_a_call_id_when_a_tool_succeeds() -> None:
    adapter, connection = await connected_adapter()
    assert await TOOLS.dispatch("look_up", {"topic": "why"}, adapter) == "why!"
    assert event_types(connection) == ["tool_executing", "tool_completed"]
    [executing], [completed] = (
        payloads(connection, EventType.TOOL_EXECUTING),
        payloads(connection, EventType.TOOL_COMPLETED),
    )
    assert executing["parameters"] == {"topic": "why"}
    assert (completed["result"], completed["status"]) == ("why!", "success")
    assert 0 <= completed["execution_time_ms"] < 60_000
    assert executing["tool_call_id"] == completed["tool_call_id"] != ""


async def test_call_ids_differ_when_one_tool_is_called_twice() -> None:
    adapter, connection = await connected_adapter()
    for _ in range(2):
        await TOOLS.dispatch("look_up", {"topic": "why"}, adapter)
    first, second = payloads(connection, EventType.TOOL_COMPLETED)
    assert first["tool_call_id"] != second["tool_call_id"]


async def test_call_is_completed_with_an_error_when_the_tool_fails() -> None:
    adapter, connection = await connected_adapter()
    with pytest.raises(Broken, match="the tool is broken"):
        await TOOLS.dispatch("fail", {}, adapter)
    assert event_types(connection) == ["tool_executing", "tool_completed"]
    [completed] = payloads(connection, EventType.TOOL_COMPLETED)
    assert (completed["status"], completed["result"]) == ("error", "Broken: the tool is broken")


async def test_call_is_completed_with_an_error_when_its_parameters_are_wrong() -> None:
    adapter, connection = await connected_adapter()
    with pytest.raises(TypeError, match="colour"):
        await TOOLS.dispatch("look_up", {"colour": "red"}, adapter)
    assert payloads(connection, EventType.TOOL_COMPLETED)[0]["status"] == "error"


async def test_dispatch_names_the_known_tools_when_the_tool_is_unknown() -> None:
    adapter, connection = await connected_adapter()
    with pytest.raises(UnknownName) as refused:
        await TOOLS.dispatch("guess", {}, adapter)
    assert (refused.value.kind, refused.value.known) == ("tool", ("look_up", "fail"))
    assert connection.frames == []


async def test_dispatch_awaits_the_tool_when_it_is_a_coroutine_function() -> None:
    async def slow(n: int) -> int:
        await checkpoint()
        return n + 1

    adapter, _ = await connected_adapter()
    assert await PythonTools({"slow": slow}).dispatch("slow", {"n": 1}, adapter) == 2


class Adding:
    async def __call__(self, n: int) -> int:
        await checkpoint()
        return n + 1


@pytest.mark.parametrize("tool", [Adding(), lambda n: Adding()(n), partial(Adding(), 1)], ids=type)
async def test_dispatch_awaits_what_a_callable_returns(tool: Callable[..., object]) -> None:
    adapter, _ = await connected_adapter()
    parameters = {} if isinstance(tool, partial) else {"n": 1}
    assert await PythonTools({"slow": tool}).dispatch("slow", parameters, adapter) == 2


async def test_call_is_not_completed_when_json_cannot_represent_its_parameters() -> None:
    adapter, connection = await connected_adapter()
    with pytest.raises(PayloadError):
        await TOOLS.dispatch("look_up", {"topic": object()}, adapter)
    assert connection.frames == []


async def test_result_that_fits_into_no_frame_is_an_error_that_names_the_tool() -> None:
    adapter, connection = await connected_adapter()
    with pytest.raises(FrameTooLarge) as raised:
        await PythonTools({"large": lambda: "x" * 2_000_000}).dispatch("large", {}, adapter)
    assert raised.value.size_bytes > 2_000_000 > raised.value.limit_bytes
    assert "result of tool 'large'" in str(raised.value)
    assert [payload["status"] for payload in payloads(connection, EventType.TOOL_COMPLETED)] == ["error"]


async def test_plain_functions_of_all_calls_share_a_limited_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_tools_and_owners, "TOOL_THREADS", 1)
    begun, ended, started_tools = threading.Event(), threading.Event(), list[int]()

    def work(n: int) -> None:
        started_tools.append(n)
        begun.set()
        ended.wait()

    adapter, connection = await connected_adapter()
    try:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for n in range(3):
                    tasks.start_soon(PythonTools({"work": work}).dispatch, "work", {"n": n}, adapter)
                await anyio.to_thread.run_sync(begun.wait)
                await anyio.wait_all_tasks_blocked()
                assert len(started_tools) == 1
                ended.set()
    finally:
        ended.set()
    assert len(payloads(connection, EventType.TOOL_COMPLETED)) == len(started_tools) == 3


async def test_claim_is_refused_when_another_user_owns_the_thread() -> None:
    threads = MemoryThreadStore()
    async with threads() as session:
        assert await session.owner_of(THREAD) is None
        await session.claim(THREAD, ALICE)
        with pytest.raises(ThreadNotOwned):
            await session.claim(THREAD, BOB)
        assert await session.owner_of(THREAD) == ALICE


async def test_scripted_model_repeats_its_answers_when_seed_and_prompt_are_the_same() -> None:
    prompts = [f"prompt {number}" for number in range(40)]
    first = [await ScriptedModel(1).ask(prompt) for prompt in prompts]
    again = [await ScriptedModel(1).ask(prompt) for prompt in prompts]
    other = [await ScriptedModel(2).ask(prompt) for prompt in prompts]
    assert first == again != other
    assert set(first) == set(ScriptedModel.THOUGHTS)


async def test_call_is_completed_with_an_error_when_json_cannot_represent_its_result() -> None:
    adapter, connection = await connected_adapter()
    with pytest.raises(PayloadError):
        await PythonTools({"odd": object}).dispatch("odd", {}, adapter)
    assert event_types(connection) == ["tool_executing", "tool_completed"]
    assert payloads(connection, EventType.TOOL_COMPLETED)[0]["status"] == "error"


async def test_tool_runs_in_a_thread_when_it_is_a_plain_function() -> None:
    adapter, _ = await connected_adapter()

    async def here() -> int:
        return threading.get_ident()

    tools = PythonTools({"plain": threading.get_ident, "coroutine": here})
    assert await tools.dispatch("plain", {}, adapter) != threading.get_ident()
    assert await tools.dispatch("coroutine", {}, adapter) == threading.get_ident()


async def test_call_is_completed_with_an_error_when_the_tool_is_cancelled() -> None:
    adapter, connection = await connected_adapter()
    with anyio.CancelScope() as scope:

        async def cancelled() -> None:
            scope.cancel()
            await checkpoint()

        await PythonTools({"cancelled": cancelled}).dispatch("cancelled", {}, adapter)
    assert payloads(connection, EventType.TOOL_COMPLETED)[0]["status"] == "error"


class SuspendingAdapter(WebSocketBridgeAdapter):
    """Waits before it emits `tool_completed`, as with a store that takes time to answer."""

    def __init__(self, wait: Callable[[], Awaitable[object]]) -> None:
        super().__init__()
        self._wait = wait

    def emit(self, event_type: EventType, payload: Payload) -> Answer:
        if event_type is EventType.TOOL_COMPLETED:
            return self._emit_later(event_type, payload)
        return super().emit(event_type, payload)

    async def _emit_later(self, event_type: EventType, payload: Payload) -> Receipt:
        await self._wait()
        return await super().emit(event_type, payload)


async def cancelled_call(wait: Callable[[], Awaitable[object]]) -> ProbeConnection:
    """Cancel a tool call while the tool runs; `wait` delays its `tool_completed`."""
    application = await started()
    adapter, connection = SuspendingAdapter(wait), subscribe(application)
    adapter.set_websocket_bridge(application.bridge, RUN, "researcher", thread_id=THREAD)
    with anyio.fail_after(60), anyio.CancelScope() as scope:

        async def cancelled() -> None:
            scope.cancel()
            await checkpoint()

        await PythonTools({"cancelled": cancelled}).dispatch("cancelled", {}, adapter)
    assert scope.cancelled_caught
    return connection


async def test_cancelled_call_is_completed_when_emitting_has_to_wait() -> None:
    connection = await cancelled_call(checkpoint)
    assert payloads(connection, EventType.TOOL_COMPLETED)[0]["status"] == "error"


async def test_cancelled_call_ends_when_emitting_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_tools_and_owners, "END_TIMEOUT_SECONDS", 0.01)
    assert payloads(await cancelled_call(anyio.sleep_forever), EventType.TOOL_COMPLETED) == []


async def test_execution_time_of_a_call_is_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter, connection = await connected_adapter()
    monkeypatch.setattr(models_tools_and_owners, "time", SimpleNamespace(perf_counter=lambda: 10.25))
    await ToolCall(adapter, "look_up", "call_1", started=10.0).completed("why!", "success")
    assert payloads(connection, EventType.TOOL_COMPLETED)[0]["execution_time_ms"] == 250.0


async def test_blocked_tools_delay_neither_other_threads_nor_the_stores(tmp_path: Path) -> None:
    """Plain endpoints of Starlette use the threads of anyio, whose limit is 40."""
    unblocked = threading.Event()
    tools = PythonTools({"block": unblocked.wait, "quick": lambda: 1})
    adapter, connection = await connected_adapter()
    try:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for _ in range(41):
                    tasks.start_soon(tools.dispatch, "block", {}, adapter)
                await anyio.wait_all_tasks_blocked()
                assert await anyio.to_thread.run_sync(lambda: 1) == 1
                assert await tools.dispatch("quick", {}, adapter) == 1
                async with sqlite_stores(tmp_path / "store.db")() as stores:
                    await stores.routes.add(RUN, THREAD)
                unblocked.set()
    finally:
        unblocked.set()
    assert len(payloads(connection, EventType.TOOL_COMPLETED)) == 42
