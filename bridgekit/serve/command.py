"""The words of `bridgekit serve`."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from bridgekit.chain.link_1_startup import RUNS_SECONDS
from bridgekit.errors import ServeError
from bridgekit.serve.application import NEEDED, STORE_VARIABLE, Served
from bridgekit.serve.in_process import KEEPALIVE_SECONDS
from bridgekit.serve.keys import KEY_VARIABLE
from bridgekit.serve.native_handoff import EDGES
from bridgekit.serve.on_uvicorn import Address, Server, serve
from bridgekit.transport.edge import DRAIN_SECONDS, INCOMING_BYTES
from bridgekit.transport.origins import origins

__all__ = ["add_arguments", "run"]

PORTS = range(65_536)
LEVELS = ("critical", "error", "warning", "info", "debug")
"""Of what the server itself says, on standard error."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Serve an application until a signal ends it: new runs are refused then, runs under way and sockets are seen"
        " out, and the exit code is 0. A second signal ends it at once."
    )
    parser.add_argument("target", nargs="?", metavar="MODULE:ATTRIBUTE", help=NEEDED)
    parser.add_argument("--json", action="store_true", help="print the address as JSON, for a program to read")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=_port, default=8_000, help="0 lets the system pick one (default 8000)")
    parser.add_argument("--workers", type=_at_least_1, default=1, help="processes behind the port (default 1)")
    parser.add_argument(
        "--edge",
        choices=EDGES,
        help="what serves the bridge's sockets: native, the fastest, which no middleware of the application's sees; or"
        " asgi, like every other route. Default native, but asgi where there is middleware that may want to see them",
    )
    parser.add_argument(
        "--store",
        metavar="URL",
        help=f"memory:, sqlite:///FILE or redis://HOST:PORT, default the application's own; or {STORE_VARIABLE} in the"
        " environment, where a password belongs",
    )
    parser.add_argument(
        "--ticket-key-file",
        type=Path,
        metavar="FILE",
        help=f"key for tickets, one a line, the first signs; or {KEY_VARIABLE} in the environment",
    )
    parser.add_argument(
        "--origin", action="append", default=[], help="another site whose pages may open sockets; may be repeated"
    )
    _add_limits(parser)
    parser.set_defaults(refuse=parser.error)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keepalive",
        type=_seconds,
        default=KEEPALIVE_SECONDS,
        metavar="SECONDS",
        help="between pings, and for the answer to one (default %(default)g)",
    )
    parser.add_argument(
        "--incoming-bytes",
        type=_at_least_1,
        default=INCOMING_BYTES,
        metavar="BYTES",
        help="largest frame that a client may send (default %(default)d)",
    )
    parser.add_argument(
        "--runs-seconds",
        type=_seconds,
        metavar="SECONDS",
        help=f"how long runs under way may go on when a signal came (default {RUNS_SECONDS:g})",
    )
    parser.add_argument(
        "--drain-seconds",
        type=_seconds,
        metavar="SECONDS",
        help=f"how long sockets may take after that to read what waits for them (default {DRAIN_SECONDS:g})",
    )
    parser.add_argument("--log-level", choices=LEVELS, default="warning", help="of the server (default warning)")


def _port(text: str) -> int:
    """A port number."""
    if not text.isdecimal() or int(text) not in PORTS:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {PORTS[-1]}, not {text!r}")
    return int(text)


def _at_least_1(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    """A time."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {text!r}")
    return seconds


def _print(line: str) -> None:
    print(line, flush=True)


def run(options: argparse.Namespace, say: Callable[[str], None] = _print) -> int:
    """Serve what the words of the command name. ServeError and others of ours where that cannot be."""
    if options.target is None:
        options.refuse(f"say what to serve, as MODULE:ATTRIBUTE: {NEEDED}")
    if options.store and urlsplit(options.store).password:
        raise ServeError("--store", f"other users can read it; give a URL with a password by {STORE_VARIABLE}")
    served = Served(
        target=options.target,
        store=options.store or os.environ.get(STORE_VARIABLE),
        key_file=options.ticket_key_file,
        origins=tuple(options.origin),
        runs_seconds=options.runs_seconds,
        drain_seconds=options.drain_seconds,
    )
    server = Server(
        host=options.host,
        port=options.port,
        workers=options.workers,
        edge=options.edge,
        keepalive_seconds=options.keepalive,
        incoming_bytes=options.incoming_bytes,
        log_level=options.log_level,
    )
    origins(served.origins)
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does
    return serve(served, server, lambda address: say(_told(options, address)))


def _told(options: argparse.Namespace, address: Address) -> str:
    if not options.json:
        return f"{options.target} is served at {address.url}"
    return msgspec.json.encode(
        {
            "address": address.url,
            "host": address.host,
            "port": address.port,
            "pid": os.getpid(),
            "workers": options.workers,
            "edge": address.edge,
        }
    ).decode()
