"""The command line: `bridgekit report`, `bridgekit audit`, `bridgekit demo`, `bridgekit serve`."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import msgspec

from bridgekit import __version__
from bridgekit.errors import BridgekitError
from bridgekit.events import RoutedEvent
from bridgekit.measure.experiment import Measurement, measure
from bridgekit.measure.history import Socket
from bridgekit.measure.probing.probes import Answer, Probe, probe_all
from bridgekit.measure.workload import FAMILIES, Workload, family
from bridgekit.serve import command as serving
from bridgekit.variants import BROKEN, VARIANTS, variant

if TYPE_CHECKING:
    from bridgekit.report.building import BuiltReport

DOES_NOT_HOLD = 1
UNUSABLE = 2
SHOWN_CHARACTERS = 88
"""How much of a payload the demonstration shows."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and answer its exit code: 0 all well, 1 something does not hold, 2 it could not be done."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.command(options)
    except (BridgekitError, OSError, ModuleNotFoundError) as error:
        print(f"bridgekit: {_one_line(error)}", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        print("bridgekit: stopped", file=sys.stderr)
        return 130
    return code


def _one_line(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed; this command needs it: pip install 'bridgekit[notebooks]'"
    if isinstance(error, TimeoutError):
        return "a measurement took too long and was stopped; the machine may be busy, or a link may hang"
    return " ".join(str(error).split()) or type(error).__name__


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bridgekit", description="Do the events of an AI agent reach the user who waits for them?"
    )
    parser.add_argument("--version", action="version", version=f"bridgekit {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="report | audit | demo | serve")
    _add_report(commands.add_parser("report", help="run every notebook and write one HTML file, a CSV and a JSON"))
    _add_audit(commands.add_parser("audit", help="try the nine links of a chain; exit 1 where one does not hold"))
    _add_demo(commands.add_parser("demo", help="run one agent and show its events as they arrive at the client"))
    _add_serve(commands.add_parser("serve", help="serve an application of yours until a signal ends it"))
    return parser


def _add_common(parser: argparse.ArgumentParser, *, chain: bool = True) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for a program to read")
    if chain:
        parser.add_argument("--seed", type=_whole, default=0, help="same seed, same counts (default 0)")
        names = ", ".join(repr(name) for name in (*VARIANTS, *(row.name for row in BROKEN.values())))
        parser.add_argument("--variant", default="sound", help=f"which chain, default 'sound': {names}")


def _whole(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, not {text!r}")
    return int(text)


def _at_least_1(text: str) -> int:
    """A whole number from 1."""
    number = _whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.description = "Execute every notebook over real sockets and tell what they found in one HTML file."
    _add_common(parser, chain=False)
    parser.add_argument("--notebooks", type=Path, default=Path("notebooks"), help="folder of notebooks")
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder to write to (default report)")
    parser.add_argument("--jobs", type=_at_least_1, default=2, help="notebooks at a time (default 2)")
    parser.add_argument("--seed", type=_whole, help="the notebooks' SEED, default as committed")
    parser.add_argument("--threads", type=_at_least_1, help="the notebooks' THREADS, default as committed")
    parser.add_argument("--runs", type=_at_least_1, help="the notebooks' RUNS, default as committed")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any other parameter of the notebooks"
    )
    parser.add_argument("--from-executed", type=Path, metavar="DIR", help="tell notebooks that were executed already")
    parser.set_defaults(command=_report)


def _report(options: argparse.Namespace) -> int:
    from bridgekit.report.building import build_from_executed, build_report  # here: it brings jupyter along
    from bridgekit.report.parameters import parse_settings

    if options.from_executed:
        built = build_from_executed(options.from_executed, options.out)
    else:
        names = {"SEED": options.seed, "THREADS": options.threads, "RUNS": options.runs}
        built = build_report(
            options.notebooks,
            options.out,
            jobs=options.jobs,
            parameters={name: value for name, value in names.items() if value is not None}
            | parse_settings(options.set),
            say=lambda line: print(line, file=sys.stderr if options.json else sys.stdout, flush=True),
        )
    print(_built_json(built) if options.json else _built_text(built))
    return 0 if built.complete else DOES_NOT_HOLD


def _built_json(built: BuiltReport) -> str:
    return msgspec.json.encode(
        {
            "complete": built.complete,
            "page": str(built.page),
            "csv": str(built.csv),
            "json": str(built.json),
            "headline": built.headline,
            "failures": built.failures,
        }
    ).decode()


def _built_text(built: BuiltReport) -> str:
    files = "\n".join(f"  {path}" for path in (built.page, built.csv, built.json))
    failures = "".join(f"\nfailed: {failure}" for failure in built.failures)
    return "\n".join(("", *built.headline, "", "report:", files)) + failures


def _add_audit(parser: argparse.ArgumentParser) -> None:
    parser.description = "Try the nine links of a chain over a real server. Exit 1 where one does not hold."
    _add_common(parser)
    parser.add_argument("--threads", type=_at_least_1, default=3, help="threads a family of ids for link 9 (default 3)")
    parser.set_defaults(command=_audit)


def _audit(options: argparse.Namespace) -> int:
    chain = variant(options.variant)
    probes = anyio.run(_probed, chain.name, options.seed, options.threads)
    print(_probes_json(chain.name, probes) if options.json else _probes_text(chain.name, chain.summary, probes))
    return 0 if all(probe.answer is Answer.HOLDS for probe in probes) else DOES_NOT_HOLD


async def _probed(name: str, seed: int, threads: int) -> list[Probe]:
    return await probe_all(variant(name), seed=seed, threads=threads)


def _probes_json(name: str, probes: Sequence[Probe]) -> str:
    rows = [
        {
            "link": probe.link.number,
            "name": probe.link.name,
            "reported": probe.link.reported,
            "answer": probe.answer,
            "evidence": probe.evidence,
        }
        for probe in probes
    ]
    return msgspec.json.encode({"variant": name, "probes": rows}).decode()


def _probes_text(name: str, summary: str, probes: Sequence[Probe]) -> str:
    lines = [f"{name}: {summary}", ""]
    for probe in probes:
        lines.append(f"{probe.link.number}  {probe.link.name:<28}  {probe.answer}")
        lines += textwrap.wrap(probe.evidence, 92, initial_indent="   ", subsequent_indent="   ")
    holding = sum(probe.answer is Answer.HOLDS for probe in probes)
    return "\n".join((*lines, "", f"{holding} of {len(probes)} links hold"))


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.description = "Run one agent for one user and show its events as they arrive at the user's socket."
    _add_common(parser)
    parser.add_argument("--family", default="thread_123", help=f"kind of thread id: {', '.join(map(repr, FAMILIES))}")
    parser.add_argument("--steps", type=_at_least_1, default=1, help="steps the agent takes, three events each")
    parser.set_defaults(command=_demo)


def _demo(options: argparse.Namespace) -> int:
    workload = Workload(threads=family(options.family, 1, seed=options.seed), steps=options.steps)
    measurement = anyio.run(_shown, variant(options.variant).name, workload, options.seed, options.json)
    verdict = measurement.verdict
    if not options.json:
        print(f"\n{verdict.delivered} of {verdict.expected} events reached their user")
        for charge, count in verdict.losses.items():
            print(f"{count} lost at link {charge.link}: {charge.reason}")
    return 0 if verdict.delivered == verdict.expected else DOES_NOT_HOLD


async def _shown(name: str, workload: Workload, seed: int, as_json: bool) -> Measurement:
    def show(socket: Socket, event: RoutedEvent) -> None:
        print(msgspec.json.encode(event).decode() if as_json else _said(socket, event), flush=True)

    return await measure(variant(name), workload, seed=seed, watch=show)


def _said(socket: Socket, event: RoutedEvent) -> str:
    what = msgspec.json.encode(event.payload).decode()
    what = what if len(what) <= SHOWN_CHARACTERS else f"{what[:SHOWN_CHARACTERS]}…"
    return f"{event.timestamp:%H:%M:%S.%f}  {socket.user_id} reads #{event.seq} {event.type:<15}  {what}"


def _add_serve(parser: argparse.ArgumentParser) -> None:
    serving.add_arguments(parser)
    parser.set_defaults(command=partial(serving.run, say=partial(print, flush=True)))


if __name__ == "__main__":
    sys.exit(main())
