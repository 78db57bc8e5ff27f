"""A package that `diffloom new-plugin` writes works as it is, and harms nothing."""

import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from diffloom.errors import DiffloomError
from diffloom.kinds import KINDS, registry
from diffloom.scaffold import PARTS, names, write
from diffloom.testing.contracts import CONTRACTS, verify
from tests.plugin_kit.conftest import diffloom, installed, python


def test_there_is_a_part_for_every_kind() -> None:
    assert set(PARTS) == {kind.name for kind in KINDS}


@pytest.mark.parametrize("kind", PARTS)
def test_every_part_can_be_registered_and_says_what_its_parameters_are(kind: str) -> None:
    cls = getattr(import_module(f"diffloom.scaffold.parts.{kind}"), PARTS[kind].cls)
    with registry.add(kind, "scaffolded", cls):
        assert registry.component(kind, "scaffolded").summary
        assert [p.name for p in registry.parameters(kind, "scaffolded") if not p.description] == []


@pytest.mark.parametrize("kind", PARTS)
def test_every_part_keeps_its_contract(kind: str) -> None:
    if kind not in CONTRACTS:
        pytest.skip("this kind has no contract")
    cls = getattr(import_module(f"diffloom.scaffold.parts.{kind}"), PARTS[kind].cls)
    with registry.add(kind, "scaffolded", cls):
        assert [outcome for outcome in verify(kind, "scaffolded") if outcome.status == "failed"] == []


def test_a_package_of_one_kind_installs_and_passes_its_tests(tmp_path: Path) -> None:
    package = write("Acme-Levels", ["schedule"], tmp_path)
    site = tmp_path / "site"
    installed(package, site)
    tested = python("-m", "pytest", "-q", "-p", "no:cacheprovider", sites=[site], cwd=package)
    assert tested.returncode == 0, tested.stdout
    assert "2 passed" in tested.stdout


def test_the_command_line_writes_a_package_and_says_what_comes_next(tmp_path: Path) -> None:
    done = diffloom("new-plugin", "acme", "--kind", "metric", "--kind", "sampler", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "acme"
    assert "pip install -e '.[test]' && pytest" in done.stderr
    groups = tomllib.loads((tmp_path / "acme/pyproject.toml").read_text())["project"]["entry-points"]
    assert groups == {
        "diffloom.sampler": {"acme-fresh": "acme.sampler:Fresh"},
        "diffloom.metric": {"acme-spread": "acme.metric:Spread"},
    }


def test_every_written_file_is_as_its_kinds_need(tmp_path: Path) -> None:
    one, all_kinds = write("acme-one", ["task"], tmp_path), write("acme-all", list(PARTS), tmp_path)
    assert {file.name for file in one.glob("src/acme_one/*.py")} == {"__init__.py", "task.py"}
    assert not (one / "tests/test_metric.py").exists()
    assert {file.stem for file in all_kinds.glob("src/acme_all/*.py")} == {"__init__", *PARTS}
    recipe = (all_kinds / "recipe.yaml").read_text()
    assert [name for name in names("acme-all", PARTS).values() if name not in recipe] == []
    assert "${{ matrix.python-version }}" in (one / ".github/workflows/test.yml").read_text()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("2fast", "cannot be the name"),
        ("../up", "cannot be the name"),
        ("a b", "cannot be the name"),
        ("", "cannot be the name"),
        ("acme-", "cannot be the name"),
        ("json", "Python itself"),
        ("class", "Python itself"),
        ("torch", "a package 'torch' already"),
        ("Diffloom-DDPM", "a package 'diffloom_ddpm' already"),
        ("tests", "a package 'tests' already"),
    ],
)
def test_a_name_that_will_not_do_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DiffloomError, match=reason):
        write(name, ["schedule"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_kind_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DiffloomError, match="did you mean 'sampler'"):
        write("acme", ["schedule", "sampeler"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "acme").mkdir()
    kept = tmp_path / "acme/notes.txt"
    kept.write_text("mine")
    with pytest.raises(DiffloomError, match="there is something already"):
        write("acme", ["schedule"], tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["acme", "notes.txt"]
    assert kept.read_text() == "mine"


def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space"):
        write("acme", ["schedule"], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_package_of_all_kinds_trains_samples_and_passes_every_contract(tmp_path: Path) -> None:
    package = write("acme", list(PARTS), tmp_path)
    site = tmp_path / "site"
    installed(package, site)
    tested = python("-m", "pytest", "-q", "-p", "no:cacheprovider", sites=[site], cwd=package)
    assert tested.returncode == 0, tested.stdout
    only = [f"--diffloom-only={kind}/{name}" for kind, name in names("acme", PARTS).items()]
    contracts = python("-m", "pytest", "-q", "--diffloom", *only, "-p", "no:cacheprovider", sites=[site], cwd=package)
    assert contracts.returncode == 0, contracts.stdout
    small = ("--set", "train.steps=4", "--set", "sampler.steps=3", "--set", "eval.count=8", "--set", "sample.count=4")
    ran = diffloom("run", "recipe.yaml", *small, "--quiet", sites=[site], cwd=package)
    assert ran.returncode == 0, ran.stderr
    assert "spread_real" in ran.stdout
    assert diffloom("doctor", sites=[site], cwd=package).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", PARTS)
def test_a_recipe_with_one_component_of_its_own_fits_together(kind: str, tmp_path: Path) -> None:
    package = write("acme", [kind], tmp_path)
    site = tmp_path / "site"
    installed(package, site)
    checked = diffloom("check", "recipe.yaml", sites=[site], cwd=package)
    assert checked.returncode == 0, checked.stderr
    assert "all parts fit together" in checked.stdout
