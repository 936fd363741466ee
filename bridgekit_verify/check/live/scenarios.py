"""What a load consists of: counts, waiting times, and the scenarios by name. It does no I/O."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from bridgekit_verify.check.live.config import Backend
from bridgekit_verify.check.live.model_scripts import SCENARIOS
from bridgekit_verify.errors import InvalidParameter

__all__ = ["LOADS", "Load", "LoadKind", "default_scenarios", "model_fails"]


MAX_CLIENTS: Final = 2_000
"""Clients at once: one process reads them all."""


class Load(msgspec.Struct, frozen=True):
    """How many users, threads and runs, and how long the check waits for them."""

    users: int = 2
    threads: int = 2
    """Threads of each user, all at once."""
    runs: int = 2
    """Runs in each thread."""
    at_once: int = 1
    """How many of a thread's runs are active at once."""
    tabs: int = 1
    """Sockets of each thread."""
    run_seconds: float = 30.0
    """After this time a run that has not ended is given up."""
    quiet_seconds: float = 3.0
    """A run without an end is over when, after the model's final text, nothing was sent for this time."""
    settle_seconds: float = 0.3
    """How long the check waits for further frames after the last end."""
    offline_seconds: float = 0.2
    """How long a client whose connection was cut stays offline."""

    def __post_init__(self) -> None:
        for name in ("users", "threads", "runs", "at_once", "tabs"):
            if getattr(self, name) < 1:
                raise InvalidParameter(name, getattr(self, name), "at least 1")
        if self.users * self.threads * self.tabs > MAX_CLIENTS:
            raise InvalidParameter(
                "users x threads x tabs", self.users * self.threads * self.tabs, f"at most {MAX_CLIENTS:,}"
            )


class LoadKind(NamedTuple):
    """What a scenario does: the model's script, and what happens to the clients' connections."""

    script: str
    cuts: bool = False
    slow: bool = False
    tabs: int = 1


LOADS: Final = {
    **{name: LoadKind(name) for name in SCENARIOS},
    "cut": LoadKind("slow", cuts=True),
    "slow_reader": LoadKind("burst", slow=True),
    "tabs": LoadKind("text", tabs=2),
}
"""The scenarios that a check can run, by name."""


def default_scenarios(backend: Backend) -> tuple[str, ...]:
    """Return what a check applies if nothing is chosen. What a cut costs is known only where a client can resume."""
    resume = ("cut",) if backend.resume is not None or backend.kind == "class" else ()
    sockets = () if backend.kind == "response" else ("tabs",)
    return ("text", "thinking", "calls", "burst", "retry", "dies", "slow_reader", *resume, *sockets)


def model_fails(script: str) -> bool:
    """Whether the script lets the model fail, so that a backend may answer a run with an error."""
    return bool(SCENARIOS[script].refusals or SCENARIOS[script].ends_in)
