"""Reads the explanations of missed targets from `missed_target_reasons.toml`: reason, profile and tried changes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

__all__ = ["TABLE", "Explanation", "Try", "explanations"]

TABLE: Final = Path(__file__).with_name("missed_target_reasons.toml")


class Try(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A code change, measured in the same run as the unchanged code, in alternating rounds."""

    change: str
    measured: str
    kept: str
    """The text that states whether the change was kept, and why."""


class Explanation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why some targets are hard to meet. The page shows an explanation if the last results miss at least one of its
    targets."""

    targets: tuple[str, ...]
    """The targets, by the names in `TargetResult.measured`."""
    reason: str
    profile: str
    tries: tuple[Try, ...]


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    explanation: tuple[Explanation, ...]


def explanations(path: Path = TABLE) -> tuple[Explanation, ...]:
    """Read the table. Raises msgspec.ValidationError if the file has another structure."""
    return msgspec.toml.decode(path.read_bytes(), type=_Table).explanation
