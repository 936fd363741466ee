"""Link 2: the records of a run in the stores, from its start to its end, and the runs that get none."""

from __future__ import annotations

import logging

import anyio.to_thread
import pytest

from bridgekit.chain.link_1_startup import create_app
from bridgekit.chain.link_2_supervisor_agent import SupervisorAgent
from bridgekit.chain.models_tools_and_owners import MemoryThreadStore, PythonTools, ScriptedModel
from bridgekit.errors import StoreUnavailable, WrongEventLoop
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import ActiveRun, MemoryRunRegistry
from tests.chain.agents import AGENTS, config, started
from tests.factories import ALICE, THREAD

REQUEST = {"agent_name": "researcher", "thread_id": THREAD, "user_id": ALICE, "request": "why?"}
UNAVAILABLE = StoreUnavailable("the store", "it did not answer")


class RecordedRuns(MemoryRunRegistry):
    """Records which runs were opened and closed; each call can fail."""

    def __init__(self, *, fails: tuple[str, ...] = ()) -> None:
        self.calls: list[tuple[str, object]] = []
        self.fails = fails

    async def open(self, run: ActiveRun) -> None:
        self._record("open", run)

    async def close(self, run_id: RunId) -> None:
        self._record("close", run_id)

    def _record(self, name: str, value: object) -> None:
        self.calls.append((name, value))
        if name in self.fails:
            raise UNAVAILABLE


class NamedRunIds:
    def new(self, thread_id: ThreadId) -> RunId:
        return RunId(f"mine of {thread_id}")


async def test_run_is_recorded_as_active_until_it_ends() -> None:
    application = await started(run_ids=NamedRunIds())
    application.bridge.runs = runs = RecordedRuns()
    await application.supervisor.run(**REQUEST)
    run_id = RunId(f"mine of {THREAD}")
    assert runs.calls == [("open", ActiveRun(run_id, THREAD, "researcher")), ("close", run_id)]


async def test_run_that_cannot_be_recorded_is_refused_and_leaves_no_route() -> None:
    application = await started(run_ids=NamedRunIds())
    application.bridge.runs = runs = RecordedRuns(fails=("open",))
    closed: list[RunId] = []
    cleanup = application.bridge.mapping.cleanup_mapping

    async def observed(run_id: RunId) -> None:
        closed.append(run_id)
        await cleanup(run_id)

    application.bridge.mapping.cleanup_mapping = observed  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        await application.supervisor.run(**REQUEST)
    assert closed == [f"mine of {THREAD}"]
    assert [name for name, _ in runs.calls] == ["open", "close"]
    assert not application.counters.sent + application.counters.kept


async def test_end_that_cannot_be_recorded_is_logged_and_the_caller_gets_the_result(
    caplog: pytest.LogCaptureFixture,
) -> None:
    application = await started(run_ids=NamedRunIds())
    application.bridge.runs = RecordedRuns(fails=("close",))
    with caplog.at_level(logging.WARNING, "bridgekit.chain"):
        result = await application.supervisor.run(**REQUEST)
    assert result.result == {"answer": "why?!"}
    assert caplog.messages == [f"the end of run mine of {THREAD} could not be stored: {UNAVAILABLE}"]


async def test_supervisor_signs_run_ids_by_default() -> None:
    bridge = (await started()).bridge
    supervisor = SupervisorAgent(MemoryThreadStore(), ScriptedModel(), bridge, PythonTools({}), agents=AGENTS)
    one, other = [await supervisor.open_run(**REQUEST) for _ in range(2)]
    assert one.run_id != other.run_id
    for run in (one, other):
        await supervisor.close_run(run)


async def test_run_of_another_thread_of_the_process_is_refused() -> None:
    app = create_app(config())
    async with app.router.lifespan_context(app):
        supervisor = app.state.bridgekit.supervisor
        with pytest.raises(WrongEventLoop) as refused:
            await anyio.to_thread.run_sync(lambda: supervisor.open_run(**REQUEST).send(None))
    assert str(refused.value) == str(WrongEventLoop("a run"))
