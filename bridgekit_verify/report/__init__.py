"""Floor 6, telling: notebooks -> findings -> one HTML file, results.csv, results.json.

untyped     types for what nbformat and nbconvert leave untyped
findings    what a notebook hands to the report
claims      the audit's claims, each run again, as findings
outputs     notebook side: record, show_table, show_figure, source_of, checked
structure   the report as plain data
failures    did an executed notebook really reach its end?
parameters  read and replace the literals of a notebook's parameters cell
execution   run copies of the notebooks, each in a kernel of this interpreter
collecting  executed notebooks -> Report
judging     findings -> the grid, the headline, the sections
results     Report -> results.json, results.csv
markup      markdown, code and HTML outputs -> safe, self-contained HTML
page        Report -> index.html
building    all of it: build_report

A notebook imports the names below and nothing else. What executes and renders (nbclient, nbconvert, jinja2)
is imported by the modules that use it, so that a kernel does not pay for it.
"""

from bridgekit_verify.report.findings import FINDING_MIME, SOURCE_MIME, TABLE_MIME, Finding, Verdict
from bridgekit_verify.report.outputs import checked, record, show_figure, show_table, source_of

__all__ = [
    "FINDING_MIME",
    "SOURCE_MIME",
    "TABLE_MIME",
    "Finding",
    "Verdict",
    "checked",
    "record",
    "show_figure",
    "show_table",
    "source_of",
]
