"""`bridgekit learn`: draft a dialect table from a recording."""

from __future__ import annotations

import argparse
from pathlib import Path

from bridgekit_verify.check.learning import draft_table
from bridgekit_verify.check.recording_files import Limits, open_recording
from bridgekit_verify.commands.options import at_least_1

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Draft a [dialect] table from a recording. Review every line, and pass it to check --dialect."
    parser.add_argument("file", metavar="FILE", help="recording in JSON Lines, HAR or server-sent events")
    parser.add_argument("--out", type=Path, metavar="TOML", help="write the table to this file, not to standard output")
    parser.add_argument(
        "--max-frames", type=at_least_1, default=20_000, help="read at most this many frames (default 20,000)"
    )


def run(options: argparse.Namespace) -> int:
    with open_recording(options.file, reads_text=True, limits=Limits(options.max_frames)) as recording:
        table = draft_table(options.file, recording.messages)
    if options.out:
        options.out.write_text(table, encoding="utf-8", errors="replace")
    else:
        print(table, end="")
    return 0
