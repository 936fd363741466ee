"""The compared stacks: each stack is a row of PEERS and a small module of this package.

Each module has a context manager `serve(context)`, which runs a Stack until its block ends. Stacks other than bridgekit
run in a separate environment, because they pin incompatible versions. Only modules of `benchmarks.peers` import the
libraries of other stacks.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import distributions
from pathlib import Path
from typing import Final, Protocol, cast

from benchmarks.peers.stack_context import StackContext
from benchmarks.workload import AgentRun, EventBody

__all__ = ["BRIDGEKIT", "PEERS", "EmitFunction", "Peer", "Stack", "peer"]

PEERS_ENVIRONMENT: Final = Path(__file__).parents[2] / ".venv-peers"
"""Environment that `make bench` installs from the requirements.txt next to this file."""

EmitFunction = Callable[[EventBody], Awaitable[object]]
"""Emits one event of a run. The returned awaitable completes when the stack returns control to the agent."""


class Stack(Protocol):
    """A stack that runs in this process."""

    port: int
    """Port of the stack's sockets, or 0 if this process has no sockets."""

    def agent(self, run: AgentRun) -> EmitFunction:
        """Return the emit function of an agent for this run."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One stack: its module, its packages, and how it is measured."""

    name: str
    file: str
    """Name of the stack's module in this package."""
    description: str
    """The call that sends an agent's event."""
    dialect: str = "websocket"
    packages: tuple[str, ...] = ()
    """Distributions whose versions are recorded."""
    broker: bool = False
    """Whether agents and sockets are in two processes that a Redis-protocol server connects."""
    share: float = 1.0
    """Share of the workload that the stack gets: less than 1 for a slow stack, so that the run does not take longer."""
    whole_runs: bool = False
    """Whether the stack calls the agents itself, run by run."""

    @property
    def is_bridgekit(self) -> bool:
        """Whether the stack is a configuration of bridgekit."""
        return self.file.startswith("bridgekit_")

    @property
    def environment(self) -> Path:
        """The environment in which the stack's packages are installed."""
        return Path(sys.prefix) if self.is_bridgekit else PEERS_ENVIRONMENT

    @property
    def python(self) -> str:
        """The interpreter that runs the stack."""
        return sys.executable if self.is_bridgekit else str(PEERS_ENVIRONMENT / "bin" / "python")

    @property
    def missing(self) -> str:
        """The names of missing packages, without which the stack cannot be measured."""
        return ", ".join(name for name, found in self.versions.items() if not found)

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the stack's packages. The version is empty for a package that is not installed."""
        places = [str(place) for place in self.environment.glob("lib/python*/site-packages")]
        found = {name: list(distributions(name=name, path=places)) for name in self.packages}
        return {name: each[0].version if each else "" for name, each in found.items()}

    def serve(self, context: StackContext) -> AbstractAsyncContextManager[Stack]:
        """Run the stack in this process while the block runs."""
        factory = cast(
            "Callable[[StackContext], AbstractAsyncContextManager[Stack]]",
            import_module(f"{__name__}.{self.file}").serve,
        )
        return factory(context)


_UVICORN: Final = ("starlette", "uvicorn", "websockets")
_OURS: Final = ("bridgekit-verify", "msgspec", *_UVICORN)

PEERS: Final = (
    Peer(
        name="raw TCP",
        file="raw_tcp",
        description="one transport.write an event, no WebSocket",
        dialect="lines",
        packages=("orjson",),
    ),
    Peer(name="picows", file="picows_", description="transport.send", packages=("picows", "aiofastnet", "orjson")),
    Peer(
        name="websockets broadcast",
        file="websockets_broadcast",
        description="websockets.broadcast, which neither drops events nor waits for subscribers",
        packages=("websockets", "orjson"),
    ),
    Peer(
        name="websockets send",
        file="websockets_send",
        description="await connection.send",
        packages=("websockets", "orjson"),
    ),
    Peer(
        name="Starlette by hand",
        file="starlette_by_hand",
        description="await websocket.send_text, on uvicorn",
        packages=(*_UVICORN, "orjson"),
    ),
    Peer(
        name="sse-starlette",
        file="sse",
        description="a memory stream for each subscriber, as its documentation shows",
        dialect="server-sent events",
        packages=("sse-starlette", "starlette", "uvicorn", "orjson"),
        share=0.2,
    ),
    Peer(
        name="broadcaster",
        file="broadcaster_",
        description="await broadcast.publish, in memory",
        packages=("broadcaster", *_UVICORN, "orjson"),
    ),
    Peer(
        name="python-socketio",
        file="socketio_",
        description="await server.emit to a room",
        dialect="socket.io",
        packages=("python-socketio", "python-engineio", "uvicorn", "websockets"),
        share=0.4,
    ),
    Peer(
        name="Channels",
        file="channels_",
        description="await layer.group_send, in memory",
        packages=("channels", "django", "uvicorn", "websockets"),
        share=0.1,
    ),
    Peer(
        name="bridgekit ASGI",
        file="bridgekit_asgi",
        description="await adapter.emit_*, on uvicorn",
        packages=_OURS,
    ),
    Peer(
        name="bridgekit ASGI, whole runs",
        file="bridgekit_whole_runs",
        description="await supervisor.run, all nine links, on uvicorn",
        packages=_OURS,
        whole_runs=True,
    ),
    Peer(
        name="bridgekit native",
        file="bridgekit_native",
        description="await adapter.emit_*, on websockets' own server",
        packages=("bridgekit-verify", "msgspec", "websockets"),
    ),
    Peer(
        name="broadcaster, Redis",
        file="broadcaster_",
        description="await broadcast.publish, over Redis pub/sub",
        packages=("broadcaster", "redis", *_UVICORN, "orjson"),
        broker=True,
        share=0.4,
    ),
    Peer(
        name="python-socketio, Redis",
        file="socketio_redis",
        description="await manager.emit to a room, over its Redis manager",
        dialect="socket.io",
        packages=("python-socketio", "python-engineio", "redis", "uvicorn", "websockets"),
        broker=True,
        share=0.4,
    ),
    Peer(
        name="Channels, Redis",
        file="channels_",
        description="await layer.group_send, over channels_redis' pub/sub layer",
        packages=("channels", "channels-redis", "redis", "django", "uvicorn", "websockets"),
        broker=True,
        share=0.1,
    ),
    Peer(
        name="bridgekit, Redis",
        file="bridgekit_redis",
        description="await adapter.emit_*, kept in Redis Streams and relayed, on the native edge",
        packages=("bridgekit-verify", "msgspec", "websockets", "redis", "hiredis"),
        broker=True,
    ),
    Peer(
        name="bridgekit, Redis, ASGI",
        file="bridgekit_redis_asgi",
        description="the same, on uvicorn",
        packages=(*_OURS, "redis", "hiredis"),
        broker=True,
    ),
)

BRIDGEKIT: Final = tuple(each for each in PEERS if each.is_bridgekit)


def peer(name: str) -> Peer:
    """Return the stack with this name. Raises LookupError with the known names if there is no such stack."""
    found = next((each for each in PEERS if each.name == name), None)
    if found is None:
        raise LookupError(f"there is no stack {name!r}; known stacks are: {', '.join(each.name for each in PEERS)}")
    return found
