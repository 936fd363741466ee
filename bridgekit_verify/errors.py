"""Errors that only the suite raises."""

from __future__ import annotations

from bridgekit.errors import BridgekitError

__all__ = ["LedgerImbalance", "MutationNotApplicable"]


class LedgerImbalance(BridgekitError, AssertionError):
    """The books of a measurement do not add up: the measurement, not the measured, is wrong."""

    def __init__(self, identity: str, left: int, right: int) -> None:
        super().__init__(f"{identity}: {left} is not {right}")
        self.identity = identity
        self.left = left
        self.right = right


class MutationNotApplicable(BridgekitError, ValueError):
    """A recorded history that a fault cannot be planted in, so that exactly that one is in it."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"no fault can be planted in this history: {problem}")
        self.problem = problem
