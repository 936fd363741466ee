"""No absolute path of the machine on which the notebooks ran is in what is shared."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import bridgekit
from bridgekit_verify.report.page import index_html
from bridgekit_verify.report.path_redaction import without_paths
from bridgekit_verify.report.result_files import results_csv, results_json
from tests.verify.report.notebooks import (
    PNG,
    code,
    drawn,
    executed,
    finding,
    notebook,
    printed,
    raised,
    recorded,
    report_of,
    shown,
    tabulated,
)
from tests.verify.report.test_result_files import SOURCES, with_values

HERE = Path(bridgekit.__file__).parent
# Composed, because no file of the repository may contain such a path.
HOME, MAC, WINDOWS = "/home" + "/zoe", "/Users" + "/zoe", "C:\\Users" + "\\zoe"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{HERE}/events.py:3: UserWarning: Glyph", "bridgekit/events.py:3: UserWarning: Glyph"),
        ("/opt/x/site-packages/IPython/core/tools.py:170: Warning", "IPython/core/tools.py:170: Warning"),
        ('File "/tmp/ipykernel_12/123.py", line 3', 'File "123.py", line 3'),
        (f"File \x1b[32m{HOME}/a.py\x1b[39m:3", "File a.py:3"),
        (f"{WINDOWS}\\a.py:3", "a.py:3"),
        (f"saved as {HOME}/thesis and ~/x/y", "saved as thesis and y"),
        (f"PATH=/usr/local/bin:{HOME}/bin", "PATH=bin:bin"),
        (f"file://{MAC}/a.html", "a.html"),
        (f"{MAC}é/draft", "draft"),
        ("(/mnt/c/x)", "(x)"),
    ],
)
def test_a_path_keeps_only_its_last_part(text: str, expected: str) -> None:
    assert without_paths(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "GET /ws?thread_id=1 and /healthz",
        "a/b, and/or, 1/2, text/html",
        "http://127.0.0.1:8000/ws/x.js",
        "</div><br/>",
        "bridgekit/chain/link_3_registry.py, lines 12 to 40",
        "netra_backend/app/agents/base_agent.py",
    ],
)
def test_what_is_no_absolute_path_stays(text: str) -> None:
    assert without_paths(text) == text


def test_images_stay_unchanged() -> None:
    data = {"image/png": f"{HOME}/AAAA", "text/plain": f"{HOME}/x"}
    assert without_paths(data) == {"image/png": f"{HOME}/AAAA", "text/plain": "x"}


def test_no_output_of_any_kind_brings_a_path_into_the_shared_files() -> None:
    path = f"{sys.prefix}/lib/secret.py"
    home = f"{HOME}/secret"
    outputs = (
        printed(f"{path}\n", "stderr"),
        printed(f"{home}\n"),
        shown({"text/plain": path}),
        shown({"text/html": f'<p title="{home}">{path}</p>'}),
        shown({"text/markdown": path}),
        drawn("figure", alt=path, caption=home),
        shown({"text/plain": home, "image/png": PNG}),
        recorded(finding(answer=f"It read {path}.", evidence=(home,))),
        tabulated(with_values(SOURCES, path)),
    )
    parameters = code(f"FOLDER = {home!r}", tags=("parameters",))
    name, good = executed("01_a", *outputs, cells=(parameters, code(f"open({path!r})")))
    failed = notebook(code("fail()", raised("OSError", f"[Errno 2] No such file: '{home}'")))
    report = report_of((name, good), ("02_b", failed))
    for text in (index_html(report), results_csv(report), results_json(report), *report.failures):
        assert HOME not in text
        assert sys.prefix not in text
        assert "secret" in text
