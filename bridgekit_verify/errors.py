"""The errors that only the suite raises."""

from __future__ import annotations

import reprlib

from bridgekit.errors import BridgekitError, UnknownName

__all__ = [
    "InvalidParameter",
    "LedgerImbalance",
    "MutationNotApplicable",
    "UnknownFamily",
    "UnusableBackend",
    "UnusableRecording",
    "shown",
]


def shown(value: object) -> str:
    """Return a short form of a value for a message. Python refuses to convert an integer of many digits to text."""
    try:
        return reprlib.repr(value)
    except ValueError:
        return f"{type(value).__name__} with an integer of too many digits"


class InvalidParameter(BridgekitError, ValueError):
    """A parameter of a measurement has a value that is not allowed."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(f"{name} must be {allowed}, not {shown(value)}")
        self.name = name
        self.value = value
        self.allowed = allowed


class UnknownFamily(UnknownName):
    """No family of thread ids has the given name. The message also says how to pass your own ids."""

    def __init__(self, name: object, known: tuple[str, ...]) -> None:
        super().__init__("family of thread ids", name, known)
        self.args = (f"{self}; for thread ids of your own, pass families={{'mine': ['support-42']}}",)


class LedgerImbalance(BridgekitError, AssertionError):
    """The counts of a measurement contradict each other: the measurement itself is wrong, not the measured chain."""

    def __init__(self, identity: str, left: int, right: int) -> None:
        super().__init__(f"the counts of this measurement are inconsistent: {identity}, but {left} is not {right}")
        self.identity = identity
        self.left = left
        self.right = right


class MutationNotApplicable(BridgekitError, ValueError):
    """The requested mutation cannot be applied to the recorded history. `problem` states the reason."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"this history cannot be mutated: {problem}")
        self.problem = problem


class UnusableRecording(BridgekitError, ValueError):
    """A recording or a `[dialect]` table cannot be used. The message names the file and the problem."""

    def __init__(self, path: object, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


class UnusableBackend(UnusableRecording):
    """A backend, or the TOML file that describes the backend, cannot be used. The message names file and problem."""
