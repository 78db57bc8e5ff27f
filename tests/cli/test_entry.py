"""How the command line starts, ends, and speaks of errors."""

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.cli.conftest import Call, distribution, environment

VERBS = ("run", "train", "sample", "eval", "check", "list", "show", "schema", "plot", "doctor")


def test_listing_and_helping_import_no_torch() -> None:
    program = """
import sys
from diffloom.cli import main
assert main(["list"]) == 0
assert main(["list", "--json"]) == 0
assert main(["list", "sampler"]) == 0
assert main(["--help"]) == 0
for verb in ("run", "train", "sample", "eval", "check", "list", "show", "schema", "plot", "doctor"):
    assert main([verb, "--help"]) == 0
found = sorted(name for name in ("torch", "matplotlib", "numpy", "diffloom_ddpm") if name in sys.modules)
sys.exit(f"imported {found}" if found else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_names_every_verb(call: Call) -> None:
    said = call("--help")
    assert said.code == 0
    assert [verb for verb in VERBS if f"\n  {verb} " not in said.out] == []


@pytest.mark.parametrize("verb", [*VERBS[:8], "doctor", "plot schedule", "plot run"])
def test_every_verb_shows_an_example_that_stands_on_its_own_line(call: Call, verb: str) -> None:
    said = call(*verb.split(), "--help")
    assert said.code == 0
    assert f"\n    diffloom {verb}" in said.out


def test_version_is_the_installed_one(call: Call) -> None:
    assert call("--version").out == f"diffloom {version('diffloom')}\n"


def test_the_module_runs_as_the_script_does() -> None:
    done = subprocess.run([sys.executable, "-m", "diffloom", "list", "sampler"], capture_output=True, text=True)
    assert (done.returncode, "ddim" in done.stdout) == (0, True)
    done = subprocess.run([sys.executable, "-m", "diffloom", "lost"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")


def test_bad_usage_exits_with_2(call: Call) -> None:
    said = call("lits")
    assert said.code == 2
    assert "'list'" in said.err
    assert call("run").code == 2
    assert call("sample", "x", "--count", "none").code == 2


def test_a_users_error_is_one_line_without_traceback(call: Call) -> None:
    said = call("train", "nowhere.yaml")
    assert said.code == 2
    assert said.out == ""
    assert len(said.lines) == 1
    assert "nowhere.yaml" in said.err


def test_debug_shows_where_a_users_error_came_from(call: Call) -> None:
    said = call("train", "nowhere.yaml", "--debug")
    assert said.code == 2
    assert "Traceback" in said.err


def test_our_error_exits_with_1_and_says_how_to_see_more(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ZeroDivisionError("no such luck")

    monkeypatch.setattr("diffloom.cli.showing.facts", fail)
    said = call("show", "ddim")
    assert said.code == 1
    assert "ZeroDivisionError: no such luck" in said.err
    assert "--debug" in said.err
    assert "Traceback" not in said.err
    assert "in fail" in call("show", "ddim", "--debug").err


def test_an_error_in_a_components_code_names_its_class_and_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, *given: object) -> None:
        return 1 / 0  # type: ignore[return-value]  # it never comes to that

    monkeypatch.setattr("diffloom_ddim.sampler.DDIM.step", fail)
    said = call("plot", "sampler", "ddim", "--steps", "10,20", "--json")
    assert said.code == 1
    assert "it failed in DDIM (diffloom_ddim.sampler): ZeroDivisionError" in said.err


def test_an_interrupt_exits_with_130_and_says_that_nothing_is_lost(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("diffloom.cli.showing.facts", stop)
    said = call("show", "ddim")
    assert said.code == 130
    assert "nothing that was written is lost" in said.err


def test_a_file_that_cannot_be_written_is_the_users_error(call: Call, tmp_path: Path) -> None:
    said = call("schema", "-o", tmp_path / "nowhere" / "schema.json")
    assert said.code == 2
    assert "nowhere" in said.err


PLUGIN = """
import diffloom, typer
class Greeter:
    @diffloom.hook
    def diffloom_commands(self, app):
        @app.command()
        def greet(name: str) -> None:
            "Say hello."
            typer.echo(f"hello {name}")
        @app.command("list")
        def mine() -> None:
            "Take what is taken."
"""


def test_plugins_add_verbs_and_a_broken_one_harms_nobody(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "dl-greet", "[diffloom.hooks]\ngreet = dl_greet:Greeter\n", dl_greet=PLUGIN)
    broken = "def diffloom_commands(app): pass\nraise RuntimeError('bad day')\n"
    distribution(tmp_path, "dl-bad", "[diffloom.hooks]\nbad = dl_bad\n", dl_bad=broken)
    monkeypatch.syspath_prepend(str(tmp_path))
    helped = call("--help")
    assert re.search(r"\n  greet +Say hello\.\n", helped.out)
    assert "dl-bad 1.5" in helped.err
    assert "RuntimeError: bad day" in helped.err
    assert "its verb 'list' is left out" in helped.err
    greeted = call("greet", "you")
    assert (greeted.code, greeted.out) == (0, "hello you\n")
    assert "\n\n  Say hello.\n\n" in call("greet", "--help").out  # plain, as our own verbs' help is
    assert "ddim" in call("list", "sampler").out


def test_help_leaves_plugins_alone_that_add_no_verbs(tmp_path: Path) -> None:
    source = "import sys\nsys.exit('imported')\n"
    distribution(tmp_path, "dl-heavy", "[diffloom.hooks]\nheavy = dl_heavy\n", dl_heavy=source)
    done = subprocess.run(
        [sys.executable, "-m", "diffloom", "--help"], capture_output=True, text=True, env=environment(tmp_path)
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_json_numbers_that_are_none_become_null(capsys: pytest.CaptureFixture[str]) -> None:
    from diffloom.cli.console import out_json

    out_json({"a": float("nan"), "b": [float("inf"), 1.5], "c": Path("x")})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "c": "x"}
