import pytest

from bridgekit_verify.report.parameters import (
    ParameterError,
    parse_settings,
    read_parameters,
    replace_parameters,
    require_known,
)

CELL = 'seed = 7  # any\nname: str = "zoë"; runs = 3\nsizes = [\n    1,\n    2,\n]\nshare = 0.5\n'


def test_a_literal_is_replaced_and_its_comment_stays() -> None:
    assert replace_parameters(CELL, {"seed": 8}).splitlines()[0] == "seed = 8  # any"


def test_every_literal_can_be_replaced_at_once() -> None:
    new = {"seed": 1, "name": "x", "runs": 2, "sizes": [9], "share": 1}
    assert read_parameters(replace_parameters(CELL, new)) == new


def test_names_of_other_notebooks_are_ignored() -> None:
    assert replace_parameters(CELL, {"elsewhere": 1}) == CELL


def test_a_value_of_another_type_is_refused() -> None:
    with pytest.raises(ParameterError, match="seed must be of type int"):
        replace_parameters(CELL, {"seed": "8"})


def test_an_unknown_name_is_refused_naming_the_known_ones() -> None:
    with pytest.raises(ParameterError, match="no notebook has the parameter sed; known parameters are: runs, seed"):
        require_known({"sed": 1}, ["seed", "runs", "seed"])


@pytest.mark.parametrize("source", ["import os", "seed = os.getpid()"])
def test_a_parameters_cell_holds_literals_only(source: str) -> None:
    with pytest.raises(ParameterError, match="literal"):
        read_parameters(source)


def test_settings_of_a_command_line_are_literals_or_text() -> None:
    assert parse_settings(["seed=8", "name=zoë", "sizes=[1, 2]"]) == {"seed": 8, "name": "zoë", "sizes": [1, 2]}


@pytest.mark.parametrize("text", ["-" * 20_000 + "1", "(" * 3_000, "[" * 150 + "]" * 149, "9" * 5_000])
def test_a_value_that_python_cannot_parse_is_a_text(text: str) -> None:
    assert parse_settings([f"seed={text}"]) == {"seed": text}


def test_a_parameter_that_is_set_twice_is_refused() -> None:
    with pytest.raises(ParameterError, match="the parameter seed is set twice"):
        parse_settings(["seed=8", "runs=2", "seed=8"])


@pytest.mark.parametrize("setting", ["seed", "=3", "a b=3"])
def test_a_setting_without_name_and_value_is_refused(setting: str) -> None:
    with pytest.raises(ParameterError, match="name=value"):
        parse_settings([setting])
