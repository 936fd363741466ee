"""Rules that lint and types cannot check: pure functions from source to violations."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 400
MAX_TEST_FILE_LINES = 600

# Arrows, dashes and mathematical signs are allowed.
EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u26ff\u2705\u2728\u274c\u274e\u2757\ufe0f]")

# Package registries and home directories: they are right on one machine only.
MACHINE_PATHS = re.compile(
    r"""https?://[^\s"']*(?:pypi|pythonhosted|npmjs|yarnpkg|artifactory|nexus|devpi)"""
    r"""|index[-]url\b|file:/{3}|(?<![\w.])/(?:home|root|Users)/\w""",
    re.IGNORECASE,
)

BROAD_EXCEPTIONS = {"Exception", "BaseException"}


def violations(source: str) -> list[str]:
    """Return line and rule of each violation in a module."""
    return [f"line {line}: {rule}" for node in ast.walk(ast.parse(source)) for line, rule in violations_of(node)]


def violations_of(node: ast.AST) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.ExceptHandler) and is_broad(node) and not raises(node):
        yield node.lineno, "a broad except that does not raise again"
    elif isinstance(node, ast.Name) and node.id == "hasattr":
        yield node.lineno, "hasattr: check the type, or let the attribute error be raised"
    elif isinstance(node, ast.Attribute | ast.Name) and last_name(node) in {"create_task", "ensure_future"}:
        yield node.lineno, "a task outside a task group"


def duplicate_classes(sources: Mapping[str, str]) -> dict[str, list[str]]:
    """Return by name the modules of each class that is defined more than once, in `sources` by module."""
    modules = defaultdict[str, list[str]](list)
    for module, source in sources.items():
        for node in definitions(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                modules[node.name].append(module)
    return {name: found for name, found in modules.items() if len(found) > 1}


def is_broad(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(kind, ast.Name) and kind.id in BROAD_EXCEPTIONS for kind in kinds)


def raises(handler: ast.ExceptHandler) -> bool:
    return any(isinstance(node, ast.Raise) for node in ast.walk(handler))


def last_name(node: ast.Attribute | ast.Name) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id


def long_functions(source: str) -> list[str]:
    functions = [node for node in definitions(ast.parse(source)) if not isinstance(node, ast.ClassDef)]
    lengths = ((node.name, (node.end_lineno or node.lineno) - node.lineno + 1) for node in functions)
    return [f"{name}: {lines} lines" for name, lines in lengths if lines > MAX_FUNCTION_LINES]


def definitions(node: ast.AST) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield each class and function below a node. Expressions, which contain none, are most of a tree."""
    for part in ("body", "handlers", "orelse", "finalbody", "cases"):
        inner = getattr(node, part, ())
        for each in inner if isinstance(inner, list) else ():
            if isinstance(each, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield each
            yield from definitions(each)


def lines_with(pattern: re.Pattern[str], text: str) -> list[str]:
    return [f"line {n}: {line.strip()[:100]}" for n, line in enumerate(text.splitlines(), 1) if pattern.search(line)]
