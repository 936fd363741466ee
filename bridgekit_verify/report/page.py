"""Renders a Report as index.html, a file without scripts or external resources that can be opened from an email."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, NamedTuple

from jinja2 import Environment as Templates
from jinja2 import PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from bridgekit_verify.measure.statistics import Rate
from bridgekit_verify.measure.wording import listed
from bridgekit_verify.report.drop_chart import chart, unchanged
from bridgekit_verify.report.drop_tables import DropTables, read_drop_tables
from bridgekit_verify.report.findings import (
    AUDIT_RIGHT,
    CONTRADICTS,
    HOLDS,
    WORKS,
    Finding,
    answers,
    basis_text,
    cell_text,
    numeric_columns,
)
from bridgekit_verify.report.glossary import TERMS
from bridgekit_verify.report.grouped_findings import (
    AUDITED_LINKS,
    MISSED,
    WHOLE_CHAIN,
    LinkStatus,
    all_findings,
    claim_groups,
    headline,
    link_statuses,
    other_findings,
    sections,
    smallest_sample,
    startup_note,
    tables_of_claims,
    timed_findings,
)
from bridgekit_verify.report.markup import code_html, markdown_html, output_html, printed_text
from bridgekit_verify.report.report_data import Figure, Report
from bridgekit_verify.report.result_files import count_measurements, csv_columns, results_csv, results_json
from bridgekit_verify.report.summary import actions, order_note, risks, routing_note, scope

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
MATRIX: Final = "matrix"
"""Name of the table with a cell "k of n" for each fix and kind of thread id."""
FAULT_NAMES: Final = "faults"
"""Name of the table that explains each fault."""

_ICONS: Final = {
    "yes": "works",
    "as worded, but insufficient": "partly",
    "no": "fails",
    "not examined": "none",
    "works": "works",
    "fails": "fails",
    "holds": "works",
    "does not hold": "fails",
    "unknown": "unknown",
}
"""The icon of each answer. Every icon has its own shape, so that no information depends on colour."""

QUESTIONS: Final = {
    "link": (AUDIT_RIGHT, WORKS),
    "claim": (AUDIT_RIGHT,),
    "missed": (CONTRADICTS,),
    "ours": (HOLDS,),
}
"""For each kind of row, the questions whose answers are shown in the row's columns."""

PART_TWO: Final = {
    "Faults": "Networks, processes and servers fail in production. This section shows how each failure affects the"
    " user: which events are lost or late, and whether the server informs the user. Read this section before you choose"
    " how the server stores events and how clients resume.",
    "Scale": "A bridge that works for eight users may fail for eight thousand. This section shows how many events,"
    " sockets and threads one process carries, and when to add another process. Read this section before you size a"
    " deployment.",
    "Validation": "A measurement that cannot fail proves nothing. This section tests the measurements themselves."
    " The checker must report each known error under its correct name, and each measured rate must agree with a rate"
    " that is known in advance.",
    "Backends": "bridgekit check tests requirements of a backend that is not built with bridgekit: for example, no"
    " event is lost, and each event reaches the right user. Each requirement is called a property. This section checks"
    " two small example backends, without and with known defects, and recordings of a published backend. Read this"
    " section before you check your own backend.",
}
"""The introduction of each section for engineers, which states why a reader needs the section."""

_COUNTS = re.compile(r"([\d,]+) of ([\d,]+)")
_CODE = re.compile(r"`([^`]+)`")
_NEW_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")
_LONG_WORD = re.compile(r"\S{30,}")
_AFTER_SEPARATOR = re.compile(r"(?<=[/_])")


class ShownAnswer(NamedTuple):
    """One answer of a finding or link, as the page shows it."""

    question: str
    answer: str
    icon: str


def index_html(report: Report) -> str:
    """Render the complete page. Raises MalformedTable if a table of notebook 10 cannot be used."""
    return _templates().get_template("index.html.j2").render(_content(report, read_drop_tables(report)))


