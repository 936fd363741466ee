"""A report of executed notebooks whose content comes from outside: markup, formulas, and paths of this machine."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bridgekit_verify.report.building import build_report
from tests.tree import ROOT
from tests.verify.report.notebooks import code, markdown, notebook, write

pytestmark = pytest.mark.slow

MARKUPS = (
    '"><script>alert(1)</script><img src=x onerror=alert(1)>',
    "</textarea></details></pre><svg onload=alert(1)>",
    "<a href='javascript:alert(1)'>x</a>",
    "--><iframe src=//evil.example></iframe><!--",
    "<style>@import '//evil.example'</style>",
)
FORMULAS = ('=HYPERLINK("http://evil.example/","open")', "@SUM(1)", "+1+cmd|' /C calc'!A0", "-2+3", "\t=1", "＝1")
IMPORTS = """\
import warnings, sys, logging
import pandas as pd
from matplotlib import pyplot as plt
from bridgekit_verify.report import Finding, checked, record, show_figure, show_table
"""
MARKUP = f"""{IMPORTS}
for number, evil in enumerate({MARKUPS!r}):
    show_table(pd.DataFrame({{evil: [evil]}}), evil, name=f"t{{number}}")
    figure, axes = plt.subplots(figsize=(1, 1))
    show_figure(figure, alt=evil, caption=evil, name=f"f{{number}}")
    print(evil)
    print(evil, file=sys.stderr)
    record(Finding(id=f"evil-{{number}}", title=evil, claim=evil, answer=evil, evidence=(evil,),
                   reported="working", verdict="holds"))
"""
CSV = f"""{IMPORTS}
show_table(pd.DataFrame({{"thread": {list(FORMULAS)!r}}}), "threads", name="threads")
"""
PATHS = f"""{IMPORTS}
figure, axes = plt.subplots(figsize=(2, 1))
axes.set_title("线程")
show_figure(figure, alt="a", caption="c", name="f")
warnings.warn("a warning with its place")
logging.warning("read %s", sys.executable)
print(pd.__file__, sys.prefix)
display(pd.__file__)
"""


@dataclass
class Files:
    page: str
    table: list[dict[str, str]]
    results: str
    failures: tuple[str, ...]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("hostile")
    bodies = {"01_markup": MARKUP, "02_formulas": CSV, "03_paths": PATHS, "04_traceback": "open('/nowhere/x')"}
    for name, body in bodies.items():
        cells = [markdown(f"# {MARKUPS[0]}\n\n{MARKUPS[1]}"), code(body, count=None)]
        end = code(f"from bridgekit_verify.report import checked\nchecked({name!r})", tags=("check",), count=None)
        write(folder / "notebooks", name, notebook(*cells, end, title=f"{name} {MARKUPS[0]}"))
    built = build_report(folder / "notebooks", folder / "out", executed=folder / "executed", log=lambda line: None)
    with (folder / "out" / "results.csv").open(newline="", encoding="utf-8") as opened:
        table = list(csv.DictReader(opened))
    page, results = ((folder / "out" / name).read_text(encoding="utf-8") for name in ("index.html", "results.json"))
    return Files(page, table, results, built.failures)


class _Live(HTMLParser):
    """Collects the elements and attributes of a page that can run or load something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "iframe", "object", "embed", "base", "link"):
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            loads = name in ("src", "href", "action") and not (value or "").startswith(("data:", "#", "https://"))
            if name.startswith("on") or loads:
                self.found.append(f"{name}={value}")


def test_only_the_notebook_that_fails_is_reported(files: Files) -> None:
    assert [line.partition(":")[0] for line in files.failures] == ["04_traceback"]


def test_nothing_from_a_notebook_is_live_in_the_page(files: Files) -> None:
    live = _Live()
    live.feed(files.page)
    assert [
        found for found in live.found if "evil" in found or "alert" in found or found in ("src=x", "<iframe>")
    ] == []
    assert "alert(1)" in files.page, "the text itself is shown"


def test_no_cell_of_the_table_is_a_formula(files: Files) -> None:
    cells = [value for row in files.table for value in row.values() if value]
    assert [cell for cell in cells if cell.lstrip().startswith(("=", "+", "@", "-2", "＝"))] == []
    assert [row["thread"] for row in files.table if row["thread"]] == [f"'{formula}" for formula in FORMULAS]


def test_no_path_of_this_machine_is_in_the_shared_files(files: Files) -> None:
    shared = files.page + files.results + json.dumps(files.table) + "".join(files.failures)
    assert [path for path in (str(ROOT), sys.prefix, sys.base_prefix, str(Path.home())) if path in shared] == []
    assert "a warning with its place" in files.page
