"""Generate all mutants of a module's source, each with one small change.

The module does no I/O. `tools.mutate` tests the mutants.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["Mutant", "mutants"]

# Each comparison is replaced by its opposite. An ordering comparison is also replaced by the one that differs only for
# equal values.
COMPARISONS: Final[dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.Pow: ast.Mult,
}
NAMES: Final = {"min": "max", "max": "min", "any": "all", "all": "any", "ceil": "floor", "sorted": "list"}

MAX_LINE_CHARACTERS: Final = 120
"""Limit on the number of characters of an edited line that a report shows."""

# Fields that are not mutated. Most of these fields are for readers or the type checker.
IGNORED_FIELDS: Final = {"annotation", "returns", "decorator_list", "bases", "type_params", "format_spec"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One edit: its location, the code before and after it, and the complete mutated source."""

    line: int
    function: str
    before: str
    after: str
    source: str

    @property
    def edit(self) -> str:
        """Text that identifies the edit independently of line numbers."""
        return f"{self.function}: {self.before} -> {self.after}"


def mutants(source: str) -> Iterator[Mutant]:
    """Yield every mutant of a module in source order. If several edits give the same source, yield only one of them."""
    tree, seen = ast.parse(source), {ast.unparse(ast.parse(source))}
    for site in _sites(tree, "module", tree):
        before = _head(site.statement)
        for edited in _edits(site.node):
            site.put(edited)
            mutated = ast.unparse(ast.fix_missing_locations(tree))
            after = _head(edited if site.node is site.statement else site.statement)
            site.put(site.node)
            if mutated not in seen:
                seen.add(mutated)
                yield Mutant(_line(site.statement), site.function, *_window(before, after), mutated)


@dataclass(frozen=True, slots=True)
class _Site:
    """A syntax node with its parent field, its function and its statement."""

    node: ast.AST
    owner: ast.AST
    field: str
    index: int | None
    function: str
    statement: ast.AST

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.owner, self.field, node)
        else:
            getattr(self.owner, self.field)[self.index] = node


def _sites(parent: ast.AST, function: str, statement: ast.AST) -> Iterator[_Site]:
    for name, value in ast.iter_fields(parent):
        if name in IGNORED_FIELDS or (isinstance(parent, ast.JoinedStr) and name == "values"):
            value = [child for child in value if isinstance(child, ast.FormattedValue)] if name == "values" else []
        children = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for index, child in children:
            if not isinstance(child, ast.AST) or _is_documentation(child):
                continue
            within = f"{function}.{child.name}".removeprefix("module.") if isinstance(child, FUNCTIONS) else function
            part_of = child if isinstance(child, ast.stmt | ast.match_case) else statement
            if not isinstance(parent, ast.JoinedStr):
                yield _Site(child, parent, name, index, within, part_of)
            yield from _sites(child, within, part_of)


FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _is_documentation(node: ast.AST) -> bool:
    """Return whether the node is a docstring, another constant that stands alone, or `__all__`."""
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets)
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _edits(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare():
            yield from _compared(node)
        case ast.BoolOp():
            yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.BinOp(op=op) if type(op) in ARITHMETIC:
            yield _with(node, op=ARITHMETIC[type(op)]())
        case ast.Constant():
            yield from _constants(node)
        case ast.Name(id=name) if name in NAMES:
            yield _with(node, id=NAMES[name])
        case ast.Attribute(attr=name) if name in NAMES:
            yield _with(node, attr=NAMES[name])
        case _:
            yield from _statements(node)
            yield from _conditions(node)


def _compared(node: ast.Compare) -> Iterator[ast.AST]:
    for index, operator in enumerate(node.ops):
        for other in COMPARISONS[type(operator)]:
            yield _with(node, ops=[*node.ops[:index], other(), *node.ops[index + 1 :]])


def _constants(node: ast.Constant) -> Iterator[ast.AST]:
    match node.value:
        case bool(value):
            yield ast.Constant(not value)
        case int(number) | float(number):
            yield ast.Constant(number + 1)
        case str(text):
            yield ast.Constant(f"{text}?")


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Return(value=ast.expr() as value) if not _is_none(value):
            yield ast.Return(ast.Constant(None))
        case ast.Expr() | ast.AugAssign() | ast.Raise() | ast.Continue() | ast.Break():
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()


def _conditions(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test) if not isinstance(test, ast.Compare):
            yield _with(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.comprehension(ifs=[_, *_] as ifs):
            for index in range(len(ifs)):
                yield _with(node, ifs=[*ifs[:index], *ifs[index + 1 :]])


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _with(node: ast.AST, **fields: object) -> ast.AST:
    edited = copy.copy(node)
    for name, value in fields.items():
        setattr(edited, name, value)
    return edited


def _line(node: ast.AST) -> int:
    """Return the line of a node. The line of a `case` is that of its pattern."""
    line: int = getattr(node.pattern if isinstance(node, ast.match_case) else node, "lineno", 0)
    return line


def _window(before: str, after: str) -> tuple[str, str]:
    """Return the differing parts of two long lines, with some context."""
    if max(len(before), len(after)) <= MAX_LINE_CHARACTERS:
        return before, after
    same = next((n for n, (one, other) in enumerate(zip(before, after, strict=False)) if one != other), 0)
    left = max(0, same - MAX_LINE_CHARACTERS // 2)
    start = "… " if left else ""
    return start + before[left : left + MAX_LINE_CHARACTERS].strip(), start + after[
        left : left + MAX_LINE_CHARACTERS
    ].strip()


def _head(node: ast.AST) -> str:
    """Return the code of a node as one line. For a compound statement, return its header."""
    text = ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).strip()
    return text.partition("\n")[0]
