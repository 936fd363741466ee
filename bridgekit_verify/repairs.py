"""The repairs that lead from the chain as committed to a working one, applied one after another.

Each step keeps all repairs before it. The first three are the audit's fixes in the audit's order. The others repair
defects that appear when the chain runs, in the order in which an engineer would find them. The sequence shows how much
a "single line change" delivers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_5_core import AgentExecutionCore
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.self_check import WITHOUT_ROUTING
from bridgekit.transport.hub import Hub
from bridgekit_verify.as_committed import HubThatAlwaysSaysSent
from bridgekit_verify.variants import AS_COMMITTED, FIXES, Variant

__all__ = ["REPAIR_SEQUENCE"]

_FIX_1: Final = FIXES["fix 1"].applied_to(AS_COMMITTED, name="+ Fix 1")
_FIX_2: Final = FIXES["fixes 1 and 2 as written"].applied_to(AS_COMMITTED, name="+ Fix 2")
_FIX_3: Final = FIXES["fixes 1, 2 and 3"].applied_to(AS_COMMITTED, name="+ Fix 3")
_LINK_3: Final = replace(_FIX_3, name="+ link 3", summary="the registry binds agents per run", registry=AgentRegistry)
_LINK_8: Final = replace(
    _LINK_3,
    name="+ link 8",
    summary="the adapter calls the bridge with valid arguments",
    adapter=WebSocketBridgeAdapter,
)
_LINK_10: Final = replace(
    _LINK_8, name="+ link 10", summary="each socket is assigned to a thread", hub=HubThatAlwaysSaysSent
)
_TRUTHFUL_RECEIPTS: Final = replace(
    _LINK_10,
    name="+ truthful receipts",
    summary="an event is reported as sent only if a socket accepted it, and startup checks this",
    hub=Hub,
    self_checks=WITHOUT_ROUTING,
)
_AGENT_PER_RUN: Final = replace(
    _TRUTHFUL_RECEIPTS, name="+ an agent per run", summary="no agent emits for another run", core=AgentExecutionCore
)

REPAIR_SEQUENCE: Final[tuple[Variant, ...]] = (
    AS_COMMITTED,
    _FIX_1,
    _FIX_2,
    _FIX_3,
    _LINK_3,
    _LINK_8,
    _LINK_10,
    _TRUTHFUL_RECEIPTS,
    _AGENT_PER_RUN,
)
"""The chain as committed, then each cumulative repair."""
