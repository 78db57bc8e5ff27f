"""Twelve ways for a plugin to be broken, all installed at once: everything else works, and who is to blame is told."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.plugin_kit.conftest import diffloom, distribution, python

HEAD = """
from diffloom import Sampler, State
from pydantic import Field
class Good(Sampler):
    def step(self, model, schedule, grid, state, noise):
        return State(model(state.x, grid.t[state.index]).x0, state.index + 1)
"""


@dataclass(frozen=True)
class Broken:
    """A way to be broken.

    Attributes:
        source: Of the module.
        reason: What doctor and the error of a recipe say of the cause.
        remedy: What they say to do.
        value: The entry point's value; the class `Bad` of the module by default.
        kind: Under which it is published.
    """

    source: str
    reason: str
    remedy: str
    value: str | None = None
    kind: str = "sampler"


def constructor(parameters: str) -> str:
    return f"{HEAD}class Bad(Good):\n    def __init__(self, *, {parameters}) -> None: ...\n"


WAYS: Mapping[str, Broken] = {
    "import-error": Broken(
        "raise ValueError('bad day')", "ValueError: bad day", "upgrade or uninstall bw-import-error"
    ),
    "missing-dependency": Broken(
        "import no_such_thing.inside", "No module named 'no_such_thing'", "install no_such_thing, or uninstall"
    ),
    "syntax-error": Broken("class Bad(:\n", "SyntaxError", "upgrade or uninstall bw-syntax-error"),
    "wrong-base": Broken("class Bad: ...", "wrong base class", "derive it from Sampler"),
    "wrong-kind": Broken(f"{HEAD}Bad = Good", "wrong base class", "publish it as a sampler", kind="schedule"),
    "abstract-left": Broken(
        "from diffloom import Sampler\nclass Bad(Sampler): ...", "abstract methods are left: got step", "implement them"
    ),
    "no-annotation": Broken(
        constructor("size=3"), "parameter 'size' of its constructor has no annotation", "annotate it, such as size: int"
    ),
    "wrong-default": Broken(
        constructor("size: int = 'three'"),
        "the default of parameter 'size' of its constructor is wrong",
        "correct the default",
    ),
    "bad-entry-point": Broken(HEAD, "malformed entry point", "correct what bw-bad-entry-point 1.5", "bw:Bad()"),
    "no-module": Broken(HEAD, "No module named 'bw_gone'", "reinstall bw-no-module", "bw_gone:Bad"),
    "old-import": Broken(
        "from diffloom import Scheduler",
        "cannot import name 'Scheduler'",
        "written for another version of diffloom (bw-old-import asks for diffloom<0.1, and",
    ),
    "old-signature": Broken(
        "from diffloom import Sampler\nclass Bad(Sampler):\n    def step(self, model, x, t): return x\n",
        "its 'step' cannot be called as Sampler says: expected step(model, schedule, grid, state, noise), got",
        "write it for this version of Sampler, or upgrade bw-old-signature",
    ),
    "old-final": Broken(
        f"{HEAD}class Bad(Good):\n    def sample(self, model, schedule, x_T): return x_T\n",
        "it replaces 'sample', which is final in Sampler",
        "leave 'sample' to the interface",
    ),
    "hook-constructor": Broken(
        "class Bad:\n    def __init__(self): raise OSError('no disk')",
        "OSError: no disk",
        "upgrade or uninstall bw-hook-constructor",
        kind="hooks",
    ),
    "old-hook": Broken(
        "import diffloom\nclass Bad:\n    @diffloom.hook\n    def diffloom_epoch(self, run): ...",
        "unknown hook 'diffloom_epoch'",
        "it may be written for another version; upgrade or uninstall bw-old-hook",
        kind="hooks",
    ),
}
"""Those that one distribution alone can be; clash, slow import and a hook that raises have tests of their own."""

LOUD = """
import diffloom
class Loud:
    @diffloom.hook
    def diffloom_step(self, run, step, record): raise KeyError(f"no {step}")
    @diffloom.hook
    def diffloom_run_finished(self, run): (run.directory / "finished").write_text("yes")
"""

RECIPE = """\
diffloom: 1
name: tiny
data:      {type: digits, size: 8}
schedule:  {type: cosine, steps: 20}
denoiser:  {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, prediction: v}
sampler:   {type: good, steps: 3}
task:      {type: generate}
train:     {steps: 2, batch: 4, log_every: 1}
sample:    {count: 2}
hooks:     [metrics-log, loud]
"""

ASK = """
import contextlib, io, json, sys
from diffloom.cli import main
from diffloom.errors import DiffloomError
from diffloom.kinds import registry
said = {}
for line in json.loads(sys.argv[1]):
    kind, name = line.split("/", 1)
    try:
        registry.get(kind, name)
        said[line] = "fine"
    except DiffloomError as error:
        said[line] = f"{type(error).__name__}: {error}"
checked = io.StringIO()
with contextlib.redirect_stdout(checked):
    code = main(["check", "fine.yaml", "ill.yaml", "--json"])
