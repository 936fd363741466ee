"""The report: executes the notebooks, collects their findings, and writes one HTML file, results.csv and results.json.

notebook_files      types for the untyped functions of nbformat and nbconvert
findings            the data types that a notebook passes to the report
claims              the audit's claims, each tested by running it, as findings
notebook_outputs    called by notebooks: record, show_table, show_figure, source_of, printed_log, checked
json_values         the values of a data frame -> JSON types
allowed_parameters  the values that each parameter of the notebooks may have
notebook_errors     shows the values that a failed assertion compared, and errors about parameters without a traceback
kernel_settings     settings of the kernel that executes a notebook
notebook_explorer   controls of notebook 00 that run chains with a reader's own thread ids
chain_map           the picture of the ten links in notebook 00
report_data         the report as plain data
path_redaction      removes absolute paths from the outputs of notebooks
failures            detects whether an executed notebook failed
parameters          reads and replaces the literals of a notebook's parameters cell
execution           runs copies of the notebooks, each in a kernel of this interpreter
executed_notebooks  executed notebooks -> Report
drop_tables         the tables of notebook 10, as plain data
summary             drop rates -> the first screen: answer, risks, order of repairs
drop_chart          drop rates -> the chart of the first screen
priorities          drop rates -> verdicts on the audit's priorities and its advice
grouped_findings    findings -> both answers about each link, the headline, the sections
result_files        Report -> results.json, results.csv
glossary            the terms of the page, each with its meaning
markup              markdown, code and HTML outputs -> safe, self-contained HTML
page                Report -> index.html
building            runs all steps: build_report

Notebooks import only the names in `__all__`. Only the modules that execute and render import nbclient, nbconvert and
jinja2, so that a kernel does not load these packages.
"""

from bridgekit_verify.report.allowed_parameters import check_parameters
from bridgekit_verify.report.findings import FINDING_MIME, SOURCE_MIME, TABLE_MIME, Finding, Verdict
from bridgekit_verify.report.kernel_settings import collect_garbage_less_often
from bridgekit_verify.report.notebook_errors import show_asserted_values, show_messages_alone
from bridgekit_verify.report.notebook_outputs import (
    checked,
    printed_log,
    record,
    show_figure,
    show_table,
    show_text,
    source_of,
)

__all__ = [
    "FINDING_MIME",
    "SOURCE_MIME",
    "TABLE_MIME",
    "Finding",
    "Verdict",
    "check_parameters",
    "checked",
    "printed_log",
    "record",
    "show_figure",
    "show_table",
    "show_text",
    "source_of",
]

# Every notebook imports this package, so these calls change every notebook's kernel.
show_asserted_values()
show_messages_alone()
collect_garbage_less_often()
