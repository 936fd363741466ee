"""Which thread a run belongs to, for callers who have nothing but a run id."""

from bridgekit.mapping.memory import MemoryMappingStore
from bridgekit.mapping.service import MappingStore, RunThreadMappingService

__all__ = ["MappingStore", "MemoryMappingStore", "RunThreadMappingService"]
