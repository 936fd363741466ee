"""Defines a load: its counts, its time limits, and the scenarios by name. It does no I/O."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from bridgekit_verify.check.live.backend_file import Backend
from bridgekit_verify.check.live.model_scripts import SCENARIOS
from bridgekit_verify.errors import InvalidParameter

__all__ = ["LOADS", "Load", "LoadKind", "default_scenarios", "model_fails"]


MAX_CLIENTS: Final = 2_000
"""Limit on concurrent clients, because one process reads all of them."""


class Load(msgspec.Struct, frozen=True):
    """The number of users, threads and runs, and how long the check waits for a run."""

    users: int = 2
    threads: int = 2
    """The number of threads of each user. All threads are active at the same time."""
    runs: int = 2
    """Runs in each thread."""
    at_once: int = 1
    """The number of a thread's runs that are active at the same time."""
    tabs: int = 1
    """Sockets of each thread."""
    run_seconds: float = 30.0
    """The check stops waiting for a run after this time."""
    quiet_seconds: float = 3.0
    """A run without an end counts as over if no data was sent for this time after the model's final text."""
    unfinished_seconds: float = 10.0
    """Replaces `quiet_seconds` after tool calls or a failed answer, because the backend must call the model again."""
    settle_seconds: float = 0.3
    """The check stops waiting for frames when no client has received a frame for this time."""
    offline_seconds: float = 0.2
    """The minimum time that a client stays offline after its connection was cut."""

    def __post_init__(self) -> None:
        for name in ("users", "threads", "runs", "at_once", "tabs"):
            if getattr(self, name) < 1:
                raise InvalidParameter(name, getattr(self, name), "at least 1")
        if self.users * self.threads * self.tabs > MAX_CLIENTS:
            raise InvalidParameter(
                "users x threads x tabs", self.users * self.threads * self.tabs, f"at most {MAX_CLIENTS:,}"
            )


class LoadKind(NamedTuple):
    """A scenario: the model's script, and what the check does to the clients' connections."""

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
    """Return the scenarios that a check applies by default.

    `cut` is included only if a client can resume, because the losses of a cut are otherwise unknown.
    """
    resume = ("cut",) if backend.resume is not None or backend.kind == "class" else ()
    sockets = () if backend.kind == "response" else ("tabs",)
    return ("text", "thinking", "calls", "burst", "retry", "dies", "slow_reader", *resume, *sockets)


def model_fails(script: str) -> bool:
    """Return whether the script makes the model fail, so that a backend may answer a run with an error."""
    return bool(SCENARIOS[script].refusals or SCENARIOS[script].ends_in)
