"""Reads and writes a baseline: a file with the keys of the violations that a project accepts, one key per line.

A line that begins with `#` is a comment.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bridgekit_verify.check.property_answers import PropertyAnswer, RecordedViolation, State
from bridgekit_verify.check.verdict import RecordingVerdict
from bridgekit_verify.errors import UnusableRecording

__all__ = ["Baseline", "baseline_key", "format_baseline", "read_baseline"]


def baseline_key(verdict: RecordingVerdict, violation: RecordedViolation) -> str:
    """Return a violation's line in a baseline. The line names the recording's file without its folder."""
    return " ".join(f"{Path(verdict.path).name}: {violation.key}".split())


@dataclass(frozen=True)
class Baseline:
    """The accepted violations."""

    path: str
    keys: frozenset[str] = frozenset()

    def accepts(self, verdict: RecordingVerdict, answer: PropertyAnswer) -> bool:
        """Return whether the baseline accepts every violation in an answer.

        Return False if the answer does not list all of its violations.
        """
        return answer.count == len(answer.violations) and all(
            baseline_key(verdict, each) in self.keys for each in answer.violations
        )

    def stale(self, verdicts: Iterable[RecordingVerdict]) -> list[str]:
        """Return the baseline's entries that match no violation."""
        return sorted(self.keys - _keys_of(verdicts))

    def fails(self, verdict: RecordingVerdict) -> bool:
        """Return whether the recording has violations that the baseline does not accept."""
        return any(answer.state is State.BROKEN and not self.accepts(verdict, answer) for answer in verdict.answers)


def read_baseline(path: str) -> Baseline:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UnusableRecording(path, "is not a baseline: it is not text in UTF-8") from error
    return Baseline(path, frozenset(line.strip() for line in lines if line.strip() and not line.startswith("#")))


def format_baseline(verdicts: Iterable[RecordingVerdict]) -> str:
    lines = "".join(f"{key}\n" for key in sorted(_keys_of(verdicts)))
    return "# violations that `bridgekit check --baseline` accepts\n" + lines


def _keys_of(verdicts: Iterable[RecordingVerdict]) -> set[str]:
    return {
        baseline_key(verdict, each) for verdict in verdicts for answer in verdict.answers for each in answer.violations
    }
