"""The chains that are compared: each variant names the parts in which it differs from *sound*.

In the first variants, links 1 to 8 are sound, and link 9 is as reported or repaired with one or several of the audit's
fixes. The fixes in `FIXES` can be applied to any chain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from bridgekit.chain.link_1_startup import ApplicationFactory, BridgeConfig, carried_or_mapped, start_application
from bridgekit.chain.link_2_supervisor_agent import SupervisorAgent
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_4_engine import ExecutionEngine
from bridgekit.chain.link_5_execution_core import AgentExecutionCore
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.chain.models_tools_and_owners import PythonTools, ScriptedModel, ToolDispatcher
from bridgekit.chain.self_check import SOUND_CHECKS, SelfCheck, check_delivery, check_handover, check_routing
from bridgekit.errors import UnknownName
from bridgekit.ids import HexSource, RunIdScheme, SignedRunIds
from bridgekit.mapping import MappingStore, RunThreadMappingService
from bridgekit.stores import MEMORY, StoreFactory
from bridgekit.thread_resolvers import MappingLookup, Resolver
from bridgekit.transport.authorization import OwnerAuthorizer
from bridgekit.transport.hub import Hub
from bridgekit.transport.log import EventLog
from bridgekit_verify import as_committed
from bridgekit_verify.audited_routing import EmbeddedRunIds, FirstOf, OpaqueRunIds, ReportParser

__all__ = ["BROKEN", "FIXES", "SOUND", "VARIANTS", "WITHOUT_HANDOVER", "WITHOUT_ROUTING", "Fix", "Variant", "variant"]

WITHOUT_ROUTING: Final[tuple[SelfCheck, ...]] = (check_handover, check_delivery)
WITHOUT_HANDOVER: Final[tuple[SelfCheck, ...]] = (check_delivery, check_routing)


def _signed_run_ids(hex_source: HexSource) -> RunIdScheme:
    return SignedRunIds(hex_source=hex_source)


def resolver_as_committed(mapping: RunThreadMappingService) -> Resolver:
    """Create the resolver of the audited code, which calls the orchestrator, then parses the run id."""
    return FirstOf(as_committed.OrchestratorLookup(as_committed.Orchestrator()), ReportParser())


def resolver_of_fix_2_as_written(mapping: RunThreadMappingService) -> Resolver:
    """Create a resolver that parses the run id, then calls the orchestrator, which lacks the method of Fix 2."""
    return FirstOf(ReportParser(), as_committed.OrchestratorLookup(as_committed.Orchestrator()))


def resolver_of_fix_2_with_its_method(mapping: RunThreadMappingService) -> Resolver:
    """Create a resolver that parses the run id, then calls an orchestrator whose method queries the mapping."""
    return FirstOf(
        ReportParser(), as_committed.OrchestratorLookup(as_committed.OrchestratorThatQueriesTheMapping(mapping))
    )


def resolver_of_fix_3(mapping: RunThreadMappingService) -> Resolver:
    """Create a resolver that queries the mapping service, then uses the resolver as committed.

    The audit does not state the order. If the parser came first, Fix 3 would equal Fix 2 with its method.
    """
    return FirstOf(MappingLookup(mapping), resolver_as_committed(mapping))


def resolver_of_fixes_2_and_3(mapping: RunThreadMappingService) -> Resolver:
    """Create a resolver that queries the mapping service, then uses the resolver of Fix 2 as written."""
    return FirstOf(MappingLookup(mapping), resolver_of_fix_2_as_written(mapping))


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The parts from which a chain is built."""

    name: str
    summary: str
    """How the variant differs from the sound chain, in one clause."""
    run_ids: Callable[[HexSource], RunIdScheme] = _signed_run_ids
    resolver: Callable[[RunThreadMappingService], Resolver] = carried_or_mapped
    stores: StoreFactory = MEMORY
    mapping: Callable[[MappingStore], RunThreadMappingService] = RunThreadMappingService
    hub: Callable[[EventLog], Hub] = Hub
    bridge: type[AgentWebSocketBridge] = AgentWebSocketBridge
    start: ApplicationFactory = start_application
    """Link 1: the function that `create_app` calls with the config."""
    supervisor: type[SupervisorAgent] = SupervisorAgent
    registry: type[AgentRegistry] = AgentRegistry
    engine: type[ExecutionEngine] = ExecutionEngine
    core: type[AgentExecutionCore] = AgentExecutionCore
    agent: type[BaseAgent] = BaseAgent
    """The base class of the workload's agents."""
    adapter: type[WebSocketBridgeAdapter] = WebSocketBridgeAdapter
    self_checks: tuple[SelfCheck, ...] = SOUND_CHECKS

    def config(
        self,
        agents: Mapping[str, type[BaseAgent]],
        *,
        hex_source: HexSource,
        tools: ToolDispatcher | None = None,
        seed: int = 0,
    ) -> BridgeConfig:
        """Return the configuration of an application of this variant. `hex_source` supplies the random part of run ids.

        Authorization does not differ between variants: each accepts the user id that a client states.
        """
        return BridgeConfig(
            agents=agents,
            llm_manager=ScriptedModel(seed),
            tool_dispatcher=tools or PythonTools({}),
            run_ids=self.run_ids(hex_source),
            stores=self.stores,
            mapping=self.mapping,
            resolver=self.resolver,
            hub=self.hub,
            authorizer=OwnerAuthorizer,
            origins=("*",),
            bridge=self.bridge,
            supervisor=self.supervisor,
            registry=self.registry,
            engine=self.engine,
            core=self.core,
            adapter=self.adapter,
            self_checks=self.self_checks,
        )


