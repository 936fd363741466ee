"""The mapping from run ids to threads, for callers that know only a run id."""

from bridgekit.mapping.memory import MemoryMappingStore
from bridgekit.mapping.service import MappingStore, RunThreadMappingService

__all__ = ["MappingStore", "MemoryMappingStore", "RunThreadMappingService"]
