"""Which thread a run belongs to, for callers who have nothing but a run id."""

from bridgekit.mapping.memory import MemoryStore
from bridgekit.mapping.service import MappingStore, RunThreadMappingService

__all__ = ["MappingStore", "MemoryStore", "RunThreadMappingService"]
