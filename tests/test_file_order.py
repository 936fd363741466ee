"""The order in which the test files are started."""

from __future__ import annotations

from tests.file_order import IN_ANY_PROCESS, LONGEST, WITH_A_CLUSTER, file_of, start_order
from tests.tree import EXECUTED, NOTEBOOKS, ROOT


def test_each_file_that_is_started_first_exists() -> None:
    folders = {str(EXECUTED.relative_to(ROOT)): NOTEBOOKS}
    paths = [(folder, name) for folder, _, name in (file.rpartition("/") for file in LONGEST)]
    assert [name for folder, name in paths if not (folders.get(folder, ROOT / folder) / name).exists()] == []


def test_notebook_is_started_before_the_check_of_its_executed_copy_and_both_before_shorter_files() -> None:
    notebook = "build/executed/12_faults.ipynb"
    check = "tests/notebooks/test_executed.py::test_executed_notebook_ran_to_its_end_and_held[12_faults.ipynb]"
    assert start_order(f"{notebook}::") == start_order(check) < start_order("tests/test_ids.py::test_a")


def test_tests_with_a_cluster_count_as_one_file() -> None:
    assert [path for path in WITH_A_CLUSTER if not (ROOT / path).exists()] == []
    assert {file_of(f"{path}::test_a") for path in WITH_A_CLUSTER} == {"tests/contract/"}
    assert file_of("tests/stores/redis/test_log.py::test_a") == "tests/stores/redis/test_log.py"


def test_tests_that_may_run_in_any_process_are_started_with_their_file() -> None:
    assert [path for path in IN_ANY_PROCESS if not (ROOT / path).exists()] == []
    tests = [f"{path}::test_a[{number}]" for path in IN_ANY_PROCESS for number in (1, 2)]
    assert list(map(file_of, tests)) == tests
    first = next(path for path in IN_ANY_PROCESS if path in LONGEST)
    assert start_order(f"{first}::test_a[1]") == LONGEST.index(first)
