"""Old recipes and new plugins: versioned names, what a lock file tells, and migrations."""

import sys
import warnings
from pathlib import Path

import pytest

from diffloom.kinds import KINDS
from diffloom.recipe.lock import write
from diffloom.recipe.migrate import OldRecipe, RecipeWarning, migrate
from diffloom.recipe.recipe import load
from diffloom.recipe.source import parse
from diffloom_registry import Registry
from tests.plugin_kit.conftest import diffloom, distribution

OLD = """
from dataclasses import dataclass
from diffloom import Sampler, State

@dataclass(kw_only=True, eq=False)
class Walk(Sampler):
    tempo: int = 1
    def step(self, model, schedule, grid, state, noise):
        return State(model(state.x, grid.t[state.index]).x0, state.index + 1)
"""
NEW = f"""
import diffloom
{OLD.replace("class Walk(", "class WalkV1(")}

@dataclass(kw_only=True, eq=False)
class Walk(Sampler):
    pace: int = 1
    slack: float = 0.5
    step = WalkV1.step

class Migrations:
    @diffloom.hook
    def diffloom_migrate(self, recipe):
        for part in recipe.parts("sampler", "walk"):
            part.rename("tempo", "pace")
"""
ENTRIES = """
[diffloom.sampler]
walk = walks:Walk
walk.v1 = walks:WalkV1
[diffloom.hooks]
walks = walks:Migrations
"""
RECIPE = """\
diffloom: 1
name: tiny
data:      {type: digits, size: 8}
schedule:  {type: cosine, steps: 20}
denoiser:  {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, prediction: v}
sampler:
  type: walk
  steps: 3
  tempo: 2
task:      {type: generate}
train:     {steps: 0}
eval:
  samplers:
    again: {type: walk, tempo: 3, steps: 2}
"""


def test_a_lock_runs_under_a_newer_plugin_and_says_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    distribution(old, "walks", "[diffloom.sampler]\nwalk = walks:Walk\n", version="1.0", walks=OLD)
    distribution(new, "walks", ENTRIES, version="2.0", walks=NEW)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    lock = tmp_path / "recipe.lock.yaml"
    with monkeypatch.context() as then:
        then.syspath_prepend(str(old))
        write(load(tmp_path / "tiny.yaml", registry=Registry(KINDS, services=("diffloom.space:Space",))), lock, {})
    sys.modules.pop("walks")
    kept = lock.read_text()
    assert "sampler/walk from walks 1.0" in kept
    done = diffloom("train", lock, "--quiet", "--out", "runs/again", sites=[new], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("not what the run was made with: ")]
    assert [line.partition("with: ")[2] for line in said] == [
        "sampler: sampler/walk from walks 1.0 → sampler/walk from walks 2.0",
        "eval.samplers.again: sampler/walk from walks 1.0 → sampler/walk from walks 2.0",
        "eval.samplers.again.slack: absent → 0.5",
        "sampler.slack: absent → 0.5",
    ]
    line = kept.splitlines().index("  tempo: 2") + 1
    assert f"recipe.lock.yaml:{line}: RecipeWarning: sampler: 'tempo' is now 'pace' (walks 2.0)" in done.stderr
    assert lock.read_text() == kept
    again = (tmp_path / "runs/again/recipe.lock.yaml").read_text()
    assert "  pace: 2" in again
    assert "tempo" not in again


def test_a_name_and_its_first_version_stand_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path, "pair", ENTRIES.replace("walks:", "pair_m:"), pair_m=NEW)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = Registry(KINDS)
    assert {"walk", "walk.v1"} <= set(found.names("sampler"))
    own = {name: {p.name for p in found.parameters("sampler", name)} for name in ("walk", "walk.v1")}
    assert own["walk"] - own["walk.v1"] == {"pace", "slack"}
    assert own["walk.v1"] - own["walk"] == {"tempo"}


def test_parts_are_found_in_every_place_by_kind() -> None:
    text = RECIPE.replace("size: 8}", "size: 8, transforms: [{type: walk}]}")
    old = OldRecipe(parse(text, "old.yaml"))
    assert [part.path for part in old.parts("sampler", "walk")] == [
        ("data", "transforms", 0),
        ("sampler",),
        ("eval", "samplers", "again"),
    ]
    assert [part.path for part in old.parts("dataset", "digits")] == [("data",)]
    assert [part.path for part in old.parts("sampler", "digits")] == []


def test_changes_are_told_with_the_place_of_the_old_key() -> None:
    old = OldRecipe(parse(RECIPE, "old.yaml"))
    (part, _) = old.parts("sampler", "walk")
    part.rename("tempo", "pace")
    part.replace("type", "stroll")
    part.drop("steps", "the grid says it")
    part.drop("nothing", "it is not there")
    assert [(str(mark), text) for mark, text in old.notes] == [
        ("old.yaml:9:3", "sampler: 'tempo' is now 'pace'"),
        ("old.yaml:7:3", "sampler: type: walk is now stroll"),
        ("old.yaml:8:3", "sampler: 'steps' is left out: the grid says it"),
    ]
    assert old.data["sampler"] == {"type": "stroll", "pace": 2}
    assert ("pace" in part, part["pace"]) == (True, 2)
    assert str(old._source.mark(("sampler", "pace"))) == "old.yaml:9:3"


def test_a_key_that_stands_in_both_ways_is_left_for_the_check_to_refuse() -> None:
    old = OldRecipe(parse(RECIPE.replace("steps: 3", "pace: 3"), "old.yaml"))
    next(iter(old.parts("sampler", "walk"))).rename("tempo", "pace")
    assert old.data["sampler"] == {"type": "walk", "pace": 3, "tempo": 2}
    assert old.notes == []


def test_a_lock_tells_the_version_that_it_was_made_with() -> None:
    lock = "lock: {components: {sampler: sampler/walk from walks 1.0}}"
    old = OldRecipe(parse(lock, "lock.yaml"))
    assert old.version("walks") == "1.0"
    assert old.version("others") is None
    assert OldRecipe(parse(RECIPE, "old.yaml")).version("walks") is None


def test_a_migration_that_fails_is_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = NEW.replace("Walk", "Stroll") + "        raise LookupError('lost')\n"
    distribution(tmp_path, "strolls", "[diffloom.hooks]\nstrolls = strolls_m:Migrations\n", strolls_m=failing)
    monkeypatch.syspath_prepend(str(tmp_path))
    source = parse(RECIPE, "old.yaml")
    with pytest.warns(RecipeWarning, match=r"left out: hooks 'strolls' from strolls 1.5 .*LookupError: lost"):
        assert migrate(source) is source
    assert source.data["sampler"]["tempo"] == 2


def test_a_recipe_without_old_keys_is_read_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path, "walks", ENTRIES.replace("walks:M", "walks_m:M"), walks_m=NEW)
    monkeypatch.syspath_prepend(str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert migrate(parse(RECIPE.replace("tempo", "pace"), "new.yaml")).data["sampler"]["pace"] == 2
