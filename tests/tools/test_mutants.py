"""The mutants that `make mutation` generates, and its list of explained survivors."""

from __future__ import annotations

import pytest

from tests.tree import ROOT
from tools.mutants import Mutant, mutants
from tools.mutate import TARGETS, MutationCounts, inconsistencies, read_explanations, result_page

pytestmark = pytest.mark.slow


def edits(source: str) -> list[str]:
    return [f"{mutant.before} -> {mutant.after}" for mutant in mutants(source)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", ["a < b -> a <= b", "a < b -> a >= b", "a < b -> pass"]),
        ("x = a == b", ["x = a == b -> x = a != b"]),
        ("x = a and b", ["x = a and b -> x = a or b"]),
        ("x = not a", ["x = not a -> x = a"]),
        ("x = a - b", ["x = a - b -> x = a + b"]),
        ("x = 1", ["x = 1 -> x = 2"]),
        ("x = True", ["x = True -> x = False"]),
        ("x = 'a'", ["x = 'a' -> x = 'a?'"]),
        ("x = min(a)", ["x = min(a) -> x = max(a)"]),
        ("a.b = c", ["a.b = c -> pass"]),
        ("a += b", ["a += b -> pass"]),
        ("if a: b = c", ["if a: -> if not a:"]),
        ("x = [a for a in b if c]", ["x = [a for a in b if c] -> x = [a for a in b]"]),
        ("def f():\n    return a", ["return a -> return None"]),
        ("raise a", ["raise a -> pass"]),
    ],
)
def test_each_kind_of_mutation_is_generated(source: str, expected: list[str]) -> None:
    assert sorted(edits(source)) == sorted(expected)


@pytest.mark.parametrize(
    "source",
    [
        '"""Words."""',
        "__all__ = ['a']",
        "def f(a: 'b') -> 'c': ...",
        "@a('b')\ndef f(): ...",
        "x = f'words'",
        "x = None",
    ],
)
def test_docstrings_and_annotations_are_not_mutated(source: str) -> None:
    assert edits(source) == []


def test_only_expressions_of_an_f_string_are_mutated() -> None:
    assert edits("x = f'{a + b} of them'") == ["x = f'{a + b} of them' -> x = f'{a - b} of them'"]


def test_mutant_has_its_location_and_complete_source() -> None:
    source = "class C:\n    def f(self, a):\n        b = a\n        return b > 1\n"
    [border, opposite, number, nothing] = sorted(mutants(source), key=lambda mutant: mutant.after != "return b >= 1")
    assert (border.line, border.function, border.after) == (4, "C.f", "return b >= 1")
    assert border.source == "class C:\n\n    def f(self, a):\n        b = a\n        return b >= 1"
    assert {mutant.after for mutant in (opposite, number, nothing)} == {"return b <= 1", "return b > 2", "return None"}


@pytest.mark.acceptance
def test_every_mutant_of_a_real_module_can_be_compiled() -> None:
    generated = list(mutants((ROOT / "bridgekit_verify" / "measure" / "checker.py").read_text(encoding="utf-8")))
    assert len(generated) > 50
    assert len({mutant.source for mutant in generated}) == len(generated)
    for mutant in generated:
        compile(mutant.source, "checker", "exec")


@pytest.mark.parametrize("module", TARGETS)
def test_mutated_module_and_its_tests_exist(module: str) -> None:
    for path in (TARGETS[module].path, *TARGETS[module].tests):
        assert (ROOT / path).is_file()


def test_unexplained_survivors_and_stale_explanations_are_reported() -> None:
    lived = Mutant(3, "f", "a < b", "a <= b", "")
    counts_by_module = {"checker": MutationCounts(10, (lived,))}
    explained = read_explanations("[[checker]]\nedit = 'f: a < b -> a <= b'\nwhy = '''a is\nnever b'''")
    assert inconsistencies(counts_by_module, explained) == []
    assert inconsistencies(counts_by_module, {}) == ["checker.py:3: survived: f: a < b -> a <= b"]
    assert inconsistencies({"checker": MutationCounts(10, ())}, explained) == [
        "checker: explained, but no survivor: f: a < b -> a <= b"
    ]
    page = result_page(counts_by_module, explained)
    assert "| checker | 10 | 9 | 1 | 0 |\n| all | 10 | 9 | 1 | 0 |" in page
    assert "| all | 10 | 9 | 0 | 1 |" in result_page(counts_by_module, {})
    assert "- `f: a < b -> a <= b`  \n  a is never b" in page
