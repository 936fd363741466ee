"""Families of thread ids: which are documented, where they come from, and a reader's own."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekit import ids
from bridgekit.errors import InvalidId, UnknownName
from bridgekit_verify.errors import InvalidParameter
from bridgekit_verify.measure.tables import family_table
from bridgekit_verify.measure.thread_id_families import (
    FAMILIES,
    families_by_name,
    own_threads,
    thread_ids,
    threads_by_family,
)
from tests.tree import ROOT

DOCUMENTED = [
    "thread_123",
    "thread_<16 hex>",
    "thread_<user>_<name>",
    "thread_<user>_<epoch>",
    "thread_<op>_<n>_<8 hex>",
    "session_<ms>_<8 hex>",
]


def test_six_families_are_documented_and_seven_are_stress() -> None:
    assert [name for name, family in FAMILIES.items() if family.documented] == DOCUMENTED
    assert sum(not family.documented for family in FAMILIES.values()) == 7
    assert all(name == family.name for name, family in FAMILIES.items())


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_family_cites_repository_commit_and_file(name: str) -> None:
    source = str(FAMILIES[name].source)
    assert re.fullmatch(r"netra-systems/zen, commit [0-9a-f]{9}, [\w./-]+\.(py|md): .+", source)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documentation_has_the_citation(name: str) -> None:
    source = FAMILIES[name].source
    assert source is not None
    row = f"| `{name}` | {source.commit} | `{source.file}` | {source.shape} |"
    assert row in (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")


def test_table_of_families_has_example_and_source() -> None:
    table = family_table({**FAMILIES, "mine": ["support-42"]}).set_index("thread ids")
    assert list(table["documented"]) == [True] * 6 + [False] * 7 + [None]
    assert list(table.loc["thread_123"]) == ["thread_123", True, str(FAMILIES["thread_123"].source)]
    assert list(table.loc["chat_<n>"]) == ["chat_0", False, "chosen as stress"]
    assert list(table.loc["mine"]) == ["support-42", None, "your own"]
    assert table.loc["1 kB"]["example"] == f"thread_0{'x' * 39}…"


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("threads", [0, 1, 100])
def test_thread_ids_are_distinct_have_their_own_users_and_depend_on_the_seed(name: str, threads: int) -> None:
    owned = thread_ids(name, threads, seed=1)
    assert len({each.thread_id for each in owned}) == len({each.user_id for each in owned}) == threads
    assert all(ids.thread_id(each.thread_id) and ids.user_id(each.user_id) for each in owned)
    assert owned == thread_ids(name, threads, seed=1)
    assert owned[:5] == thread_ids(name, min(threads, 5), seed=1)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("thread_123", r"thread_12[34]"),
        ("thread_<16 hex>", r"thread_[0-9a-f]{16}"),
        ("thread_<user>_<name>", r"thread_[a-z]+_[a-z_]+"),
        ("thread_<user>_<epoch>", r"thread_[a-z]+_\d{10}"),
        ("thread_<op>_<n>_<8 hex>", r"thread_[a-z]+_\d+_[0-9a-f]{8}"),
        ("session_<ms>_<8 hex>", r"session_\d{5}_[0-9a-f]{8}"),
        ("thread_<uuid4>", r"thread_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
        ("chat_<n>", r"chat_\d"),
        ("<uuid4>", r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
        ("starts with another id", r"thread_team0(_red)?"),
        ("contains _run_", r"thread_run_\d_run_\d"),
        ("spaces and unicode", r"thread_Zürich \d · 東京"),
        ("1 kB", r"thread_\dx{1016}"),
    ],
)
def test_ids_match_the_name_of_their_family(name: str, shape: str) -> None:
    assert all(re.fullmatch(shape, owned.thread_id) for owned in thread_ids(name, 2))


@pytest.mark.parametrize("name", ["cats", "", None, ["support-42"], "THREAD_123"])
def test_unknown_family_raises_an_error_that_lists_the_known_ones_and_how_to_pass_own_ids(name: Any) -> None:
    for refused in (lambda: thread_ids(name, 1), lambda: families_by_name([name])):
        with pytest.raises(UnknownName) as raised:
            refused()
        assert str(raised.value).startswith(f"no family of thread ids is called {name!r}; known: 'thread_123', ")
        assert str(raised.value).endswith("for thread ids of your own, pass families={'mine': ['support-42']}")
        assert raised.value.known == tuple(FAMILIES)


@pytest.mark.parametrize("chosen", ["chat_<n>", ["chat_<n>"], ("chat_<n>",), {"chat_<n>": FAMILIES["chat_<n>"]}])
def test_families_are_chosen_by_name(chosen: Any) -> None:
    assert families_by_name(chosen) == {"chat_<n>": FAMILIES["chat_<n>"]}


def test_own_ids_are_a_family_with_one_user_for_each_id() -> None:
    mine = families_by_name({**FAMILIES, "mine": ["support-42", "Zürich 1", "x" * 1_024]})["mine"]
    assert (mine.group, mine.documented) == ("your own", None)
    for count in (0, 1, 7):
        assert [owned.thread_id for owned in mine.threads(count)] == ["support-42", "Zürich 1", "x" * 1_024]
    assert len({owned.user_id for owned in mine.threads(3)}) == 3


def is_valid(thread_id: str) -> bool:
    """Return whether bridgekit itself accepts the thread id."""
    try:
        ids.thread_id(thread_id)
    except InvalidId:
        return False
    return True


@given(st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=8, unique=True))
def test_own_ids_are_used_unchanged_or_refused_with_what_is_allowed(given_ids: list[str]) -> None:
    if all(map(is_valid, given_ids)):
        assert [owned.thread_id for owned in own_threads(given_ids)] == given_ids
    else:
        with pytest.raises(InvalidId, match="A thread id is a string of 1 to 1,024 bytes of UTF-8, not blank"):
            own_threads(given_ids)


@pytest.mark.parametrize(
    ("families", "message"),
    [
        ({"mine": ["support-42", ""]}, r"families\['mine'\]\[1\] = '': must not be empty\. A thread id is"),
        ({"mine": ["  "]}, r"\[0\] = '  ': must not be empty"),
        ({"mine": [42]}, r"\[0\] = 42: must be a string, not int\. A thread id is"),
        ({"mine": [None]}, r"\[0\] = None: must be a string, not NoneType"),
        ({"mine": ["a\nb"]}, r"must not contain the control character '\\n'"),
        ({"mine": ["\ud800"]}, r"must not contain the control character"),
        ({"mine": ["é" * 513]}, r"must be at most 1,024 bytes, not 1,026"),
        ({"mine": ["a", "b", "a"]}, r"\[2\]: 'a' occurs twice: list each thread id once"),
    ],
)
def test_invalid_id_of_a_reader_raises_an_error_that_names_it(families: Any, message: str) -> None:
    with pytest.raises(InvalidId, match=message):
        families_by_name(families)


@pytest.mark.parametrize(
    ("families", "message"),
    [
        (
            {"mine": "support-42"},
            r"families\['mine'\] must be a list of thread ids, such as \['support-42'\], not 's",
        ),
        ({"mine": b"support-42"}, "must be a list of thread ids"),
        ({"mine": None}, "must be a list of thread ids, .* not None"),
        ({"mine": 3}, "must be a list of thread ids, .* not 3"),
        ({"mine": []}, r"must be a list of at least one thread id, .* not \[\]"),
        ({" ": ["a"]}, "the name of a family must be a string that is not blank, not ' '"),
        ({3: ["a"]}, "the name of a family must be a string that is not blank, not 3"),
        ({}, r"families must be at least one family of thread ids, not \{\}"),
        ([], r"families must be at least one family of thread ids, not \[\]"),
        (None, "families must be a name, a list of names, or a mapping such as .*, not None"),
        (True, "families must be a name, .*, not True"),
        (5, "families must be a name, .*, not 5"),
        (b"mine", "families must be a name, .*, not b'mine'"),
        (FAMILIES["thread_123"], "families must be a name, .*, not Family"),
        ({"mine": 10**5_000}, "not int with an integer of too many digits"),
    ],
)
def test_choice_of_a_wrong_shape_raises_an_error_that_states_what_is_allowed(families: Any, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        families_by_name(families)


def test_id_that_two_families_have_keeps_its_first_owner() -> None:
    families = families_by_name({"one": ["a", "b"], "two": ["b", "c"]})
    together = threads_by_family(families, 1)
    assert {name: [owned.thread_id for owned in threads] for name, threads in together.items()} == {
        "one": ["a", "b"],
        "two": ["c"],
    }
