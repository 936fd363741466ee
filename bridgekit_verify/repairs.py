"""Four repairs with which the chain as committed delivers every event, and how many lines each repair changes.

A repair replaces parts of a chain, as the audit's fixes do. The audited commit's own supervisor and manager are not
rebuilt here, so the original code needs more changes than these four repairs.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from itertools import combinations
from typing import Any, Final, NamedTuple

from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_5_execution_core import AgentExecutionCore
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.mapping import RunThreadMappingService
from bridgekit.thread_resolvers import Carried, Resolver
from bridgekit_verify.as_committed import HubThatAlwaysSaysSent
from bridgekit_verify.variants import AS_COMMITTED, Fix, Variant

__all__ = ["NEW_CLASSES", "REPAIRS", "LineChange", "changed_lines", "repaired", "repaired_links", "subsets"]


class LineChange(NamedTuple):
    """How many lines of code a repair removes from the chain as committed, and how many it adds."""

    removed: int
    added: int

    def __str__(self) -> str:
        return f"-{self.removed} +{self.added}"


def carried(mapping: RunThreadMappingService) -> Resolver:
    """Create a resolver that uses only the thread that the event carries, without a lookup in the mapping."""
    return Carried()


REPAIRS: Final = (
    Fix(
        "agent per run",
        "core and registry create an agent for each run",
        {"core": AgentExecutionCore, "registry": AgentRegistry},
    ),
    Fix("thread carried", "an event names its thread, and the bridge uses it", {"resolver": carried}),
    Fix("connection bound", "the hub registers each socket under its thread", {"hub": HubThatAlwaysSaysSent}),
    Fix(
        "link 8 call", "the adapter calls the bridge with arguments that it takes", {"adapter": WebSocketBridgeAdapter}
    ),
)
NEW_CLASSES: Final[Mapping[str, tuple[type, ...]]] = {"thread carried": (Carried,)}
"""The classes that a repair adds to the code as committed, by the name of the repair."""


LINKS_OF_PARTS: Final = {"registry": 3, "core": 5, "adapter": 8, "resolver": 9, "hub": 10}
"""The link that each replaced part belongs to."""


def repaired_links(name: str) -> tuple[int, ...]:
    """Return the numbers of the links that a repair of `REPAIRS` changes, in order."""
    [repair] = [repair for repair in REPAIRS if repair.name == name]
    return tuple(sorted(LINKS_OF_PARTS[part] for part in repair.parts))


def repaired(fixes: Iterable[Fix], *, base: Variant = AS_COMMITTED) -> Variant:
    """Return the chain `base` with the given repairs or fixes applied."""
    chain = base
    for fix in fixes:
        chain = fix.applied_to(chain)
    return chain


def subsets(repairs: tuple[Fix, ...] = REPAIRS) -> Iterator[tuple[Fix, ...]]:
    """Yield every combination of the repairs, from no repair to all repairs."""
    for size in range(len(repairs) + 1):
        yield from combinations(repairs, size)


def changed_lines(repair: Fix, base: Variant = AS_COMMITTED, *, adds: tuple[type, ...] = ()) -> LineChange:
    """Count the lines of code that a repair changes in the base chain.

    Each method that a defect overrides is compared with the method that the repair uses in its place. A statement that
    only calls `super()`, or returns its result, counts as the lines of the called method. Indentation, comments and
    docstrings do not count. All lines of the classes in `adds` count as added.
    """
    removed = added = 0
    for part, sound in repair.parts.items():
        for before, after in _rewritten(getattr(base, part), sound):
            for tag, first, last, start, end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
                if tag != "equal":
                    removed, added = removed + last - first, added + end - start
    return LineChange(removed, added + sum(len(_lines([_parsed(new)])) for new in adds))


def _rewritten(committed: Any, sound: Any) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the lines of each changed function before and after the repair."""
    if not inspect.isclass(committed):
        yield _body(committed), _body(sound)
        return
    for overriding in committed.__mro__:
        if overriding not in sound.__mro__:
            for name, method in vars(overriding).items():
                if inspect.isfunction(method):
                    owner = next((each for each in sound.__mro__ if name in vars(each)), None)
                    yield _body(method, overriding), _body(vars(owner)[name], owner) if owner else []


def _body(function: Callable[..., Any], owner: type | None = None) -> list[str]:
    """Return the lines of a function's body. `owner` is the class that defines the function, if any."""
    definition = _parsed(function)
    if owner is not None:
        _InlineSuper(owner).visit(definition)
    return _lines(definition.body)


def _parsed(thing: type | Callable[..., Any]) -> Any:
    """Return the syntax tree of a class or function, without docstrings."""
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(thing))).body
    for node in ast.walk(definition):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(node):
            node.body = node.body[1:]
    return definition


def _lines(statements: list[ast.stmt]) -> list[str]:
    lines = (line.strip() for statement in statements for line in ast.unparse(statement).splitlines())
    return [line for line in lines if line]


class _InlineSuper(ast.NodeTransformer):
    """Replaces a statement that only calls `super()`, or returns its result, by the body of the called method."""

    def __init__(self, owner: type) -> None:
        self._owner = owner

    def visit_Expr(self, node: ast.Expr) -> ast.stmt | list[ast.stmt]:
        return self._inlined(node, node.value)

    def visit_Return(self, node: ast.Return) -> ast.stmt | list[ast.stmt]:
        return self._inlined(node, node.value)

    def _inlined(self, statement: ast.stmt, value: ast.expr | None) -> ast.stmt | list[ast.stmt]:
        match value:
            case ast.Call(func=ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr=name)):
                body: list[ast.stmt] = _parsed(getattr(super(self._owner, self._owner), name)).body
                return body
        return statement
