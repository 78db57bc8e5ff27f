"""Errors: one sentence from fields, on one line, and the same after a journey to another process."""

import pickle

import pytest

from diffloom_registry import BrokenPlugin, ConfigError, DiffloomError, Problem, UnknownComponent
from diffloom_registry.errors import dotted, listed, nearest
from diffloom_registry.wording import describe, show


def test_all_parts_stand_on_one_line() -> None:
    error = DiffloomError("wrong\nvalue", where="a.b", expected="an integer", got="'x'", remedy="mend it")
    assert str(error) == "a.b: wrong value: expected an integer, got 'x'; mend it"
    assert str(DiffloomError("it is late")) == "it is late"
    assert str(DiffloomError("it is late", remedy="sleep")) == "it is late; sleep"
    assert str(DiffloomError("late", got="noon")) == "late: got noon"


def test_a_config_error_has_one_line_for_each_problem() -> None:
    error = ConfigError([Problem(("a", 0, "b"), "missing", "an integer"), Problem((), "empty")])
    assert str(error) == "a[0].b: missing: expected an integer\nempty"


@pytest.mark.parametrize(
    "error",
    [
        DiffloomError("late", where="here", remedy="sleep"),
        UnknownComponent("sampler", "dim", installed=["ddim"], elsewhere=["task"]),
        BrokenPlugin("broken", distribution="acme", version="1", value="a:B", where="x"),
        ConfigError([Problem(("a",), "missing")]),
    ],
)
def test_errors_survive_pickling(error: DiffloomError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_paths_are_written_as_in_a_recipe() -> None:
    assert dotted(("data", "transforms", 0, "size")) == "data.transforms[0].size"
    assert dotted(("a.b", 1, "")) == "['a.b'][1]['']"


def test_lists_of_names_stay_short() -> None:
    assert listed([str(number) for number in range(18)]).endswith("14, 15 and 2 more")


def test_nearest_ignores_case() -> None:
    assert nearest("UNET", ["unet", "vit"]) == ["unet"]
    assert nearest("heun", ["unit", "vit"]) == []


def test_values_are_shown_short() -> None:
    assert show("x" * 100) == "'" + "x" * 46 + "…"
    assert show([1, "a", None, True, {}]) == "the list [1, 'a', null, true, an empty mapping]"
    assert (show([]), show(object())) == ("an empty list", "an object of type object")


def test_schemas_are_described() -> None:
    numbers = {
        "type": "array",
        "items": {"type": "array", "items": {"type": "number", "minimum": 0}},
        "maxItems": 3,
    }
    assert describe(numbers, {}) == "a list of lists of numbers of at least 0 of length at most 3"
    assert describe({"type": "string", "format": "path"}, {}, plural=True) == "paths"
    assert describe({"type": "string", "format": "date"}, {}) == "text in the form of a date"
    assert describe({"const": "a"}, {}) == "'a'"
    assert describe({}, {}) == ""
