"""`bridgekit check`: judge recordings of any backend, or start a backend and check it."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final

import anyio

from bridgekit.errors import NotInstalled
from bridgekit_verify.check.baseline import Baseline, format_baseline, read_baseline
from bridgekit_verify.check.checking import check_recording
from bridgekit_verify.check.dialect_tables import load_table
from bridgekit_verify.check.dialects import BUILT_IN, StreamDialect, built_in
from bridgekit_verify.check.live.verdict import LiveVerdict, Subject
from bridgekit_verify.check.output import format_json, format_junit, format_text
from bridgekit_verify.check.recording_files import Limits
from bridgekit_verify.check.verdict import RecordingVerdict
from bridgekit_verify.commands.options import add_json, at_least_1, whole
from bridgekit_verify.errors import UnusableRecording

__all__ = ["add_arguments", "run"]

BROKEN: Final = 1
UNUSABLE: Final = 2
MAX_PROBLEMS: Final = 10
"""Limit on the problems of a load that are printed. The saved run contains all problems."""
SUBJECTS: Final = {Subject.NEVER_CALLED: 3, Subject.RETURNED_NOTHING: 4, Subject.ECHOED: 5}
"""The exit codes of live runs that cannot be judged."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Judge recordings of what clients received, or check a backend. Exit with 1 if the baseline does not accept a "
        "violation, or if one of its entries matches no violation. Exit with 2 if a file or backend is unusable. Exit "
        "with 3 if the backend never called the model, with 4 if no client received a part of the model's answers, and "
        "with 5 if clients received only their own prompts. Otherwise, exit with 0."
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="JSON Lines, HAR or server-sent events; - is stdin")
    add_json(parser)
    parser.add_argument(
        "--dialect",
        metavar="NAME|TOML",
        help=f"{', '.join(map(repr, BUILT_IN))}, or a file with a [dialect] table (default: detected)",
    )
    parser.add_argument("--junit", type=Path, metavar="XML", help="also write the answers as JUnit XML")
    parser.add_argument("--baseline", metavar="FILE", help="file of accepted violations; every entry must match one")
    parser.add_argument(
        "--write-baseline", type=Path, metavar="FILE", help="write the violations to this file, for use with --baseline"
    )
    parser.add_argument("--max-frames", type=at_least_1, help="stop after this many frames of each file or backend")
    parser.add_argument("--max-seconds", type=_seconds, help="time limit in seconds for each file, or for the load")
    _add_live(parser.add_argument_group("check a backend"))
    parser.set_defaults(refuse=parser.error)


def _add_live(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--backend", metavar="TOML", help="start and check the backend that this file describes")
    group.add_argument(
        "--scenario", action="append", default=[], metavar="NAME",
        help="text, thinking, calls, burst, retry, dies, cut, slow_reader, tabs, …; can be given more than once",
    )  # fmt: skip
    group.add_argument("--users", type=at_least_1, help="number of concurrent users (default 2)")
    group.add_argument("--threads", type=at_least_1, default=2, help="concurrent threads of each user (default 2)")
    group.add_argument("--runs", type=at_least_1, default=2, help="runs in each thread (default 2)")
    group.add_argument("--at-once", type=at_least_1, default=1, help="concurrent runs in each thread (default 1)")
    group.add_argument("--tabs", type=at_least_1, default=1, help="sockets of each thread (default 1)")
    group.add_argument("--seed", type=whole, default=0, help="random seed of the load (default 0)")
    group.add_argument("--out", metavar="FILE", help="save the run in a file that `bridgekit check FILE` reads")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {text!r}")
    return seconds


def run(options: argparse.Namespace) -> int:
    if bool(options.files) == bool(options.backend):
        options.refuse("give recordings, or --backend and the TOML file of a backend")
    if options.backend and options.dialect:
        options.refuse("--dialect is for recordings: state the dialect in the TOML file of the backend")
    baseline = read_baseline(options.baseline) if options.baseline else Baseline("")
    verdicts, unusable = list[RecordingVerdict](), list[str]()
    if options.backend:
        verdicts.append(_check_backend(options))
    dialect = _dialect(options.dialect)
    for path in options.files:
        try:
            limits = Limits(options.max_frames, options.max_seconds)
            verdicts.append(check_recording(path, dialect=dialect, limits=limits))
        except (UnusableRecording, OSError) as error:
            unusable.append(" ".join(str(error).split()))
            print(f"bridgekit: {unusable[-1]}", file=sys.stderr)
    _write(options, verdicts, baseline, unusable)
    if unusable:
        return UNUSABLE
    return _exit_code(verdicts, baseline)


def _exit_code(verdicts: list[RecordingVerdict], baseline: Baseline) -> int:
    """Return the exit code, and print the stale entries of the baseline."""
    stale = baseline.stale(verdicts)
    for each in stale:
        print(f"bridgekit: {baseline.path}: no violation matches this entry, remove it: {each}", file=sys.stderr)
    for verdict in verdicts:
        if isinstance(verdict, LiveVerdict) and verdict.subject in SUBJECTS:
            return SUBJECTS[verdict.subject]
    return BROKEN if stale or any(map(baseline.fails, verdicts)) else 0


def _check_backend(options: argparse.Namespace) -> RecordingVerdict:
    """Check a backend, save the run, and print the problems of the load."""
    live = _import_live()
    backend = live.load_backend(options.backend)
    load = live.Load(
        options.users or min(2, len(backend.users) or 2), options.threads, options.runs, options.at_once, options.tabs
    )
    driven = anyio.run(
        partial(
            live.drive_backend, backend, load, scenarios=tuple(options.scenario), seed=options.seed,
            max_seconds=options.max_seconds, max_frames=options.max_frames,
        )
    )  # fmt: skip
    problems = list(dict.fromkeys(driven.problems))
    for problem in problems[:MAX_PROBLEMS]:
        print(f"bridgekit: {problem}", file=sys.stderr)
    if len(problems) > MAX_PROBLEMS:
        print(f"bridgekit: and {len(problems) - MAX_PROBLEMS} more problems", file=sys.stderr)
    if options.out:
        driven.save(options.out)
    verdict: RecordingVerdict = driven.judge().verdict
    return verdict


def _import_live() -> ModuleType:
    """Import the live checks, which need the packages of the extra `check`."""
    try:
        return import_module("bridgekit_verify.check.live.backend_check")
    except ModuleNotFoundError as error:
        if error.name not in ("httpx", "httpx_sse"):
            raise
        raise NotInstalled("bridgekit check --backend", "httpx-sse>=0.4,<1") from error


def _write(
    options: argparse.Namespace, verdicts: list[RecordingVerdict], baseline: Baseline, unusable: list[str]
) -> None:
    if options.json:
        print(format_json(verdicts, baseline, unusable))
    elif verdicts:
        print("\n\n".join(format_text(each, baseline) for each in verdicts))
    if options.junit:
        options.junit.write_text(format_junit(verdicts, baseline), encoding="utf-8")
    if options.write_baseline:
        options.write_baseline.write_text(format_baseline(verdicts), encoding="utf-8", errors="replace")


def _dialect(name: str | None) -> StreamDialect | None:
    if name is None:
        return None
    if (known := built_in(name)) is not None:
        return known
    if not Path(name).is_file():
        raise UnusableRecording(name, f"is neither a file nor a dialect; known: {', '.join(BUILT_IN)}")
    return load_table(name)
