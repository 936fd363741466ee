"""Command-line options shared by several commands."""

from __future__ import annotations

import argparse
import reprlib
from typing import Final

from bridgekit_verify.variants import BROKEN, VARIANTS

__all__ = ["add_json", "add_variant", "at_least_1", "whole"]


MAX_DIGITS: Final = 19
"""Digits of the largest seed, 2**63. Python does not convert a text of thousands of digits."""


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print machine-readable JSON")


def add_variant(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed", type=whole, default=0, help="random seed; the same seed gives the same counts (default 0)"
    )
    names = ", ".join(repr(name) for name in (*VARIANTS, *(row.name for row in BROKEN.values())))
    parser.add_argument("--variant", default="sound", help=f"variant of the chain (default 'sound'): {names}")


def whole(text: str) -> int:
    """Parse a whole number of at least 0. Raises ArgumentTypeError."""
    if not text.isdecimal() or len(text) > MAX_DIGITS:
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least 0 and at most {MAX_DIGITS} digits, not {reprlib.repr(text)}"
        )
    return int(text)


def at_least_1(text: str) -> int:
    """Parse a whole number of at least 1. Raises ArgumentTypeError."""
    number = whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number
