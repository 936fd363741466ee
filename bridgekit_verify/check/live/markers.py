"""Canaries and markers, which identify the run that a text belongs to.

A prompt is `K1f3a9c2d~calls`: a canary and a scenario. A marker is `[K1f3a9c2d.2.t.7]`: canary, call of the model,
channel and number. The channels are `r` (thinking), `p` (text before calls), `t` (final text), and `a0`, `a1`…
(arguments of a call).
"""

from __future__ import annotations

import re
import secrets
from typing import Final, NamedTuple

__all__ = ["CANARY", "MARKER", "PROMPT", "Marker", "canaries_in", "markers_in", "new_canary", "prompt_text"]

CANARY: Final = re.compile(r"K[0-9a-f]{8}")
PROMPT: Final = re.compile(r"(?<![0-9A-Za-z])(K[0-9a-f]{8})~([a-z_]+)")
MARKER: Final = re.compile(r"\[(K[0-9a-f]{8})\.(\d{1,9})\.([a-z]\d{0,3})\.(\d{1,9})\]")
CANARY_LENGTH: Final = 9


class Marker(NamedTuple):
    """One numbered piece of one channel of one call of the model."""

    canary: str
    call: int
    channel: str
    number: int

    def __str__(self) -> str:
        return f"[{self.canary}.{self.call}.{self.channel}.{self.number}]"


def new_canary() -> str:
    return f"K{secrets.token_hex(4)}"


def prompt_text(canary: str, scenario: str) -> str:
    return f"{canary}~{scenario}"


def canaries_in(text: str) -> set[str]:
    """Return every canary in a text: those of prompts and those of markers."""
    return set(CANARY.findall(text))


def markers_in(text: str) -> list[Marker]:
    return [Marker(found[1], int(found[2]), found[3], int(found[4])) for found in MARKER.finditer(text)]