SOUND: Final = Variant(name="sound", summary="every link is sound, and the run carries the thread id")
AS_REPORTED: Final = Variant(
    name="as reported",
    summary="links 1 to 8 are sound, link 9 is broken as the audit reports",
    run_ids=OpaqueRunIds,
    resolver=resolver_as_committed,
    self_checks=WITHOUT_ROUTING,
)


@dataclass(frozen=True)
class Fix:
    """A repair, or one or several of the audit's fixes: the parts that it replaces in a chain."""

    name: str
    summary: str
    parts: Mapping[str, Any]
    """The replaced fields of a `Variant`."""

    def applied_to(self, base: Variant, *, name: str | None = None) -> Variant:
        """Return the base chain with this fix. By default, the name of the result is "<base> with <fix>"."""
        return replace(base, name=name or f"{base.name} with {self.name}", summary=self.summary, **self.parts)


_EMBEDDED: Final[dict[str, Any]] = {"run_ids": EmbeddedRunIds}
_AS_WRITTEN: Final[dict[str, Any]] = {"resolver": resolver_of_fix_2_as_written}
_WITH_ITS_METHOD: Final[dict[str, Any]] = {
    "resolver": resolver_of_fix_2_with_its_method,
    "mapping": as_committed.DictMapping,
}
_MAPPED: Final[dict[str, Any]] = {"resolver": resolver_of_fix_3, "mapping": as_committed.DictMapping}

FIXES: Final[Mapping[str, Fix]] = {
    fix.name: fix
    for fix in (
        Fix("fix 1", "the run id contains the thread id", _EMBEDDED),
        Fix(
            "fix 2 as written",
            "the bridge parses the run id, then calls a method that the orchestrator lacks",
            _AS_WRITTEN,
        ),
        Fix(
            "fix 2 with its method",
            "the run id is parsed, then the orchestrator queries Fix 3's mapping",
            _WITH_ITS_METHOD,
        ),
        Fix("fix 3", "a dict stores the thread of each run", _MAPPED),
        Fix(
            "fixes 1 and 2 as written",
            "the run id contains the thread id and is parsed; the orchestrator lacks the method",
            _EMBEDDED | _AS_WRITTEN,
        ),
        Fix(
            "fixes 1 and 2 with the method",
            "the run id contains the thread id and is parsed, then the orchestrator queries Fix 3's mapping",
            _EMBEDDED | _WITH_ITS_METHOD,
        ),
        Fix(
            "fixes 1, 2 and 3",
            "the mapping is queried first, then the run id, which contains the thread id, is parsed",
            _EMBEDDED | _MAPPED | {"resolver": resolver_of_fixes_2_and_3},
        ),
    )
}
"""The audit's fixes by name, alone and together. Fix 2 parses the run id, then calls a method that the audited code
does not have. "As written", the method is missing. "With its method", the method queries the mapping of Fix 3."""

