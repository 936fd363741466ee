"""Report -> index.html: one file without scripts or external resources, which can be opened from an email."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from jinja2 import Environment as Templates
from jinja2 import PackageLoader, StrictUndefined
from markupsafe import Markup

from bridgekit_verify.measure.statistics import Rate
from bridgekit_verify.report.findings import Table, basis_text, cell_text
from bridgekit_verify.report.judging import (
    AUDITED_LINKS,
    claim_groups,
    headline,
    link_statuses,
    other_findings,
    sections,
    smallest_sample,
    timed_findings,
)
from bridgekit_verify.report.markup import code_html, markdown_html, output_html, printed_text
from bridgekit_verify.report.results import count_measurements
from bridgekit_verify.report.structure import Report

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
# Names of the figures and tables that the page shows first.
BEFORE_AND_AFTER = "before_after"
MATRIX = "matrix"

_COUNTS = re.compile(r"([\d,]+) of ([\d,]+)")
_NEW_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")


def index_html(report: Report) -> str:
    """Render the complete page."""
    templates = Templates(
        loader=PackageLoader("bridgekit_verify.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages = [notebook.name for notebook in report.notebooks]
    templates.filters |= {
        "ansi": printed_text,
        "basis": basis_text,
        "bounds": lambda rate: rate.bounds,
        "breakable": _breakable,
        "cell": cell_text,
        "code": code_html,
        "counts": lambda rate: rate.counts,
        "day": _day,
        "html": output_html,
        "level": _level,
        "numeric": _numeric,
        "markdown": lambda text: markdown_html(text, pages),
        "outcome": _outcome,
        "rate": Rate.of,
        "seconds": _seconds,
        "together": _together,
    }
    links = link_statuses(report)
    return templates.get_template("index.html.j2").render(
        policy=CONTENT_SECURITY_POLICY,
        report=report,
        environment=report.environment,
        headline=headline(report),
        audited=[link for link in links if link.number in AUDITED_LINKS],
        beyond=[link for link in links if link.number not in AUDITED_LINKS],
        expected=[link.number for link in links if link.icon == "expected"],
        before_after=report.figure(BEFORE_AND_AFTER),
        matrix_figure=report.figure(MATRIX),
        matrix_table=report.table(MATRIX),
        claims=claim_groups(report),
        sections=sections(report),
        findings=other_findings(report),
        source={key: notebook for key, (_, notebook) in report.findings.items()},
        smallest=smallest_sample(report),
        timed=timed_findings(report),
        measurements=count_measurements(report),
    )


def _breakable(name: str) -> Markup:
    """Return a class name with optional line breaks between its words, for narrow columns."""
    return Markup("<wbr>").join(_NEW_WORD.split(name))


def _level(share: float) -> str:
    """Return a share as a CSS percentage on the axis of the intervals."""
    return f"{100 * share:.2f}%"


def _outcome(value: object) -> str:
    """Return the style of a matrix cell with "k of n": all, some, none, or unknown for n = 0; "" for other values."""
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


def _numeric(table: Table) -> set[str]:
    """Return the columns that contain only numbers and missing values; they are right-aligned."""
    values = {name: {type(row.get(name)) for row in table.records} - {type(None)} for name in table.columns}
    return {name for name, kinds in values.items() if kinds and kinds <= {int, float}}


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f} min {rest:.0f} s" if minutes else f"{rest:.1f} s"


def _day(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if moment else "unknown"
