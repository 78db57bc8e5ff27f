"""A stranger's schedule and sampler, installed for real, are tested by installation alone; wrong signs are found."""

import json
import shutil
from pathlib import Path

import pytest
from tests.plugin_kit.conftest import Done, diffloom, installed, python

from diffloom.testing.contracts import CONTRACTS

PACKAGE = Path(__file__).parent / "diffloom_straight"
BOTH = ("--diffloom-only", "schedule/straight", "--diffloom-only", "sampler/two-step")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the package is installed."""
    folder = tmp_path_factory.mktemp("straight")
    installed(Path(shutil.copytree(PACKAGE, folder / "package")), folder / "site")
    return folder / "site"


def changed(site: Path, folder: Path, module: str, old: str, new: str) -> Path:
    """Return a copy of what is installed with one text in a module replaced."""
    copy = Path(shutil.copytree(site, folder / "changed"))
    file = copy / "diffloom_straight" / module
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))
    return copy


def battery(site: Path, cwd: Path, *options: str) -> Done:
    """Run pytest in an empty folder, with nothing but the installed contracts to test."""
    return python("-m", "pytest", "-q", "-p", "no:cacheprovider", "--diffloom", *options, sites=[site], cwd=cwd)


def test_installed_parts_get_the_whole_battery(site: Path, tmp_path: Path) -> None:
    done = battery(site, tmp_path, *BOTH)
    assert done.returncode == 0, done.stdout + done.stderr
    checks = len(CONTRACTS["schedule"]().checks()) + len(CONTRACTS["sampler"]().checks())
    assert f"{checks} passed" in done.stdout


def test_installed_parts_are_listed_and_measured(site: Path, tmp_path: Path) -> None:
    listed = diffloom("list", "sampler", sites=[site], cwd=tmp_path)
    assert any("two-step" in line and "diffloom-straight 0.1.0" in line for line in listed.stdout.splitlines())
    done = diffloom("plot", "sampler", "two-step", "--json", "--steps", "80,160", sites=[site], cwd=tmp_path)
    (found,) = json.loads(done.stdout)
    assert found["order"] == pytest.approx(2, abs=0.1)


WRONG = {
    "the schedule rises": (
        ("schedule.py", "self.start - 2", "self.start + 2"),
        "schedule/straight",
        ("any-number-of-levels", "log-SNR does not fall at t = 1", "steps = 2"),
    ),
    "noise is subtracted": (
        ("sampler.py", "said.x0 + there.sigma", "said.x0 - there.sigma"),
        "sampler/two-step",
        ("point-is-found", "what is found and the point: they differ", "n = 2"),
    ),
    "the slope is extrapolated backwards": (
        ("sampler.py", "x = x + there.alpha", "x = x - there.alpha"),
        "sampler/two-step",
        ("claimed-order", "order 2 is claimed, ", ""),
    ),
    "an index too far": (
        ("sampler.py", "state.index + 1, {", "state.index + 2, {"),
        "sampler/two-step",
        ("step-is-pure", "the index did not move by one", "n = 1"),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_sign_fails_with_a_readable_smallest_example(site: Path, tmp_path: Path, name: str) -> None:
    (module, old, new), part, (check, reason, example) = WRONG[name]
    done = diffloom("verify", part, sites=[changed(site, tmp_path, module, old, new)], cwd=tmp_path)
    assert done.returncode == 2
    lines = done.stdout.splitlines()
    at = lines.index(f"failed            {part}  {check}")
    assert reason in lines[at + 1]
    if example:
        assert lines[at + 2].startswith("    smallest example: ")
        assert lines[at + 2].endswith(example)
        assert len(lines[at + 2]) < 160


def test_pytest_shows_the_smallest_example_too(site: Path, tmp_path: Path) -> None:
    wrong = changed(site, tmp_path, *WRONG["noise is subtracted"][0])
    done = battery(wrong, tmp_path, "--diffloom-only", "sampler/two-step", "-k", "point-is-found")
    assert done.returncode == 1
    assert "smallest example: schedule = Tabled(alpha=[" in done.stdout
