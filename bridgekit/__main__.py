"""The command line: `bridgekit serve` of this package, and the commands of the verification suite.

A command is imported when it is used, so `serve` needs nothing of the suite. Each command's module has
`add_arguments(parser)` and `run(options)`, which returns the exit code.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NamedTuple

from bridgekit import __version__
from bridgekit.errors import BridgekitError, SuiteNotInstalled

EXIT_ERROR: Final = 2
EXIT_INTERRUPTED: Final = 130


class Command(NamedTuple):
    """Where a command is defined, and its line in `bridgekit --help`."""

    module: str
    help: str


COMMANDS: Final = {
    "report": Command(
        "bridgekit_verify.commands.report", "run every notebook and write one HTML file, a CSV and a JSON"
    ),
    "audit": Command(
        "bridgekit_verify.commands.audit", "try the nine links of a chain; exit 1 where one does not hold"
    ),
    "demo": Command("bridgekit_verify.commands.demo", "run one agent and show its events as they arrive at the client"),
    "serve": Command("bridgekit.serve.command", "serve an application of yours until a signal ends it"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 all well, 1 something does not hold, 2 it could not be done."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        options = _parse_arguments(words)
        code: int = options.run(options)
    except (BridgekitError, OSError, ModuleNotFoundError) as error:
        print(f"bridgekit: {_format_error(error)}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("bridgekit: stopped", file=sys.stderr)
        return EXIT_INTERRUPTED
    return code


def _parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Parse the words. Only the chosen command is imported: the others may need packages that are not installed."""
    parser = argparse.ArgumentParser(
        prog="bridgekit", description="Do the events of an AI agent reach the user who waits for them?"
    )
    parser.add_argument("--version", action="version", version=f"bridgekit {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar=" | ".join(COMMANDS))
    chosen = next((word for word in words if not word.startswith("-")), None)
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.help)
        if name == chosen:
            module = import_module(command.module)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser.parse_args(words)


def _format_error(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return str(SuiteNotInstalled(error.name or str(error)))
    if isinstance(error, TimeoutError):
        return "a measurement took too long and was stopped; the machine may be busy, or a link may hang"
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
