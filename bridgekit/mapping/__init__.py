"""Maps run ids to threads, for callers that know only a run id, and registers active runs."""

from bridgekit.mapping.active_runs import ActiveRun, MemoryRunRegistry, RunRegistry
from bridgekit.mapping.memory import MemoryMappingStore
from bridgekit.mapping.service import MappingStore, RunThreadMappingService

__all__ = [
    "ActiveRun",
    "MappingStore",
    "MemoryMappingStore",
    "MemoryRunRegistry",
    "RunRegistry",
    "RunThreadMappingService",
]
