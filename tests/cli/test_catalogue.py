"""`list`, `show` and `schema`, and components from a file."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from diffloom.kinds import registry
from diffloom.recipe.recipe import shipped
from diffloom.recipe.schema import recipe_schema
from tests.cli.conftest import RECIPE, Call

SAMPLER = '''
from diffloom import Sampler

class HalfWay(Sampler):
    """Stands still."""
    def step(self, model, schedule, grid, state, noise):
        return state

class Named(HalfWay):
    name = "of-another-name"

class _Hidden(HalfWay):
    pass
'''


def test_list_has_everything_that_is_installed(call: Call) -> None:
    said = call("list", "--json")
    found = {(entry["kind"], entry["name"]) for entry in json.loads(said.out)}
    assert {(entry.kind, entry.name) for entry in registry.entries()} <= found
    assert ("hooks", "progress") in found
    text = call("list").out
    assert [kind for kind in registry.kinds if registry.names(kind) and f"\n{kind}  " not in f"\n{text}"] == []


def test_list_of_a_kind_has_only_that(call: Call) -> None:
    kinds = {entry["kind"] for entry in json.loads(call("list", "schedule", "--json").out)}
    assert kinds == {"schedule"}
    assert "quickstart" in call("list", "recipes").out


def test_list_of_no_kind_names_the_nearest(call: Call) -> None:
    said = call("list", "samplers")
    assert said.code == 2
    assert "'sampler'" in said.err


def test_show_tells_parameters_with_bounds_and_help(call: Call) -> None:
    said = call("show", "denoiser/unet", "--json")
    found = json.loads(said.out)
    assert found["distribution"] == "diffloom"
    channels = next(parameter for parameter in found["parameters"] if parameter["name"] == "channels")
    assert (channels["type"], channels["bounds"], channels["default"]) == ("int", "> 0", 64)
    assert channels["help"]
    assert {"prediction", "weights"} <= {p["name"] for p in found["parameters"] if p["common"]}
    assert "mid" in found["declares"]["taps"]


def test_show_writes_what_is_required(call: Call) -> None:
    said = call("show", "class-label")
    assert said.code == 0
    assert "classes " in said.out
    assert "int > 0, required" in said.out


@pytest.mark.parametrize("entry", registry.entries(), ids=lambda entry: f"{entry.kind}/{entry.name}")
def test_every_component_can_be_shown(call: Call, entry: Any) -> None:
    said = call("show", f"{entry.kind}/{entry.name}")
    assert said.code == 0, said.err
    assert entry.value in said.out


def test_show_of_nothing_names_the_nearest(call: Call) -> None:
    assert "'ddim'" in call("show", "sampler/dimd").err
    assert "'ddim'" in call("show", "dimd").err
    assert call("show", "nothing/at/all").code == 2


def test_a_file_publishes_its_components_for_one_command(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SAMPLER)
    names = {entry["name"] for entry in json.loads(call("list", "sampler", "--json", "--plugin", "mine.py").out)}
    assert {"half-way", "of-another-name"} <= names
    assert not any("hidden" in name for name in names)
    assert "Stands still." in call("show", "half-way", "--plugin", "mine.py").out
    assert call("show", "sampler/half-way").code == 2


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1\n", "it defines no component"),
        ("import nowhere_at_all\n", "mine.py:1: it cannot be imported: got ModuleNotFoundError"),
        ("\n\ndef broken(:\n", "mine.py:3: it cannot be imported: got SyntaxError"),
        ("from diffloom import Sampler\nclass Left(Sampler):\n    pass\n", "abstract methods are left"),
    ],
)
def test_a_file_that_publishes_nothing_says_why(call: Call, tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "mine.py").write_text(source)
    found = call("list", "--plugin", "mine.py")
    assert found.code == 2
    assert said in found.err
    assert call("list", "--plugin", "gone.py").code == 2


@pytest.fixture(scope="module")
def schema() -> Any:
    found = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


@pytest.mark.parametrize("name", shipped())
def test_the_schema_accepts_every_shipped_recipe(schema: Any, name: str) -> None:
    recipe = YAML(typ="safe", pure=True).load(shipped()[name])
    assert [error.message for error in schema.iter_errors(recipe)] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("channels: 8", "chanels: 8"),
        ("channels: 8", "channels: -8"),
        ("type: ddim", "type: ddmi"),
        ("steps: 4", "steps: four"),
        ("name: tiny\n", ""),
        ("classes: 10, ", ""),
        ("task:      {type: generate}\n", ""),
    ],
)
def test_the_schema_refuses_what_the_recipe_does(schema: Any, old: str, new: str) -> None:
    assert schema.is_valid(YAML(typ="safe", pure=True).load(RECIPE))
    assert not schema.is_valid(YAML(typ="safe", pure=True).load(RECIPE.replace(old, new)))


def test_a_recipe_that_extends_may_leave_out_what_its_base_says(schema: Any) -> None:
    over = {
        "extends": "base.yaml",
        "denoiser": {"channels": 8},
        "sampler": None,
        "conditioners": {"digit": {"drop": 0}},
    }
    assert schema.is_valid(over)
    assert not schema.is_valid({**over, "denoiser": {"chanels": 8}})
    assert not schema.is_valid({key: value for key, value in over.items() if key != "extends"})


def test_metrics_and_samplers_of_the_evaluation_are_components(schema: Any) -> None:
    recipe = YAML(typ="safe", pure=True).load(RECIPE)
    assert schema.is_valid({**recipe, "eval": {"samplers": {"fast": {"type": "ddim", "steps": 5}}}})
    assert not schema.is_valid({**recipe, "eval": {"samplers": {"fast": {"type": "nothing"}}}})
    assert not schema.is_valid({**recipe, "eval": {"metrics": [{"type": "nothing"}]}})


def test_schema_prints_what_it_writes(call: Call, tmp_path: Path) -> None:
    printed = json.loads(call("schema").out)
    assert call("schema", "-o", tmp_path / "s.json").code == 0
    assert json.loads((tmp_path / "s.json").read_text()) == printed
    assert printed["$schema"] == "https://json-schema.org/draft/2020-12/schema"
