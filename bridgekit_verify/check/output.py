"""Formats verdicts as text, as JSON, and as JUnit XML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from xml.etree import ElementTree

import msgspec

from bridgekit_verify.check.baseline import Baseline
from bridgekit_verify.check.property_answers import PropertyAnswer, State
from bridgekit_verify.check.verdict import RecordingVerdict

__all__ = ["format_json", "format_junit", "format_text"]

SHOWN_VIOLATIONS: Final = 10
CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that XML cannot contain, or that control a terminal, except tab, line feed and carriage return."""


def format_text(verdict: RecordingVerdict, baseline: Baseline) -> str:
    """Return a heading, and then one line for each property. A property's first violations follow its line."""
    return "\n".join(_clean(line) for line in _lines(verdict, baseline))


def _lines(verdict: RecordingVerdict, baseline: Baseline) -> Iterator[str]:
    source = "" if verdict.dialect_source == "built in" else f" ({verdict.dialect_source})"
    counts = ((verdict.messages, "message"), (verdict.clients, "client"), (verdict.runs, "run"))
    held = ", ".join(_count(number, noun) for number, noun in counts)
    stopped = "" if verdict.complete else "; a limit ended the reading"
    yield f"{verdict.path}: {verdict.container}, dialect {verdict.dialect}{source}, {held}{stopped}"
    yield from (f"  {each}" for each in verdict.remarks)
    for answer in verdict.answers:
        yield f"  {answer.property:<18} {_state(verdict, answer, baseline)}"
        for each in answer.violations[:SHOWN_VIOLATIONS]:
            frames = ", ".join(str(frame.index) for frame in each.frames)
            yield f"      {each.message} [{f'frames {frames}; ' if frames else ''}{each.source}]"
            yield from (f"        {frame.index}: {frame.excerpt}" for frame in each.frames if frame.excerpt)
        if answer.count > SHOWN_VIOLATIONS:
            yield f"      and {answer.count - SHOWN_VIOLATIONS} more"


def _state(verdict: RecordingVerdict, answer: PropertyAnswer, baseline: Baseline) -> str:
    if answer.state is State.HOLDS:
        return f"holds: {answer.source}"
    if answer.state is State.UNKNOWN:
        return f"unknown because {answer.reason}"
    accepted = " (accepted by the baseline)" if baseline.accepts(verdict, answer) else ""
    return f"broken: {_count(answer.count, 'violation')}{accepted}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _clean(text: str) -> str:
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\n", " "))


def format_json(verdicts: Sequence[RecordingVerdict], baseline: Baseline, failed: Iterable[str]) -> str:
    """Return a JSON object: the verdicts, the baseline's entries, its stale entries, and the unusable files' errors."""
    found = {
        "recordings": verdicts,
        "stale": baseline.stale(verdicts),
        "accepted": sorted(baseline.keys),
        "unusable": list(failed),
    }
    # Ids and excerpts may contain half of a surrogate pair, which UTF-8 cannot encode.
    return msgspec.json.encode(_encodable(msgspec.to_builtins(found))).decode()


def _encodable(value: object) -> object:
    if isinstance(value, dict):
        return {name: _encodable(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(each) for each in value]
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def format_junit(verdicts: Sequence[RecordingVerdict], baseline: Baseline) -> str:
    """Return JUnit XML: a suite for each recording, and in each suite a test case for each property.

    An unknown answer, or a broken answer that the baseline accepts, becomes a skipped test. Stale entries of the
    baseline are failures in a suite of their own.
    """
    root = ElementTree.Element("testsuites", name="bridgekit check")
    for verdict in verdicts:
        suite = ElementTree.SubElement(root, "testsuite", name=_clean(verdict.path), tests=str(len(verdict.answers)))
        counts = {"failures": 0, "errors": 0, "skipped": 0}
        for answer in verdict.answers:
            case = ElementTree.SubElement(suite, "testcase", classname=_clean(verdict.path), name=answer.property)
            if answer.state is State.UNKNOWN or (answer.state is State.BROKEN and baseline.accepts(verdict, answer)):
                counts["skipped"] += 1
                ElementTree.SubElement(case, "skipped", message=_clean(_state(verdict, answer, baseline)))
            elif answer.state is State.BROKEN:
                counts["failures"] += 1
                failure = ElementTree.SubElement(case, "failure", message=_clean(answer.violations[0].message))
                failure.text = "\n".join(_clean(each.message) for each in answer.violations)
        for name, count in counts.items():
            suite.set(name, str(count))
    _add_stale(root, baseline.stale(verdicts))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _add_stale(root: ElementTree.Element, stale: Sequence[str]) -> None:
    if not stale:
        return
    count = str(len(stale))
    suite = ElementTree.SubElement(root, "testsuite", name="baseline", tests=count, failures=count)
    for each in stale:
        case = ElementTree.SubElement(suite, "testcase", classname="baseline", name=_clean(each))
        ElementTree.SubElement(case, "failure", message="no violation matches this entry: remove it")
