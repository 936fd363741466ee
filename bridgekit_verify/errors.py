"""The errors that only the suite raises."""

from __future__ import annotations

from bridgekit.errors import BridgekitError

__all__ = ["LedgerImbalance", "MutationNotApplicable"]


class LedgerImbalance(BridgekitError, AssertionError):
    """The counts of a measurement contradict each other: the measurement itself is wrong, not the measured chain."""

    def __init__(self, identity: str, left: int, right: int) -> None:
        super().__init__(f"the counts of this measurement are inconsistent: {identity}, but {left} is not {right}")
        self.identity = identity
        self.left = left
        self.right = right


class MutationNotApplicable(BridgekitError, ValueError):
    """A recorded history to which the requested mutation cannot be applied exactly once and without side effects."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"this history cannot be mutated: {problem}")
        self.problem = problem