FIX_1: Final = FIXES["fix 1"].applied_to(AS_REPORTED, name="fix 1")
FIX_3: Final = FIXES["fix 3"].applied_to(AS_REPORTED, name="fix 3")
ALL_FIXES: Final = FIXES["fixes 1, 2 and 3"].applied_to(AS_REPORTED, name="fixes 1, 2 and 3")
AS_COMMITTED: Final = Variant(
    name="as committed",
    summary="every defect that appears when the audited code runs",
    run_ids=OpaqueRunIds,
    resolver=resolver_as_committed,
    hub=as_committed.HubAsCommitted,
    registry=as_committed.RegistryThatBindsAtStartup,
    core=as_committed.CoreThatSharesAgents,
    adapter=as_committed.AdapterThatPassesMetadata,
    self_checks=(as_committed.self_check_that_cannot_fail,),
)

VARIANTS: Final[Mapping[str, Variant]] = {
    row.name: row
    for row in (
        AS_REPORTED,
        *(fix.applied_to(AS_REPORTED, name=fix.name) for fix in FIXES.values()),
        SOUND,
        AS_COMMITTED,
    )
}

_WITHOUT_HANDOVER_CHECK: Final = replace(SOUND, self_checks=WITHOUT_HANDOVER)
"""The sound chain, which does not check at startup whether links 2 to 5 hold the application's bridge."""

BROKEN: Final[Mapping[int, Variant]] = {
    1: replace(
        SOUND,
        name="link 1 broken",
        summary="startup does not detect that no socket is assigned to a thread",
        hub=as_committed.HubWithoutThreads,
        self_checks=(as_committed.self_check_that_cannot_fail,),
    ),
    2: replace(
        _WITHOUT_HANDOVER_CHECK,
        name="link 2 broken",
        summary="the supervisor passes on a second bridge",
        supervisor=as_committed.SupervisorWithItsOwnBridge,
    ),
    3: replace(
        SOUND,
        name="link 3 broken",
        summary="the registry binds agents without the run id, so no agent gets the bridge",
        registry=as_committed.RegistryThatBindsAtStartup,
    ),
    4: replace(
        _WITHOUT_HANDOVER_CHECK,
        name="link 4 broken",
        summary="the engine passes on a second bridge",
        engine=as_committed.EngineWithItsOwnBridge,
    ),
    5: replace(
        SOUND,
        name="link 5 broken",
        summary="the core shares one agent between all runs",
        core=as_committed.CoreThatSharesAgents,
    ),
    6: replace(
        SOUND,
        name="link 6 broken",
        summary="the agent does not pass the bridge to its adapter",
        agent=as_committed.AgentThatKeepsTheBridge,
    ),
    7: replace(
        SOUND,
        name="link 7 broken",
        summary="the adapter does not store the run id",
        adapter=as_committed.AdapterThatForgetsTheRun,
    ),
    8: replace(
        SOUND,
        name="link 8 broken",
        summary="the adapter passes an argument that no notify method takes",
        adapter=as_committed.AdapterThatPassesMetadata,
    ),
    9: replace(AS_REPORTED, name="link 9 broken", summary="the run id does not contain the thread id"),
}
"""The sound chain with one link broken, by link number. For link 1, the hub is also broken, as the defect of
link 1 has no effect with a sound hub. For links 2, 4 and 9, the check that would refuse the chain is left out."""


def variant(name: object) -> Variant:
    """Return the variant with this name. Raises UnknownName, which lists the known names."""
    rows = {**VARIANTS} | {row.name: row for row in BROKEN.values()}
    if not isinstance(name, str) or name not in rows:
        raise UnknownName("variant", name, tuple(rows))
    return rows[name]
