"""Makes errors in a notebook useful to the reader: a failed assertion states the values that it compared.

For example, `assert delivered == 60` fails with the message `delivered == 60: 58 == 60`. The module rewrites the cells
when they run, so that the committed notebooks contain plain assertions. An error about a value that the reader chose is
shown without a traceback.
"""

from __future__ import annotations

import ast
import sys
from reprlib import Repr
from typing import Any, Final

from bridgekit.errors import InvalidId, UnknownName
from bridgekit_verify.errors import InvalidParameter

__all__ = ["AssertedValues", "ShowAsserted", "show_asserted_values", "show_messages_alone"]

_NAME: Final = "_asserted_values"
"""The name of `AssertedValues` in a notebook. Each assertion assigns a new instance to `_asserted_values_now`."""
_OPERATORS: Final[dict[type[ast.cmpop], str]] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
    ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip

MAX_CHARACTERS: Final = 200
"""Maximum number of characters of one value in a message."""
MAX_MEMBERS: Final = 12
"""Maximum number of members of one collection in a message."""


class AssertedValues:
    """The values of an assertion's latest comparison, and the assertion's message."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._values: list[tuple[str, object]] = []

    def see(self, operator: str, value: object) -> object:
        """Record one operand and return it.

        `operator` is the operator before the operand, or "" for the first operand.
        """
        if not operator:
            self._values = []
        self._values.append((operator, value))
        return value

    def message(self, *note: object) -> str:
        """Return the assertion's own message, its source, and the compared values, in one line."""
        compared = " ".join(f"{operator} {_short(value)}".lstrip() for operator, value in self._values)
        parts = [*(str(each) for each in note), self._source, *([compared] if compared else [])]
        return " ".join(": ".join(parts).split())


class ShowAsserted(ast.NodeTransformer):
    """Rewrites each assertion so that its error states the compared values."""

    def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
        source = ast.unparse(node.test)
        operands = _Operands()
        compared = operands.visit(node.test)
        if not operands.found:
            compared = _seen("", node.test)
        # Each assertion has its own local object, so that concurrent tasks do not mix their values.
        made = ast.parse(f"{_NAME}_now = {_NAME}({source!r})").body[0]
        message = ast.parse(f"{_NAME}_now.message()", mode="eval").body
        assert isinstance(message, ast.Call)
        message.args = [node.msg] if node.msg is not None else []
        asserted = ast.Assert(test=compared, msg=message)
        return [ast.copy_location(each, node) for each in (made, asserted)]


class _Operands(ast.NodeTransformer):
    """Wraps each operand of the comparisons of one assertion."""

    found = False

    def visit_Compare(self, node: ast.Compare) -> ast.Compare:
        self.found = True
        names = ["", *(_OPERATORS[type(operator)] for operator in node.ops)]
        operands = [node.left, *node.comparators]
        seen = [_seen(name, operand) for name, operand in zip(names, operands, strict=True)]
        return ast.copy_location(ast.Compare(left=seen[0], ops=node.ops, comparators=seen[1:]), node)


def _seen(operator: str, operand: ast.expr) -> ast.expr:
    call = ast.parse(f"{_NAME}_now.see({operator!r})", mode="eval").body
    assert isinstance(call, ast.Call)
    call.args.append(operand)
    return ast.copy_location(call, operand)


def show_asserted_values() -> None:
    """Rewrite the assertions in all cells that this kernel executes later. Without a kernel, do nothing."""
    if "IPython" not in sys.modules:
        return
    from IPython.core.getipython import get_ipython

    shell: Any = get_ipython()
    if shell is not None and not any(isinstance(each, ShowAsserted) for each in shell.ast_transformers):
        shell.user_ns[_NAME] = AssertedValues
        shell.ast_transformers.append(ShowAsserted())


def show_messages_alone() -> None:
    """In this kernel, show errors about a reader's values without a traceback. Without a kernel, do nothing."""
    if "IPython" not in sys.modules:
        return
    from IPython.core.getipython import get_ipython

    shell: Any = get_ipython()
    if shell is not None:
        shell.set_custom_exc((InvalidParameter, InvalidId, UnknownName), _show_message)


def _show_message(
    shell: Any, kind: type[Exception], error: Exception, traceback: object, tb_offset: int | None = None
) -> list[str]:
    """Show the error in the front end as one line, and return this line."""
    lines = [f"{kind.__name__}: {error}"]
    shell._showtraceback(kind, error, lines)
    return lines


def _short(value: object) -> str:
    shortened = Repr()
    shortened.maxstring = shortened.maxother = MAX_CHARACTERS
    shortened.maxlist = shortened.maxtuple = shortened.maxset = shortened.maxdict = MAX_MEMBERS
    return shortened.repr(value)
