"""A failed assertion of a notebook states the values that it compared."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest

from bridgekit_verify.report.notebook_errors import AssertedValues, ShowAsserted


def run(source: str, **names: object) -> None:
    """Execute source as a cell of a notebook is executed."""
    tree = ast.fix_missing_locations(ShowAsserted().visit(ast.parse(source)))
    exec(compile(tree, "<cell>", "exec"), {"_asserted_values": AssertedValues, **names})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("assert delivered == 60", "delivered == 60: 58 == 60"),
        ("assert delivered == 60, 'all arrive'", "all arrive: delivered == 60: 58 == 60"),
        ("assert 59 < delivered <= 60", "59 < delivered <= 60: 59 < 58"),
        ("assert delivered and delivered > 58", "delivered and delivered > 58: 58 > 58"),
        ("assert all(each == 1 for each in [1, 2, 3])", "all((each == 1 for each in [1, 2, 3])): 2 == 1"),
        ("assert delivered not in (57, 58)", "delivered not in (57, 58): 58 not in (57, 58)"),
        ("assert delivered is None", "delivered is None: 58 is None"),
        ("assert not delivered", "not delivered: False"),
        ("assert names.count('a')", "names.count('a'): 0"),
        ("assert (found := delivered + 1) == 60", "(found := (delivered + 1)) == 60: 59 == 60"),
        ("def check(value):\n    assert value == 1\ncheck(delivered)", "value == 1: 58 == 1"),
        ("class Check:\n    assert delivered == 1", "delivered == 1: 58 == 1"),
    ],
)
def test_the_message_has_the_source_and_the_values(source: str, message: str) -> None:
    with pytest.raises(AssertionError) as failed:
        run(source, delivered=58, names=["b"])
    assert str(failed.value) == message


def test_the_message_is_one_line_of_limited_length() -> None:
    with pytest.raises(AssertionError) as failed:
        run("assert text == []", text="line\n" * 10_000)
    assert "\n" not in str(failed.value)
    assert len(str(failed.value)) < 500


def test_assertions_that_hold_do_nothing() -> None:
    run("assert 1 == 1\nassert 1 < 2 < 3\nassert not []\nassert [1] and all(x > 0 for x in [1])")


def test_each_operand_is_evaluated_once() -> None:
    calls: list[int] = []

    def value() -> int:
        calls.append(1)
        return 1

    run("assert value() == 1 < 2", value=value)
    assert len(calls) == 1


def test_operands_after_the_first_false_comparison_are_not_evaluated() -> None:
    with pytest.raises(AssertionError, match=re.escape("1 > 2: 1 > 2") + "|1 > 2 > fail"):
        run("assert 1 > 2 > fail()", fail=lambda: pytest.fail("evaluated"))


def test_an_error_in_the_assertion_itself_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run("assert 1 / 0 == 1")


def test_awaits_in_an_assertion_still_work() -> None:
    namespace: dict[str, Any] = {"_asserted_values": AssertedValues}
    source = "async def check(value):\n    async def get():\n        return value\n    assert await get() == 2"
    tree = ast.fix_missing_locations(ShowAsserted().visit(ast.parse(source)))
    exec(compile(tree, "<cell>", "exec"), namespace)
    with pytest.raises(AssertionError, match=re.escape("await get() == 2: 3 == 2")):
        namespace["check"](3).send(None)
