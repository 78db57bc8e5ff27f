"""`plot schedule`, `plot sampler` and `plot run`."""

import json
from pathlib import Path

import pytest
from PIL import Image

from diffloom.cli.curves import curve
from diffloom.cli.terminal import plotted
from tests.cli.conftest import Call


def test_schedules_are_drawn_side_by_side(call: Call, recipe: Path) -> None:
    said = call("plot", "schedule", "linear", recipe, "-o", "s.png")
    assert said.code == 0, said.err
    assert "linear: vp, 1000 steps" in said.out
    assert "20 steps" in said.out
    assert "visits 3 levels" in said.out
    with Image.open("s.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 600


def test_a_curve_holds_the_schedules_own_numbers(recipe: Path) -> None:
    found = curve(str(recipe), ["sampler.steps=5"])
    assert len(found.t) == 20
    assert len(found.visited) == 5
    assert all(a > b for a, b in zip(found.visited, found.visited[1:], strict=False))
    assert all(abs(a * a + s * s - 1) < 1e-12 for a, s in zip(found.alpha, found.sigma, strict=True))
    assert all(a > b for a, b in zip(found.log_snr, found.log_snr[1:], strict=False))


def test_a_wrong_name_or_format_is_the_users_error(call: Call) -> None:
    assert call("plot", "schedule", "lineer").code == 2
    said = call("plot", "schedule", "linear", "-o", "s.doc")
    assert said.code == 2
    assert ".png" in said.err


def test_samplers_show_their_orders(call: Call) -> None:
    said = call("plot", "sampler", "ddim", "heun", "ddpm", "--steps", "20,40", "-o", "o.png")
    assert said.code == 0, said.err
    rows = {
        line.split()[0]: line.split() for line in said.out.splitlines() if line.startswith(("ddim", "heun", "ddpm"))
    }
    assert [row[1] for row in rows.values()] == ["1", "2", "1"]
    assert float(rows["ddim"][2]) == pytest.approx(0.97, abs=0.03)
    assert float(rows["heun"][2]) == pytest.approx(2.02, abs=0.04)
    assert [row[3] for row in rows.values()] == ["points", "points", "moments"]
    assert rows["heun"][5] == "(39)"
    with Image.open("o.png") as picture:
        assert picture.format == "PNG"


def test_a_recipes_sampler_runs_on_its_own_schedule(call: Call, recipe: Path) -> None:
    said = call("plot", "sampler", recipe, "--set", "sampler.eta=1", "--steps", "4,8", "--json")
    assert said.code == 0, said.err
    (found,) = json.loads(said.out)
    assert found["stochastic"] is True
    assert [run["evaluations"] for run in found["runs"]] == [4, 8]
    assert found["runs"][0]["error"] > found["runs"][1]["error"] > 0
    assert call("plot", "sampler", recipe, "--steps", "4,20").code == 2  # its schedule has 20 levels


@pytest.mark.parametrize("steps", ["10", "20,10", "1,x", "0,5", "5,5"])
def test_steps_must_rise(call: Call, steps: str) -> None:
    said = call("plot", "sampler", "ddim", "--steps", steps)
    assert said.code == 2
    assert "--steps: these are no rising numbers" in said.err


def test_loss_curves_are_those_that_were_logged(call: Call, trained: Path) -> None:
    said = call("plot", "run", "tiny", "-o", "loss.png", "--figure", "loss", "--figure", "gradient_norm")
    assert said.code == 0, said.err
    losses = [json.loads(line)["loss"] for line in (trained / "metrics.jsonl").read_text().splitlines()]
    row = next(line.split() for line in said.out.splitlines() if line.startswith("  tiny"))
    assert row[1:] == ["4", f"{losses[0]:.5g}", f"{min(losses):.5g}", f"{losses[-1]:.5g}"]
    assert "gradient_norm" in said.out
    assert Image.open("loss.png").height > 500


def test_a_figure_that_was_not_logged_names_the_nearest(call: Call, trained: Path) -> None:
    said = call("plot", "run", "tiny", "--figure", "los")
    assert said.code == 2
    assert "'loss'" in said.err


def test_a_run_without_a_log_says_how_to_get_one(call: Call, trained: Path) -> None:
    (trained / "metrics.jsonl").unlink()
    said = call("plot", "run", "tiny")
    assert said.code == 2
    assert "metrics-log" in said.err


def test_a_drawing_puts_its_extremes_at_its_edges() -> None:
    drawn = plotted({"up": [(0, 0), (10, 5)], "level": [(0, 2.5), (10, float("inf"))]}, width=11, height=5)
    lines = drawn.splitlines()
    assert lines[0] == "5 │          ●"
    assert lines[2].strip() == "│○"
    assert lines[4] == "0 │●"
    assert "● up   ○ level" in lines[-1]


@pytest.mark.parametrize("points", [[], [(0.0, float("nan"))]])
def test_nothing_is_drawn_of_nothing(points: list[tuple[float, float]]) -> None:
    assert plotted({"a": points}, title="t") == "t: nothing to draw"


def test_a_single_point_is_drawn() -> None:
    assert "●" in plotted({"a": [(1.0, 1.0)]})
