"""A thread store in memory. An experiment declares the threads' owners in each of its processes."""

from __future__ import annotations

from bridgekit.chain.models_tools_and_owners import OwnersInMemory

__all__ = ["DeclaredOwners"]


class DeclaredOwners(OwnersInMemory):
    """Owners that each process of an experiment declares, so that a durable store accepts them."""
