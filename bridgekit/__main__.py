"""The command line of bridgekit: the command `serve`, and the commands of the verification suite.

Only the chosen command's module is imported, so `serve` works without the verification suite. Each command's module
defines `add_arguments(parser)` and `run(options)`, which returns the exit code.
"""

from __future__ import annotations

import argparse
import codecs
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from types import FrameType
from typing import Final, NamedTuple

from bridgekit import __version__
from bridgekit.errors import BridgekitError, SuiteNotInstalled, unwrap_single_error

EXIT_ERROR: Final = 2
EXIT_INTERRUPTED: Final = 130
STOPPING_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP) if sys.platform != "win32" else ()
EXIT_OUTPUT_CLOSED: Final = 141
"""The exit code that a shell reports for a program that SIGPIPE ended."""


ESCAPE: Final = "bridgekit.escape"
"""The name of the error handler for characters that a terminal's encoding cannot represent."""


class Command(NamedTuple):
    """The module that defines a command, and the command's line in `bridgekit --help`."""

    module: str
    help: str


COMMANDS: Final = {
    "report": Command(
        "bridgekit_verify.commands.report", "run every notebook and write an HTML, a CSV and a JSON file"
    ),
    "audit": Command(
        "bridgekit_verify.commands.audit", "test the nine links of a chain; exit with 1 if a link does not hold"
    ),
    "demo": Command("bridgekit_verify.commands.demo", "run one agent and print its events as the client receives them"),
    "check": Command(
        "bridgekit_verify.commands.check",
        "judge recordings of any backend, or a running one; exit with 1 if one is broken",
    ),
    "learn": Command("bridgekit_verify.commands.learn", "draft a dialect table for `check` from a recording"),
    "serve": Command("bridgekit.serve.command", "serve your application until a signal stops it"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    The exit code is 0 if every check passed, 1 if a check failed, and 2 if the command could not run. The exit code is
    3 to 5 if `bridgekit check` could not judge the backend, 130 if the user or a signal interrupted the command, and
    141 if the reader of the output, such as `head`, has ended.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # The caller closed the stream. No socket may get the stream's descriptor.
            null = os.open(os.devnull, os.O_WRONLY)
            os.set_inheritable(null, True)  # for workers
            setattr(sys, name, os.fdopen(null, "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=ESCAPE)
    given = sys.argv[1:] if arguments is None else arguments
    try:
        try:
            with _stopped_by_signals(given):
                options = _parse_arguments(given)
                with unwrap_single_error():
                    code: int = options.run(options)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        return EXIT_OUTPUT_CLOSED
    except (BridgekitError, OSError, ModuleNotFoundError) as error:
        _print_error(_format_error(error))
        return EXIT_ERROR
    except KeyboardInterrupt:
        _print_error("stopped")
        return EXIT_INTERRUPTED
    finally:
        _discard_unwritable()
    return code


@contextmanager
def _stopped_by_signals(arguments: Sequence[str]) -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does, unless they are ignored or handled.

    The command `serve` handles signals itself.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        interrupt = signal.getsignal(signal.SIGINT)  # asyncio's handler, while an event loop runs
        if not callable(interrupt):
            raise KeyboardInterrupt
        interrupt(number, frame)

    handled = [each for each in STOPPING_SIGNALS if signal.getsignal(each) is signal.SIG_DFL]
    if _command_of(arguments) == "serve" or threading.current_thread() is not threading.main_thread():
        handled = []
    try:
        for each in handled:
            signal.signal(each, stop)
        yield
    finally:
        for each in handled:
            signal.signal(each, signal.SIG_DFL)


@contextmanager
def _deferred_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt at the end of the block if a signal to stop arrived in it.

    An exception while a compiled package is imported can crash the interpreter.
    """
    received: list[int] = []
    numbers = (signal.SIGINT, *STOPPING_SIGNALS)
    if threading.current_thread() is not threading.main_thread():
        numbers = ()
    before = {each: handler for each in numbers if callable(handler := signal.getsignal(each))}
    try:
        for each in before:
            signal.signal(each, lambda number, frame: received.append(number))
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    if received:
        raise KeyboardInterrupt


def _discard_unwritable() -> None:
    """Discard buffered output that cannot be written, because the interpreter would exit with 120 or a traceback."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _print_error(problem: str) -> None:
    with suppress(OSError):  # the disk to which stderr is redirected may be full
        print(f"bridgekit: {problem}", file=sys.stderr)


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Return the JSON escapes of the characters that the output's encoding cannot represent."""
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[index : index + 2].hex()}" for index in range(0, len(units), 2)), error.end


codecs.register_error(ESCAPE, _escape)


def _parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line.

    Import only the chosen command, because the other commands may need packages that are not installed.
    """
    parser = argparse.ArgumentParser(
        prog="bridgekit",
        description="Deliver an AI agent's events to the user who is waiting for them, and check that they arrive.",
    )
    parser.add_argument("--version", action="version", version=f"bridgekit {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar=" | ".join(COMMANDS))
    chosen = _command_of(arguments)
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.help)
        if name == chosen:
            with _deferred_signals():
                module = import_module(command.module)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser.parse_args(arguments)


def _command_of(arguments: Sequence[str]) -> str | None:
    return next((argument for argument in arguments if not argument.startswith("-")), None)


def _format_error(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return str(SuiteNotInstalled(error.name or str(error)))
    if isinstance(error, TimeoutError):
        return "a measurement timed out and was stopped; the machine may be busy, or a link may hang"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
        return "the disk of the output is full; make room, or write the output elsewhere"
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
