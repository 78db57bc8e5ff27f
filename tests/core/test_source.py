"""Recipes as text: where things stand, what lies over what."""

from pathlib import Path

import pytest

from diffloom.errors import RecipeError
from diffloom.recipe.source import Source, parse, read, setting


def test_every_value_knows_its_line_and_column() -> None:
    source = parse("a: 1\nb:\n  c: [x, y]\n", "f.yaml")
    assert str(source.marks[("a",)]) == "f.yaml:1:1"
    assert str(source.marks[("b", "c")]) == "f.yaml:3:3"
    assert str(source.marks[("b", "c", 1)]) == "f.yaml:3:10"
    assert str(source.mark(("b", "c", 0, "deeper"))) == "f.yaml:3:7"


def test_yaml_is_1_2() -> None:
    source = parse("rate: 1e-4\nflag: yes\nmode: 010\ntrue_one: true\n", "f")
    assert source.data == {"rate": 1e-4, "flag": "yes", "mode": 10, "true_one": True}


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("a: 1\na: 2\n", "g:2:1", "twice"),
        ("a: [1,\n", "g:2:1", "not YAML"),
        ("- 1\n", "g:1:1", "mapping"),
        ("a: !!python/object:os.system {}\n", "g:1:1", "no YAML tags"),
        ("a: !include other.yaml\n", "g:1:1", "no YAML tags"),
        ("1: 2\n", "g:1:1", "not text"),
    ],
)
def test_what_is_no_recipe_is_refused_where_it_stands(text: str, place: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        parse(text, "g")
    assert place in str(caught.value)


def test_merging_is_deep_and_remembers_who_said_what() -> None:
    below = parse("a: {x: 1, y: 2}\nb: 3\n", "base")
    below.merge(parse("a: {y: 5}\n", "over"))
    assert below.data == {"a": {"x": 1, "y": 5}, "b": 3}
    assert below.marks[("a", "y")].file == "over"
    assert below.marks[("a", "x")].file == "base"


def test_a_component_of_another_type_replaces_the_whole_one() -> None:
    below = parse("sampler: {type: ddim, eta: 0.5}\n", "base")
    below.merge(setting("sampler={type: ddpm}"))
    assert below.data == {"sampler": {"type": "ddpm"}}
    below.merge(setting("sampler.steps=3"))
    assert below.data == {"sampler": {"type": "ddpm", "steps": 3}}


def test_null_takes_a_mapping_away_and_sets_a_value() -> None:
    below = parse("conditioners: {a: {type: x}, b: {type: y}}\ntrain: {clip: 1.0}\n", "base")
    below.merge(parse("conditioners: {a: null}\ntrain: {clip: null}\n", "over"))
    assert below.data == {"conditioners": {"b": {"type": "y"}}, "train": {"clip": None}}


def test_extends_merges_bases_in_order(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("a: 1\nb: 1\n")
    (tmp_path / "two.yaml").write_text("extends: one.yaml\nb: 2\nc: 2\n")
    (tmp_path / "three.yaml").write_text("extends: [one.yaml, two.yaml]\nc: 3\n")
    assert read(tmp_path / "three.yaml").data == {"a": 1, "b": 2, "c": 3}


def test_recipes_that_extend_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("extends: two.yaml\n")
    (tmp_path / "two.yaml").write_text("extends: one.yaml\n")
    with pytest.raises(RecipeError, match=r"circle.*one\.yaml → two\.yaml → one\.yaml"):
        read(tmp_path / "one.yaml")


def test_a_missing_base_names_who_asked(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("extends: none.yaml\n")
    with pytest.raises(RecipeError, match=r"extends in .*one\.yaml"):
        read(tmp_path / "one.yaml")


@pytest.mark.parametrize("text", ["a.b", "=3", "a..b=1"])
def test_a_setting_has_a_path_and_a_value(text: str) -> None:
    with pytest.raises(RecipeError, match=r"key\.path=value"):
        setting(text)


def test_a_setting_says_that_it_comes_from_the_command_line() -> None:
    source = Source()
    source.merge(setting("train.lr=1e-3"))
    assert source.data == {"train": {"lr": 1e-3}}
    assert str(source.mark(("train", "lr"))) == "--set train.lr"
