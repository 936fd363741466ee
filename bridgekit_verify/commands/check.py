"""`bridgekit check`: judge recordings of any backend."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bridgekit_verify.check.baseline import Baseline, format_baseline, read_baseline
from bridgekit_verify.check.checking import check_recording
from bridgekit_verify.check.concluding import RecordingVerdict
from bridgekit_verify.check.containers import Limits
from bridgekit_verify.check.dialects import BUILT_IN, StreamDialect, load_table
from bridgekit_verify.check.output import format_json, format_junit, format_text
from bridgekit_verify.commands.options import add_json, at_least_1
from bridgekit_verify.errors import UnusableRecording

__all__ = ["add_arguments", "run"]

BROKEN = 1
UNUSABLE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Judge recordings of what clients received. Exit with 0 if nothing is broken, with 1 if a property is broken, "
        "or an entry of the baseline is stale, and with 2 if a file is unusable."
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="JSON Lines, HAR or server-sent events; - is stdin")
    add_json(parser)
    parser.add_argument(
        "--dialect",
        metavar="NAME|TOML",
        help=f"{', '.join(map(repr, BUILT_IN))}, or a file with a [dialect] table (default: detected)",
    )
    parser.add_argument("--junit", type=Path, metavar="XML", help="also write the answers as JUnit XML")
    parser.add_argument("--baseline", metavar="FILE", help="accept the violations listed there; stale entries fail")
    parser.add_argument(
        "--write-baseline", type=Path, metavar="FILE", help="write the violations found, to accept them"
    )
    parser.add_argument("--max-frames", type=at_least_1, help="stop reading each file after this many frames")
    parser.add_argument("--max-seconds", type=_seconds, help="stop reading each file after this time")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {text!r}")
    return seconds


def run(options: argparse.Namespace) -> int:
    dialect = _dialect(options.dialect)
    baseline = read_baseline(options.baseline) if options.baseline else Baseline("")
    verdicts, unusable = list[RecordingVerdict](), list[str]()
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
    stale = baseline.stale(verdicts)
    for each in stale:
        print(f"bridgekit: {baseline.path}: no violation matches this entry, remove it: {each}", file=sys.stderr)
    return BROKEN if stale or any(map(baseline.fails, verdicts)) else 0


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
    known = {each.lower(): dialect for each, dialect in BUILT_IN.items()}
    if name.lower() in known:
        return known[name.lower()]
    if not Path(name).is_file():
        raise UnusableRecording(name, f"is neither a file nor a dialect; known: {', '.join(BUILT_IN)}")
    return load_table(name)
