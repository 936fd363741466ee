"""Notebooks as plain data, as committed and as executed by a runner."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from bridgekit_verify.report.executed_notebooks import collect
from bridgekit_verify.report.findings import FINDING_MIME, TABLE_MIME, Finding, Table
from bridgekit_verify.report.report_data import Environment, Report

# A PNG of one pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="

ENVIRONMENT = Environment(
    bridgekit="0.1.0", python="3.11.7", packages={"anyio": "4.16.0"}, commit="0123456789abcdef", changed=False
)


def markdown(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": "m", "metadata": {}, "source": source}


def code(source: str, *outputs: dict[str, Any], tags: tuple[str, ...] = (), count: int | None = 1) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "id": "c",
        "metadata": {"tags": list(tags)},
        "source": source,
        "outputs": list(outputs),
        "execution_count": count,
    }


def printed(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def raised(name: str, value: str) -> dict[str, Any]:
    return {"output_type": "error", "ename": name, "evalue": value, "traceback": [f"\x1b[31m{name}\x1b[0m: {value}"]}


def shown(data: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"output_type": "display_data", "data": dict(data), "metadata": dict(metadata or {})}


def recorded(finding: Finding) -> dict[str, Any]:
    return shown({"text/plain": str(finding), FINDING_MIME: msgspec.to_builtins(finding)})


def tabulated(table: Table) -> dict[str, Any]:
    return shown({"text/plain": table.caption, TABLE_MIME: msgspec.to_builtins(table)})


def drawn(name: str, alt: str = "A dot at 0 of 60.", caption: str = "Delivery") -> dict[str, Any]:
    words = {"image/png": {"alt": alt, "caption": caption, "name": name}}
    return shown({"text/plain": "figure", "image/png": PNG}, words)


def notebook(*cells: dict[str, Any], title: str = "") -> dict[str, Any]:
    numbered = [{**cell, "id": f"cell-{number}"} for number, cell in enumerate(cells)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, **({"title": title} if title else {})}
    return {"cells": numbered, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def executed(name: str, *outputs: dict[str, Any], cells: tuple[dict[str, Any], ...] = ()) -> tuple[str, dict[str, Any]]:
    """Return a name and a notebook that passed, with these outputs."""
    end = code(f"checked({name!r})", printed(f"checked: {name}\n"), tags=("check",))
    return name, notebook(*cells, code("show()", *outputs), end, title=f"Title of {name}")


def report_of(*notebooks: tuple[str, dict[str, Any]]) -> Report:
    return collect(notebooks, ENVIRONMENT)


def finding(key: str = "link-3", **changes: Any) -> Finding:
    fields: dict[str, Any] = {
        "title": "Link 3 · AgentRegistry",
        "link": 3,
        "claim": "The registry sets the bridge on every agent.",
        "reported": "working",
        "verdict": "does not hold",
        "answer": "It set the bridge on 0 of 4 agents.",
        "evidence": ("TypeError",),
        "before": (0, 60),
        "after": (60, 60),
        "sound": "holds",
    }
    return Finding(id=key, **{**fields, **changes})


def write(folder: Path, name: str, content: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.ipynb").write_text(json.dumps(content), encoding="utf-8")