print(json.dumps({"said": said, "code": code, "checked": json.loads(checked.getvalue())}))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all broken distributions, and some good ones."""
    folder: Path = tmp_path_factory.mktemp("site")
    for way, broken in WAYS.items():
        module = f"bw_{way.replace('-', '_')}"
        entry = f"[diffloom.{broken.kind}]\n{way} = {broken.value or f'{module}:Bad'}\n"
        distribution(folder, f"bw-{way}", entry, **{module: broken.source})
    (folder / "bw_old_import-1.5.dist-info/METADATA").open("a").write("Requires-Dist: diffloom<0.1\n")
    distribution(folder, "bw-one", "[diffloom.sampler]\ntwin = bw_one:Good\n", bw_one=HEAD)
    distribution(folder, "bw-two", "[diffloom.sampler]\ntwin = bw_two:Good\n", bw_two=HEAD, version="2.0")
    slow = f"import time\ntime.sleep(1.2)\n{HEAD}"
    distribution(folder, "bw-slow", "[diffloom.sampler]\nslow = bw_slow:Good\n", bw_slow=slow)
    distribution(folder, "bw-loud", "[diffloom.hooks]\nloud = bw_loud:Loud\n", bw_loud=LOUD)
    distribution(folder, "fine", "[diffloom.sampler]\ngood = fine:Good\ngood.v1 = fine:Good\n", fine=HEAD)
    return folder


@pytest.fixture(scope="module")
def doctor(site: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what doctor finds."""
    done = diffloom("doctor", "--json", sites=[site], cwd=tmp_path_factory.mktemp("doctor"))
    assert done.returncode == 2, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def answers(site: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what asking for each component of this module says, and what checking two recipes does."""
    folder: Path = tmp_path_factory.mktemp("ask")
    (folder / "fine.yaml").write_text(RECIPE)
    (folder / "ill.yaml").write_text(RECIPE.replace("type: good", "type: syntax-error"))
    own = [f"{broken.kind}/{way}" for way, broken in WAYS.items() if broken.kind != "hooks"]
    own += ["sampler/twin", "sampler/bw-two/twin", "sampler/slow", "sampler/good", "sampler/good.v1", "sampler/ddim"]
    done = python("-c", ASK, json.dumps(own), sites=[site], cwd=folder)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def said(answers: dict[str, Any]) -> dict[str, str]:
    """Return what asking for each component says."""
    found: dict[str, str] = answers["said"]
    return found


@pytest.mark.parametrize("way", WAYS)
def test_doctor_says_who_which_version_why_and_what_to_do(way: str, doctor: dict[str, Any]) -> None:
    (found,) = [entry for entry in doctor["broken"] if entry["name"] == way]
    assert (found["distribution"], found["version"], found["kind"]) == (f"bw-{way}", "1.5", WAYS[way].kind)
    assert WAYS[way].reason in found["reason"]
    assert WAYS[way].remedy in found["remedy"]


@pytest.mark.parametrize("way", [way for way, broken in WAYS.items() if broken.kind != "hooks"])
def test_who_asks_for_it_is_told_the_same(way: str, said: dict[str, str]) -> None:
    text = said[f"{WAYS[way].kind}/{way}"]
    assert text.startswith("BrokenPlugin: ")
    assert f"bw-{way} 1.5" in text
    assert WAYS[way].remedy in text


def test_everything_else_works(said: dict[str, str], doctor: dict[str, Any]) -> None:
    assert {said[f"sampler/{name}"] for name in ("good", "good.v1", "ddim", "slow", "bw-two/twin")} == {"fine"}
    named = {entry["name"] for entry in doctor["broken"]}
    assert named == {*WAYS, "twin"}


def test_a_clash_names_both_and_how_to_choose(said: dict[str, str], doctor: dict[str, Any]) -> None:
    (found,) = [entry for entry in doctor["broken"] if entry["name"] == "twin"]
    assert (found["distribution"], found["remedy"]) in [
        ("bw-one", "choose 'bw-one/twin' or 'bw-two/twin'"),
        ("bw-two", "choose 'bw-one/twin' or 'bw-two/twin'"),
    ]
    assert "bw-one 1.5" in found["reason"]
    assert "bw-two 2.0" in found["reason"]
    assert "choose 'bw-one/twin' or 'bw-two/twin'" in said["sampler/twin"]


def test_a_slow_import_is_told_with_its_time(doctor: dict[str, Any]) -> None:
    (found,) = [entry for entry in doctor["slow"] if entry["source"].startswith("bw-")]
    assert found["source"] == "bw-slow 1.5"
    assert found["seconds"] >= 1.2


def test_listing_imports_none_of_them(site: Path, tmp_path: Path) -> None:
    done = diffloom("list", "--json", sites=[site], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    entries = {(entry["kind"], entry["name"]) for entry in json.loads(done.stdout)}
    assert {("sampler", "import-error"), ("sampler", "good"), ("sampler", "good.v1"), ("sampler", "ddim")} <= entries


def test_a_recipe_fails_only_if_it_asks_for_a_broken_part(answers: dict[str, Any]) -> None:
    assert answers["code"] == 2
    fine, ill = answers["checked"]
    assert fine["ok"], fine
    assert not ill["ok"]
    (line,) = ill["problems"]
    assert line.startswith("ill.yaml:6:")
    assert "bw-syntax-error 1.5" in line
    assert "upgrade or uninstall bw-syntax-error" in line


def test_a_hook_that_raises_is_named_and_the_run_survives(site: Path, tmp_path: Path) -> None:
    (tmp_path / "loud.yaml").write_text(RECIPE)
    done = diffloom("run", "loud.yaml", sites=[site], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "no 1" in line]
    assert "hooks 'loud' from bw-loud 1.5 (bw_loud:Loud): it failed in diffloom_step" in line
    assert "leave 'loud' out of the hooks, or tell the makers of bw-loud 1.5" in line
    kept = tmp_path / "runs/tiny"
    assert (kept / "finished").read_text() == "yes"
    assert len((kept / "metrics.jsonl").read_text().splitlines()) >= 2
    assert list((kept / "checkpoints").iterdir())
