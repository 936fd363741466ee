"""The small real collaborators: threads, a model and tools."""

from __future__ import annotations

import threading

import anyio
import pytest
from anyio.lowlevel import checkpoint

from bridgekit.chain.collaborators import MemoryThreadStore, PythonTools, ScriptedModel
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.self_check import ProbeConnection
from bridgekit.errors import PayloadError, ThreadNotOwned, UnknownName
from bridgekit.events import EventType
from tests.chain.agents import TOOLS, Broken, listener, payloads, said, started
from tests.factories import ALICE, BOB, RUN, THREAD


async def heard() -> tuple[WebSocketBridgeAdapter, ProbeConnection]:
    application = await started()
    adapter = WebSocketBridgeAdapter()
    adapter.set_websocket_bridge(application.bridge, RUN, "researcher", thread_id=THREAD)
    return adapter, listener(application)


async def test_tool_runs_between_its_two_events_which_share_a_call_id() -> None:
    adapter, inbox = await heard()
    assert await TOOLS.dispatch("look_up", {"topic": "why"}, adapter) == "why!"
    assert said(inbox) == ["tool_executing", "tool_completed"]
    [executing], [completed] = (
        payloads(inbox, EventType.TOOL_EXECUTING),
        payloads(inbox, EventType.TOOL_COMPLETED),
    )
    assert executing["parameters"] == {"topic": "why"}
    assert (completed["result"], completed["status"]) == ("why!", "success")
    assert completed["execution_time_ms"] >= 0
    assert executing["tool_call_id"] == completed["tool_call_id"] != ""


async def test_two_calls_of_one_tool_can_be_told_apart() -> None:
    adapter, inbox = await heard()
    for _ in range(2):
        await TOOLS.dispatch("look_up", {"topic": "why"}, adapter)
    first, second = payloads(inbox, EventType.TOOL_COMPLETED)
    assert first["tool_call_id"] != second["tool_call_id"]


async def test_failing_tool_completes_with_an_error_and_raises() -> None:
    adapter, inbox = await heard()
    with pytest.raises(Broken, match="the tool is broken"):
        await TOOLS.dispatch("fail", {}, adapter)
    assert said(inbox) == ["tool_executing", "tool_completed"]
    [completed] = payloads(inbox, EventType.TOOL_COMPLETED)
    assert (completed["status"], completed["result"]) == ("error", "Broken: the tool is broken")


async def test_tool_that_is_called_wrongly_completes_with_an_error_too() -> None:
    adapter, inbox = await heard()
    with pytest.raises(TypeError, match="colour"):
        await TOOLS.dispatch("look_up", {"colour": "red"}, adapter)
    assert payloads(inbox, EventType.TOOL_COMPLETED)[0]["status"] == "error"


async def test_unknown_tool_is_refused_with_the_known_ones_and_nothing_is_said() -> None:
    adapter, inbox = await heard()
    with pytest.raises(UnknownName) as refused:
        await TOOLS.dispatch("guess", {}, adapter)
    assert (refused.value.kind, refused.value.known) == ("tool", ("look_up", "fail"))
    assert inbox.frames == []


async def test_async_tool_is_waited_for() -> None:
    async def slow(n: int) -> int:
        await checkpoint()
        return n + 1

    adapter, _ = await heard()
    assert await PythonTools({"slow": slow}).dispatch("slow", {"n": 1}, adapter) == 2


async def test_thread_stays_with_whoever_claimed_it_first() -> None:
    threads = MemoryThreadStore()
    async with threads() as session:
        assert await session.owner_of(THREAD) is None
        await session.claim(THREAD, ALICE)
        with pytest.raises(ThreadNotOwned):
            await session.claim(THREAD, BOB)
        assert await session.owner_of(THREAD) == ALICE


async def test_scripted_model_answers_the_same_prompt_alike_and_by_its_seed() -> None:
    prompts = [f"prompt {number}" for number in range(40)]
    first = [await ScriptedModel(1).ask(prompt) for prompt in prompts]
    again = [await ScriptedModel(1).ask(prompt) for prompt in prompts]
    other = [await ScriptedModel(2).ask(prompt) for prompt in prompts]
    assert first == again != other
    assert set(first) == set(ScriptedModel.THOUGHTS)


async def test_result_that_json_cannot_carry_completes_the_call_with_an_error() -> None:
    adapter, inbox = await heard()
    with pytest.raises(PayloadError):
        await PythonTools({"odd": object}).dispatch("odd", {}, adapter)
    assert said(inbox) == ["tool_executing", "tool_completed"]
    assert payloads(inbox, EventType.TOOL_COMPLETED)[0]["status"] == "error"


async def test_plain_tool_runs_in_a_thread_and_a_coroutine_on_the_loop() -> None:
    adapter, _ = await heard()

    async def here() -> int:
        return threading.get_ident()

    tools = PythonTools({"plain": threading.get_ident, "coroutine": here})
    assert await tools.dispatch("plain", {}, adapter) != threading.get_ident()
    assert await tools.dispatch("coroutine", {}, adapter) == threading.get_ident()


async def test_cancelled_tool_is_told_as_failed() -> None:
    adapter, inbox = await heard()
    with anyio.CancelScope() as scope:

        async def cancelled() -> None:
            scope.cancel()
            await checkpoint()

        await PythonTools({"cancelled": cancelled}).dispatch("cancelled", {}, adapter)
    assert payloads(inbox, EventType.TOOL_COMPLETED)[0]["status"] == "error"
