"""The values that each parameter of the notebooks may have.

Every kernel loads this module, so it imports nothing large. The upper limits keep one measurement within its time
limit. The study that uses a name, such as a fault's name, checks whether the name exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from bridgekit_verify.errors import InvalidParameter

__all__ = ["PARAMETERS", "check_parameters"]

MAX_RUNS: Final = 2_000
"""Maximum number of runs of one measurement: THREADS times RUNS."""
MAX_RUN_SECONDS: Final = 30.0
"""Maximum duration of a run in a fault trial: STEPS times PACE_SECONDS."""


class AllowedValues(Protocol):
    """The values that one parameter may have."""

    @property
    def text(self) -> str:
        """The allowed values in words, for an error message."""

    def contain(self, value: object) -> bool:
        """Return whether the value is allowed."""


@dataclass(frozen=True, slots=True)
class Whole:
    """Whole numbers within limits."""

    least: int
    most: int

    @property
    def text(self) -> str:
        return f"a whole number from {self.least:,} to {self.most:,}"

    def contain(self, value: object) -> bool:
        return type(value) is int and self.least <= value <= self.most


@dataclass(frozen=True, slots=True)
class Real:
    """Integers and floats within limits."""

    least: float
    most: float

    @property
    def text(self) -> str:
        return f"a number from {self.least:,g} to {self.most:,g}"

    def contain(self, value: object) -> bool:
        # NaN is refused, because every comparison with NaN is false.
        return isinstance(value, int | float) and not isinstance(value, bool) and self.least <= value <= self.most


@dataclass(frozen=True, slots=True)
class Name:
    """Any text. The study that uses the name refuses unknown names."""

    text: str = "a text"

    def contain(self, value: object) -> bool:
        return isinstance(value, str)


@dataclass(frozen=True, slots=True)
class ListOf:
    """Lists whose members are allowed and all different."""

    members: AllowedValues
    least: int = 0
    most: int = 50

    @property
    def text(self) -> str:
        return f"a list of {self.least} to {self.most} different members, each {self.members.text}"

    def contain(self, value: object) -> bool:
        return (
            isinstance(value, list)
            and self.least <= len(value) <= self.most
            and all(map(self.members.contain, value))
            and len(set(value)) == len(value)
        )


PARAMETERS: Final[Mapping[str, AllowedValues]] = {
    "SEED": Whole(-(2**63), 2**63),
    "THREADS": Whole(1, 200),
    "RUNS": Whole(1, 200),
    "AT_ONCE": Whole(1, 200),
    "KIND": Name(),
    "USERS_WITHOUT_SOCKET": Whole(0, 200),
    "SHARING_RUNS": Whole(2, 200),
    "SEARCH_PAIRS": Whole(1, 10_000),
    "TRIALS": Whole(1, 200),
    "USERS": Whole(1, 20),
    "STEPS": Whole(8, 500),
    "PACE_SECONDS": Real(0.01, 1),
    "FAULT_SECONDS": Real(0.1, 10),
    "FAULTS": ListOf(Name()),
    "OFFLINE_SECONDS": ListOf(Real(0, 10)),
    "RETAINED_EVENTS": Whole(1, 100_000),
    "STEP_SECONDS": Real(0.1, 30),
    "PAUSE_SECONDS": Real(0, 1),
    "STEPS_PER_RUN": Whole(1, 50),
    "SEARCH_SECONDS": Real(0.1, 60),
    "MAX_EVENTS_PER_SECOND": Real(1_000, 1_000_000),
    "SOCKETS": Whole(1, 1_000),
    "SIZES": ListOf(Whole(1, 5_000), least=2),
    "ROUNDS": Whole(1, 50),
    "DRAWS": Whole(1, 100_000),
    "LINKS": ListOf(Whole(1, 10)),
    "BACKEND_USERS": Whole(2, 10),
    "BACKEND_THREADS": Whole(1, 10),
    "BACKEND_RUNS": Whole(1, 10),
    "SCENARIOS": ListOf(Name()),
    "RECORDINGS": ListOf(Name()),
}
"""The allowed values of each parameter. A parameter has the same meaning in every notebook."""


def check_parameters(values: Mapping[str, object]) -> None:
    """Raise InvalidParameter if a value or a combination of values is not allowed.

    `values` are the variables of a notebook or the settings of a command. Names that are not parameters are ignored.
    """
    for name, allowed in PARAMETERS.items():
        if name in values and not allowed.contain(values[name]):
            raise InvalidParameter(name, values[name], allowed.text)
    threads, runs, without = (values.get(name) for name in ("THREADS", "RUNS", "USERS_WITHOUT_SOCKET"))
    if isinstance(threads, int) and isinstance(runs, int) and threads * runs > MAX_RUNS:
        raise InvalidParameter("THREADS × RUNS", threads * runs, f"at most {MAX_RUNS:,} runs")
    steps, pace = values.get("STEPS"), values.get("PACE_SECONDS")
    if isinstance(steps, int) and isinstance(pace, int | float) and steps * pace > MAX_RUN_SECONDS:
        raise InvalidParameter("STEPS × PACE_SECONDS", steps * pace, f"at most {MAX_RUN_SECONDS:g} seconds")
    if isinstance(threads, int) and isinstance(without, int) and without > threads:
        raise InvalidParameter("USERS_WITHOUT_SOCKET", without, f"at most THREADS = {threads:,}")
