"""Link 2: the supervisor accepts a user's request, opens a run for it, and passes the bridge to registry and engine."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import anyio

from bridgekit import ids
from bridgekit.chain.context import RunContext, RunResult, enclosing_runs
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_4_engine import ExecutionEngine
from bridgekit.chain.link_5_execution_core import AgentExecutionCore
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.chain.models_tools_and_owners import LLMManager, SessionFactory, ToolDispatcher, claim_thread
from bridgekit.errors import DeterministicStartupError, ShuttingDown, StoreUnavailable
from bridgekit.ids import RunIdScheme, SignedRunIds
from bridgekit.mapping import ActiveRun

__all__ = ["SupervisorAgent"]

logger = logging.getLogger(__name__)

CLOSE_RUN_TIMEOUT_SECONDS: Final = 5.0
"""Time limit for each of the two store operations that close a run."""


class SupervisorAgent:
    """The chain's entry point for users' requests.

    The supervisor gets all of its collaborators as constructor arguments.
    """

    def __init__(
        self,
        db_session_factory: SessionFactory,
        llm_manager: LLMManager,
        websocket_bridge: AgentWebSocketBridge,
        tool_dispatcher: ToolDispatcher,
        *,
        agents: Mapping[str, type[BaseAgent]],
        run_ids: RunIdScheme | None = None,
        registry: type[AgentRegistry] = AgentRegistry,
        engine: type[ExecutionEngine] = ExecutionEngine,
        core: type[AgentExecutionCore] = AgentExecutionCore,
        adapter: type[WebSocketBridgeAdapter] = WebSocketBridgeAdapter,
    ) -> None:
        self.db_session_factory = db_session_factory
        self.websocket_bridge = websocket_bridge
        self._run_ids = SignedRunIds() if run_ids is None else run_ids
        with DeterministicStartupError.at(3, "the agent registry"):
            self.registry = registry(llm_manager, tool_dispatcher, agents, adapter=adapter)
        with DeterministicStartupError.at(4, "the execution engine"):
            self.engine = engine(self.registry, websocket_bridge, core=core)
        self._closed = False
        self._executing: dict[int, RunContext] = {}
        """The contexts of runs that may start sub-agents, even while the application shuts down. The key is the `id()`
        of the context, because two contexts are equal if the id scheme repeats a run id."""
        self._active_runs = 0
        """The number of runs that are open or being opened."""
        self._idle = anyio.Event()
        """An event that is set, and then replaced, each time the number of active runs becomes 0."""

    async def run(self, *, agent_name: str, thread_id: str, user_id: str, request: str) -> RunResult:
        """Run an agent for a user in one of the user's threads, and return its result.

        Raises the errors of `open_run` if the request is refused. Raises the agent's error, for which the core emits
        `agent_error`: see `AgentExecutionCore.execute_agent`.
        """
        context = await self.open_run(agent_name=agent_name, thread_id=thread_id, user_id=user_id, request=request)
        enclosing = enclosing_runs.get()
        enclosing_runs.set((*enclosing, context))
        self._executing[id(context)] = context
        try:
            return RunResult(context, await self.engine.execute(context))
        finally:
            del self._executing[id(context)]
            enclosing_runs.set(enclosing)  # `reset` fails if the coroutine is closed in another context
            await self.close_run(context)

    async def open_run(self, *, agent_name: str, thread_id: str, user_id: str, request: str) -> RunContext:
        """Validate the request, claim the thread for the user, create the run's id and register its route.

        Raises InvalidId, ThreadNotOwned, MappingFull, RunAlreadyMapped, StoreUnavailable, ShuttingDown or
        WrongEventLoop if the request is refused. After a successful `open_run`, the caller must call `close_run` when
        the run has ended.
        """
        self.websocket_bridge.require_own_loop("a run")
        if self._closed and not any(id(run) in self._executing for run in enclosing_runs.get()):
            raise ShuttingDown
        thread, user = ids.thread_id(thread_id), ids.user_id(user_id)
        name, checked_request = ids.agent_name(agent_name), ids.request(request)
        # Count the run before the first await, so that a concurrent `close` waits for this run too.
        self._active_runs += 1
        try:
            await claim_thread(self.db_session_factory, thread, user)
            context = RunContext(
                run_id=self._run_ids.new(thread),
                thread_id=thread,
                user_id=user,
                agent_name=name,
                request=checked_request,
            )
            await self.websocket_bridge.mapping.register_mapping(context.run_id, thread)
            try:
                await self.websocket_bridge.runs.open(ActiveRun(context.run_id, thread, name))
            except BaseException:
                await self._close_records(context)
                raise
        except BaseException:
            self._run_finished()
            raise
        return context

    async def close_run(self, context: RunContext) -> None:
        """Record that the run has ended, and start the grace period after which its route expires.

        The call is shielded from cancellation, because the route of a cancelled run must expire too.
        """
        try:
            await self._close_records(context)
        finally:
            self._run_finished()

    async def _close_records(self, context: RunContext) -> None:
        for close in (self.websocket_bridge.runs.close, self.websocket_bridge.mapping.cleanup_mapping):
            with anyio.move_on_after(CLOSE_RUN_TIMEOUT_SECONDS, shield=True):
                try:
                    await close(context.run_id)
                except StoreUnavailable as error:
                    # The caller must still get the run's result. A route that is not closed here expires later.
                    logger.warning("the end of run %s could not be stored: %s", context.run_id, error)

    def _run_finished(self) -> None:
        self._active_runs -= 1
        if not self._active_runs:
            self._idle.set()
            self._idle = anyio.Event()

    def refuse_runs(self) -> None:
        """Refuse new runs, except sub-agents of active runs."""
        self._closed = True

    async def close(self, *, seconds: float) -> None:
        """Refuse new runs, as `refuse_runs` does, and wait at most `seconds` for all active runs to end."""
        self.refuse_runs()
        with anyio.move_on_after(seconds):
            while self._active_runs:
                await self._idle.wait()
