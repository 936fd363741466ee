"""Enumerations and capitals in the suite's sentences."""

from __future__ import annotations

import pytest

from bridgekit_verify.measure.wording import capitalized, listed


@pytest.mark.parametrize(
    ("members", "text"), [([], ""), ([8], "8"), ([8, 9], "8 and 9"), (["a", "b", "c"], "a, b and c")]
)
def test_members_are_listed_with_one_and(members: list[object], text: str) -> None:
    assert listed(members) == listed(iter(members)) == text


@pytest.mark.parametrize(("text", "wanted"), [("", ""), ("fix 1", "Fix 1"), ("links 8 and Fix 1", "Links 8 and Fix 1")])
def test_only_the_first_letter_becomes_a_capital(text: str, wanted: str) -> None:
    assert capitalized(text) == wanted
