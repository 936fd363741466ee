import pytest

from bridgekit_verify.report.failures import failure_of
from tests.verify.report.notebooks import code, markdown, printed, raised

GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "somewhere.py", line 1, in <module>
  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |     assert 1 == 2, 'one is not two'
    |            ^^^^^^
    | \x1b[31mAssertionError\x1b[0m: one is not two
    +------------------------------------
"""
END = code("checked('nb')", printed("checked: nb\n"))


def test_a_notebook_that_ends_on_its_sentinel_has_passed() -> None:
    assert failure_of("nb", [markdown("# Words"), code("x = 1"), code("  "), END]) is None


def test_an_error_is_one_line_with_notebook_cell_and_exception() -> None:
    cells = [markdown("# Words"), code("x = 1"), code("fail()", raised("ValueError", "no\nsecond line")), END]
    assert failure_of("nb", cells) == "nb: code cell 2: ValueError: no"


def test_an_exception_group_that_left_no_error_output_is_found() -> None:
    cells = [code("x = 1"), code("await run()", printed(GROUP, "stderr")), code("checked('nb')", count=None)]
    assert failure_of("nb", cells) == "nb: code cell 2: AssertionError: one is not two"


def test_a_group_printed_after_the_sentinel_is_found() -> None:
    cells = [code("checked('nb'); await run()", printed("checked: nb\n"), printed(GROUP, "stderr"))]
    assert failure_of("nb", cells) == "nb: code cell 1: AssertionError: one is not two"


@pytest.mark.parametrize("printed_text", ["", "checked: other\n", "checked: nb\nand more\n"])
def test_a_missing_sentinel_is_a_failure(printed_text: str) -> None:
    failure = failure_of("nb", [code("x = 1"), code("y", *([printed(printed_text)] if printed_text else []))])
    assert failure == "nb: code cell 2: the notebook did not end on 'checked: nb'"


def test_a_cell_that_never_ran_is_a_failure() -> None:
    assert failure_of("nb", [code("x = 1"), code("y", count=None)]) == "nb: code cell 1: code cell 2 never ran"


def test_a_notebook_without_code_has_not_passed() -> None:
    failure = failure_of("nb", [markdown("# Words")])
    assert failure is not None
    assert failure.startswith("nb: ")
