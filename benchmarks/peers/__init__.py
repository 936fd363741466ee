"""What is measured beside each other: each stack is a row here and a small file beside this one.

A file has a function `up(place)`, which gives a Stack for the length of a block. It alone imports what it needs. The
stacks that are not ours run in an environment of their own, because they pin versions that we do not want.
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

from benchmarks.peers.context import StackContext
from benchmarks.workload import AgentRun, EventBody

__all__ = ["BRIDGEKIT", "PEERS", "Peer", "EmitFunction", "Stack", "peer"]

PEERS_ENVIRONMENT: Final = Path(__file__).parents[2] / ".venv-peers"
"""What `make bench` fills from requirements.txt, beside this file."""

EmitFunction = Callable[[EventBody], Awaitable[object]]
"""Says one event of a run, and returns when the stack lets its agent go on."""


class Stack(Protocol):
    """A stack that is up, in this process."""

    port: int
    """Where its sockets are; 0 where this process has none."""

    def agent(self, run: AgentRun) -> EmitFunction:
        """An agent for that run."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One stack."""

    name: str
    file: str
    """In this folder."""
    description: str
    """What an agent's event becomes, in a few words."""
    dialect: str = "websocket"
    packages: tuple[str, ...] = ()
    """The distributions whose versions matter."""
    broker: bool = False
    """Whether its agents and its sockets are in two processes, with a Redis-protocol server between them."""
    share: float = 1.0
    """Part of the workload that it is given, so that a slow one does not hold up the rest."""
    whole_runs: bool = False
    """Whether the agents are called by the stack, run by run, and not by the benchmark."""

    @property
    def is_bridgekit(self) -> bool:
        """Whether it is bridgekit, in one of its arrangements."""
        return self.file.startswith("bridgekit_")

    @property
    def environment(self) -> Path:
        """Where its packages are installed."""
        return Path(sys.prefix) if self.is_bridgekit else PEERS_ENVIRONMENT

    @property
    def python(self) -> str:
        """The interpreter that runs it."""
        return sys.executable if self.is_bridgekit else str(PEERS_ENVIRONMENT / "bin" / "python")

    @property
    def missing(self) -> str:
        """What is not installed; nothing where it can be measured."""
        return ", ".join(name for name, found in self.versions.items() if not found)

    @property
    def versions(self) -> dict[str, str]:
        """Of its packages; empty text for one that is not installed."""
        directories = [str(directory) for directory in self.environment.glob("lib/python*/site-packages")]
        found = {each.name: each.version for name in self.packages for each in distributions(name=name, path=directories)}
        return {name: found.get(name, "") for name in self.packages}

    def serve(self, context: StackContext) -> AbstractAsyncContextManager[Stack]:
        """Bring it up in this process."""
        factory = cast(
            "Callable[[StackContext], AbstractAsyncContextManager[Stack]]", import_module(f"{__name__}.{self.file}").serve
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
        description="websockets.broadcast, which drops nothing and waits for nobody",
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
        description="a memory stream a subscriber, as its documentation shows",
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
        file="bridgekit_runs",
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
    """The row of that name; LookupError names the known ones."""
    found = next((each for each in PEERS if each.name == name), None)
    if found is None:
        raise LookupError(f"no stack {name!r}; there are {', '.join(each.name for each in PEERS)}")
    return found
