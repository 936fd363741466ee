"""Check example backends that are not built with bridgekit, and judge recordings of other backends."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import pandas as pd

from bridgekit.errors import UnknownName
from bridgekit_verify.check.checking import check_recording
from bridgekit_verify.check.dialect_tables import detect
from bridgekit_verify.check.judge import Judge
from bridgekit_verify.check.live.backend_check import check_backend
from bridgekit_verify.check.live.backend_file import Backend, load_backend
from bridgekit_verify.check.live.saved_run import LiveRun, dialect_of, numbered
from bridgekit_verify.check.live.scenarios import Load
from bridgekit_verify.check.property_answers import Property, PropertyAnswer, State
from bridgekit_verify.check.verdict import RecordingVerdict, conclude
from bridgekit_verify.errors import InvalidParameter

__all__ = [
    "EXAMPLES",
    "BackendStudy",
    "CheckedSubject",
    "TrueDefect",
    "broken_properties",
    "check_example",
    "check_known_recording",
    "example_backend",
    "read_truth",
    "study_backends",
    "verdict_of_frames",
]

EXAMPLES: Final = Path(__file__).resolve().parents[2] / "examples"
SOUND: Final = "sound"
RUNS_DEFECTS: Final = "{python} -m uvicorn defects:app --port {port} --log-level warning"


class TrueDefect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A defect of an example backend, with its known effects."""

    scenarios: tuple[str, ...]
    """The scenarios in which the defect shows."""
    broken: frozenset[Property]
    """The properties that the defect breaks, directly or as a consequence. No other property is broken."""


KNOWN_RECORDINGS: Final[Mapping[str, frozenset[Property]]] = {
    "lg_atomic": frozenset({Property.ARGUMENTS, Property.SNAPSHOT}),
    "lg_streamed": frozenset(),
    "good": frozenset(),
}
"""The broken properties of each recording. In `lg_atomic`, ag-ui-langgraph lost the arguments of two tool calls."""


@dataclass(frozen=True)
class CheckedSubject:
    """A backend or recording, with its verdict and its known broken properties."""

    name: str
    expected: frozenset[Property]
    """The properties that are known to be broken."""
    verdict: RecordingVerdict

    @property
    def is_exact(self) -> bool:
        """Whether exactly the expected properties are broken.

        If no property is expected to be broken, at least one property must hold.
        """
        holds = any(answer.state is State.HOLDS for answer in self.verdict.answers)
        return broken_properties(self.verdict) == self.expected and (holds or bool(self.expected))


@dataclass(frozen=True)
class BackendStudy:
    """The verdicts on several backends and recordings."""

    subjects: Sequence[CheckedSubject]

    @property
    def inexact(self) -> list[str]:
        """The names of the backends and recordings whose broken properties are not exactly the expected ones."""
        return [each.name for each in self.subjects if not each.is_exact]

    def table(self) -> pd.DataFrame:
        """Return one row for each property, and one column for each subject."""
        columns = {each.name: [answer.state.value for answer in each.verdict.answers] for each in self.subjects}
        return pd.DataFrame({"property": [each.value for each in Property]} | columns)

    def evidence(self) -> pd.DataFrame:
        """Return one row per broken property: the number of violations, and the first violation with up to two
        frames."""
        return pd.DataFrame(
            _evidence(each.name, answer)
            for each in self.subjects
            for answer in each.verdict.answers
            if answer.state is State.BROKEN
        )


def _evidence(subject: str, answer: PropertyAnswer) -> dict[str, object]:
    first = answer.violations[0]
    frames = ", ".join(f"{frame.client} {frame.index}" for frame in first.frames[:2])
    return {
        "subject": subject,
        "property": answer.property.value,
        "violations": answer.count,
        "the first one": first.message,
        "frames": frames or "none",
    }


def broken_properties(verdict: RecordingVerdict) -> frozenset[Property]:
    """Return the properties that are broken according to a verdict."""
    return frozenset(answer.property for answer in verdict.answers if answer.state is State.BROKEN)


def read_truth(name: str) -> dict[str, TrueDefect]:
    """Return the defects of an example backend by name, with the properties that each defect breaks."""
    known = sorted(path.parent.name for path in EXAMPLES.glob("*/truth.toml"))
    if name not in known:
        raise UnknownName("example backend", name, tuple(known))
    text = (EXAMPLES / name / "truth.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, TrueDefect])


def example_backend(name: str, defect: str = SOUND) -> Backend:
    """Return an example backend without defects, or with the named defect."""
    backend = load_backend(str(EXAMPLES / name / "backend.toml"))
    return backend if defect == SOUND else backend.with_command(RUNS_DEFECTS).with_env(DEFECT=defect)


def verdict_of_frames(run: LiveRun) -> RecordingVerdict:
    """Judge a live run only by the frames that its clients received, as if they were a recording."""
    dialect = dialect_of(run.dialect, "") or detect("", run.messages)
    judge = Judge(dialect)
    judge.feed(numbered(run.messages))
    return conclude(judge)


async def check_example(
    name: str, defect: str, *, load: Load, scenarios: Sequence[str] = (), seed: int
) -> CheckedSubject:
    """Check a sound example backend in `scenarios`, or a defective one in the scenarios that show the defect."""
    truth = read_truth(name)
    if defect != SOUND and defect not in truth:
        raise InvalidParameter("defect", defect, f"one of {', '.join([SOUND, *truth])}")
    if defect != SOUND and min(load.users, load.threads) < 2:
        raise InvalidParameter(
            "load",
            f"{load.users} x {load.threads}",
            "at least 2 users with 2 threads each, because some defects mix up users or threads",
        )
    known = truth.get(defect, TrueDefect(tuple(scenarios), frozenset()))
    result = await check_backend(example_backend(name, defect), load, scenarios=known.scenarios, seed=seed)
    return CheckedSubject(f"{name}, {defect}", known.broken, result.verdict)


def check_known_recording(name: str) -> CheckedSubject:
    """Judge a recording from the folder `recordings` of the example backends."""
    if name not in KNOWN_RECORDINGS:
        raise InvalidParameter("recording", name, f"one of {', '.join(KNOWN_RECORDINGS)}")
    verdict = check_recording(str(EXAMPLES / "recordings" / f"{name}.jsonl"))
    return CheckedSubject(name, KNOWN_RECORDINGS[name], verdict)


async def study_backends(
    defects: Mapping[str, Sequence[str]],
    *,
    load: Load,
    scenarios: Sequence[str],
    recordings: Sequence[str] = (),
    seed: int,
) -> BackendStudy:
    """Check each example backend without a defect and with each given defect, and judge the recordings."""
    subjects = [
        await check_example(name, defect, load=load, scenarios=scenarios, seed=seed)
        for name, chosen in defects.items()
        for defect in (SOUND, *chosen)
    ]
    return BackendStudy([*subjects, *map(check_known_recording, recordings)])