@cache
def _templates() -> Templates:
    templates = Templates(
        loader=PackageLoader("bridgekit_verify.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "ansi": printed_text,
        "basis": basis_text,
        "breakable": _breakable,
        "cell": _cell_html,
        "code": code_html,
        "counts": lambda rate: rate.counts,
        "day": _day,
        "html": output_html,
        "level": _css_percent,
        "listed": listed,
        "numeric": numeric_columns,
        "markdown": markdown_html,
        "marks": _marks,
        "outcome": _outcome,
        "prose": _prose,
        "rate": Rate.of,
        "seconds": _seconds,
        "together": _together,
        "unchanged": unchanged,
    }
    return templates


def _content(report: Report, tables: DropTables) -> dict[str, Any]:
    """Return the variables of the templates."""
    links, chapters, others = link_statuses(report), sections(report), other_findings(report)
    return {
        "policy": CONTENT_SECURITY_POLICY,
        "report": report,
        "pages": [notebook.name for notebook in report.notebooks],
        "explanations": _fault_explanations(report),
        "environment": report.environment,
        "headline": headline(report),
        "questions": QUESTIONS,
        "chart": chart(tables),
        "risks": risks(tables),
        "actions": actions(tables),
        "order_note": order_note(tables),
        "startup_note": startup_note(links, tables),
        "routing_note": routing_note(tables, _lifecycle(report)),
        "scope": scope(tables),
        "links": links,
        "audited": [link for link in links if link.number in AUDITED_LINKS],
        "claims": claim_groups(report),
        "tables_of": tables_of_claims(report),
        "pictures": _pictures(report, tables),
        "matrix": report.table(MATRIX),
        "missed": chapters.get(MISSED, []),
        "part_two": {title: (why, chapters[title]) for title, why in PART_TWO.items() if title in chapters},
        "faults": report.table(FAULT_NAMES),
        "whole": [finding for finding in others if finding.id == WHOLE_CHAIN],
        "findings": [finding for finding in others if finding.id != WHOLE_CHAIN],
        "source": {key: notebook for key, (_, notebook) in all_findings(report).items()},
        "smallest": smallest_sample(report),
        "timed": timed_findings(report),
        "measurements": count_measurements(report),
        "terms": TERMS,
        "columns": csv_columns(report),
        "csv": _data_url("text/csv", results_csv(report)),
        "json": _data_url("application/json", results_json(report)),
    }


def _marks(subject: LinkStatus | Finding) -> tuple[ShownAnswer, ...]:
    """Return the answers of a link or finding, in the order of the columns."""
    found = {AUDIT_RIGHT: subject.right, WORKS: subject.works} if isinstance(subject, LinkStatus) else answers(subject)
    return tuple(ShownAnswer(question, answer, _icon(question, answer)) for question, answer in found.items())


def _icon(question: str, answer: str) -> str:
    """Return the icon of an answer. "yes" to "Contradicts the audit?" has the icon of a warning."""
    return {"yes": "warning", "no": "none"}.get(answer, _ICONS[answer]) if question == CONTRADICTS else _ICONS[answer]


def _lifecycle(report: Report) -> Finding | None:
    """Return the finding about Fix 3 over the lifetime of a run, or None if it was not recorded."""
    found = report.findings.get("missed-lifecycles")
    return found[0] if found else None


def _pictures(report: Report, tables: DropTables) -> tuple[Figure, ...]:
    """Return the figures of the notebook with the drop rates, or the figure "before_after" of an older report."""
    if tables.notebook is not None:
        return tables.notebook.figures
    older = report.figure("before_after")
    return (older[0],) if older else ()


def _fault_explanations(report: Report) -> Mapping[str, str]:
    """Return the explanation of each fault, from the last column of the table that lists the faults."""
    found = report.table(FAULT_NAMES)
    if found is None or "fault" not in found[0].columns:
        return {}
    last = found[0].columns[-1]
    return {str(row["fault"]): str(row[last]) for row in found[0].records if last != "fault"}


def _data_url(kind: str, text: str) -> str:
    """Return a URL that contains the text, so that a reader can save the text from the page without a server."""
    return f"data:{kind};charset=utf-8;base64,{b64encode(text.encode()).decode()}"


def _breakable(name: str) -> Markup:
    """Return a class name with optional line breaks between its words, for narrow columns."""
    return Markup("<wbr>").join(_NEW_WORD.split(name))


def _cell_html(value: object) -> Markup:
    """Return a table's value as HTML. A long path may break after its separators, so that no column is cut off."""
    words = _LONG_WORD.sub(lambda word: "\0".join(_AFTER_SEPARATOR.split(word[0])), cell_text(value))
    return Markup(str(escape(words)).replace("\0", "<wbr>"))


def _css_percent(share: float) -> str:
    """Return a share from 0 to 1 as a CSS percentage."""
    return f"{100 * share:.2f}%"


def _outcome(value: object) -> str:
    """Return the style of a matrix cell with "k of n": all, some, none, or unknown for n = 0.

    Any other value has no style.
    """
    found = _COUNTS.match(value) if isinstance(value, str) else None
    if not found:
        return ""
    k, n = (int(count.replace(",", "")) for count in found.groups())
    if n == 0:
        return "unknown"
    return "all" if k == n else "some" if k else "none"


def _together(text: str) -> str:
    """Return the text with no-break spaces in counts such as "0 of 300"."""
    return _COUNTS.sub("\\1\N{NO-BREAK SPACE}of\N{NO-BREAK SPACE}\\2", text)


def _prose(text: str) -> Markup:
    """Return a sentence as HTML, with the text between backticks as code."""
    # Convert to `str`, because `re.sub` would join the parts as Markup and escape the `<code>` tags.
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def _day(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if moment else "unknown"
