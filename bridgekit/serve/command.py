"""The arguments of `bridgekit serve`."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from bridgekit.chain.link_1_startup import RUNS_TIMEOUT_SECONDS
from bridgekit.errors import ServeError
from bridgekit.serve.app_loader import EXPECTED, KEY_VARIABLE, STORE_VARIABLE, AppSpec
from bridgekit.serve.in_process import KEEPALIVE_SECONDS, url
from bridgekit.serve.native_handoff import EDGES
from bridgekit.serve.server import ServedAt, ServerOptions, serve
from bridgekit.transport.connections import DRAIN_TIMEOUT_SECONDS, INCOMING_BYTES
from bridgekit.transport.origins import origins

__all__ = ["add_arguments", "run"]

T = TypeVar("T")
LEVELS = ("critical", "error", "warning", "info", "debug")
"""Levels of uvicorn's log on standard error."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Serve an application until a signal arrives. The server then refuses new runs, drains active runs and sockets,"
        " and exits with code 0. A second signal stops it at once."
    )
    parser.add_argument("target", nargs="?", metavar="MODULE:ATTRIBUTE", help=EXPECTED)
    parser.add_argument("--json", action="store_true", help="print the address as JSON, so that a program can read it")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument(
        "--port",
        type=_whole_number(0, 65_535),
        default=8_000,
        help="port to listen on; 0 lets the system pick one (default 8000)",
    )
    parser.add_argument(
        "--monitoring-port",
        type=_whole_number(0, 65_535),
        metavar="PORT",
        help="serve /metrics and /healthz on this port instead of the public one; 0 lets the system pick one",
    )
    parser.add_argument(
        "--workers", type=_whole_number(1), default=1, help="number of server processes that share the port (default 1)"
    )
    parser.add_argument(
        "--edge",
        choices=EDGES,
        help="what serves the bridge's sockets: native is fastest and bypasses the application's middleware; asgi"
        " serves them like every other route. The default is native, or asgi if middleware may act on sockets",
    )
    parser.add_argument(
        "--store",
        metavar="URL",
        help="memory:, sqlite:///FILE or redis://HOST:PORT (default: the application's own store). If the application"
        f" chooses no store, the environment variable {STORE_VARIABLE} does the same, and hides a password from other"
        " users",
    )
    parser.add_argument(
        "--ticket-key-file",
        dest="key_file",
        type=Path,
        metavar="FILE",
        help="file with ticket keys, one per line; the first one signs. Or set the environment variable"
        f" {KEY_VARIABLE}",
    )
    parser.add_argument(
        "--origin",
        dest="origins",
        action="append",
        default=[],
        help="origin of another site whose pages may open sockets; can be given more than once",
    )
    _add_limits(parser)
    parser.set_defaults(refuse=parser.error)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keepalive",
        dest="keepalive_seconds",
        type=_seconds,
        default=KEEPALIVE_SECONDS,
        metavar="SECONDS",
        help="time between pings, and time allowed for the answer to a ping (default %(default)g)",
    )
    parser.add_argument(
        "--incoming-bytes",
        type=_whole_number(1),
        default=INCOMING_BYTES,
        metavar="BYTES",
        help="largest frame that a client may send (default %(default)d)",
    )
    parser.add_argument(
        "--runs-seconds",
        type=_seconds,
        metavar="SECONDS",
        help=f"how long active runs may continue after a signal (default {RUNS_TIMEOUT_SECONDS:g})",
    )
    parser.add_argument(
        "--drain-seconds",
        type=_seconds,
        metavar="SECONDS",
        help=f"how long clients may then take to read their waiting events (default {DRAIN_TIMEOUT_SECONDS:g})",
    )
    parser.add_argument(
        "--log-level", choices=LEVELS, default="warning", help="level of uvicorn's log (default warning)"
    )


def _whole_number(start: int, limit: int | None = None) -> Callable[[str], int]:
    """Return a parser for an argument that is a whole number in this range."""
    expected = f"a whole number from {start}" + ("" if limit is None else f" to {limit}")

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < start or (limit is not None and int(text) > limit):
            raise argparse.ArgumentTypeError(f"must be {expected}, not {text!r}")
        return int(text)

    return parse


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {text!r}")
    return seconds


def _filled(kind: type[T], options: argparse.Namespace) -> T:
    """Create a dataclass whose fields have the names of options."""
    return kind(**{field.name: getattr(options, field.name) for field in fields(kind)})  # type: ignore[arg-type]  # a dataclass


def run(options: argparse.Namespace) -> int:
    """Serve the application that the arguments name, and return the exit code.

    Raises ServeError if the application cannot be served.
    """
    if options.target is None:
        options.refuse(f"give MODULE:ATTRIBUTE, which names {EXPECTED}")
    if options.store and _has_password(options.store):
        raise ServeError(
            "--store",
            f"other users can read the password on the command line; give the URL in {STORE_VARIABLE} instead",
        )
    options.store = options.store or None
    spec, server = _filled(AppSpec, options), _filled(ServerOptions, options)
    origins(spec.origins)
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)  # as `python -m` does

    def print_address(served: ServedAt) -> None:
        print(_format_address(options, served), flush=True)

    return serve(spec, server, print_address, ends_process=True)


def _has_password(url: str) -> bool:
    with suppress(ValueError):  # the URL is not valid, which its store reports
        return bool(urlsplit(url).password)
    return False


def _format_address(options: argparse.Namespace, served: ServedAt) -> str:
    address = url(served.host, served.port)
    if not options.json:
        at = served.monitoring_port
        monitored = "" if at is None else f", /metrics and /healthz at {url(served.host, at).replace('ws', 'http', 1)}"
        return f"{options.target} is served at {address}{monitored}"
    process = {"address": address, "pid": os.getpid(), "workers": options.workers}
    return msgspec.json.encode(asdict(served) | process).decode()
