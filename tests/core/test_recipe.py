"""What is wrong with a recipe is said at once, in one line each, with file, line and column."""

import re
from pathlib import Path

import pytest

import diffloom
from diffloom.errors import DiffloomError, RecipeError
from diffloom.recipe import lock


def lines_of(file: Path, text: str, **overrides: object) -> list[str]:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DiffloomError) as caught:
        diffloom.load(file, overrides=overrides).check()
    return str(caught.value).splitlines()


def test_all_problems_come_at_once_each_with_its_place(recipe_file: Path) -> None:
    text = recipe_file.read_text()
    text = text.replace("width: 8", "widht: 8").replace("size: 8", "size: -8").replace("steps: 50", "steps: many")
    text = text.replace("type: ddim", "type: ddmi").replace("lr: 1.0e-2", "lr: [1]") + "extra: 1\n"
    lines = lines_of(recipe_file, text)
    wanted = {
        ":4:": "data.size",
        ":5:": "schedule.steps",
        ":6:": "did you mean 'width'",
        ":9:": "ddim",
        ":11:": "train.lr",
        ":15:": "extra",
    }
    assert len(lines) == len(wanted)
    for place, word in wanted.items():
        found = [line for line in lines if f"small.yaml{place}" in line]
        assert len(found) == 1, (place, lines)
        assert word in found[0]
        assert re.match(r".*small\.yaml:\d+:\d+: ", found[0])


def test_a_missing_part_is_asked_for(recipe_file: Path) -> None:
    text = re.sub(r"task:.*\n", "", recipe_file.read_text())
    assert "task" in lines_of(recipe_file, text)[0]


def test_text_is_no_number_and_true_is_not_one(recipe_file: Path) -> None:
    text = recipe_file.read_text().replace("width: 8", 'width: "8"').replace("batch: 8", "batch: true")
    assert len(lines_of(recipe_file, text)) == 2


def test_resolved_loads_to_an_equal_recipe(recipe_file: Path, tmp_path: Path) -> None:
    recipe = diffloom.load(recipe_file)
    lock.write(recipe, tmp_path / "lock.yaml", {})
    again = diffloom.load(tmp_path / "lock.yaml")
    assert again.resolved() == recipe.resolved()
    assert lock.drift(again) == []


def test_drift_says_what_is_installed_otherwise(recipe_file: Path, tmp_path: Path) -> None:
    lock.write(diffloom.load(recipe_file), tmp_path / "lock.yaml", {})
    text = (tmp_path / "lock.yaml").read_text()
    assert "sampler/ddim from diffloom 0.1.0" in text
    (tmp_path / "lock.yaml").write_text(
        text.replace("sampler/ddim from diffloom 0.1.0", "sampler/ddim from diffloom 0.0.9")
    )
    assert lock.drift(diffloom.load(tmp_path / "lock.yaml")) == [
        "sampler: sampler/ddim from diffloom 0.0.9 → sampler/ddim from diffloom 0.1.0"
    ]


def test_a_default_that_is_newer_than_a_lock_is_no_other_recipe(recipe_file: Path, tmp_path: Path) -> None:
    recipe, file = diffloom.load(recipe_file), tmp_path / "lock.yaml"
    lock.write(recipe, file, {})
    kept = file.read_text()
    assert "  eta: 0.0\n" in kept
    file.write_text(kept.replace("  eta: 0.0\n", ""))  # as if written before ddim knew it
    lock.same(recipe, file)
    assert lock.drift(diffloom.load(file)) == ["sampler.eta: absent → 0.0"]
    with pytest.raises(RecipeError, match=r"sampler\.eta: 0\.0 → 0\.5"):
        lock.same(diffloom.load(recipe_file, overrides={"sampler.eta": 0.5}), file)


def test_an_unknown_recipe_names_the_nearest(recipe_file: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean quickstart"):
        diffloom.load("quikstart")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schedule": {"type": "zero", "steps": 50}, "denoiser.prediction": "eps"}, "zero signal-to-noise"),
        ({"sampler.steps": 51}, "51"),
        ({"denoiser.concat": 2}, "2 channels beside x_t, and no conditioner fills"),
        ({"denoiser.context": 16}, "no conditioner fills that port"),
        ({"data": {"type": "digits", "size": 8}, "conditioners.digit.classes": 3}, "digit"),
        ({"data": {"type": "folder", "path": "/nowhere/at/all", "size": 8}}, "/nowhere/at/all"),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_their_place(
    recipe_file: Path, change: dict[str, object], says: str, request: pytest.FixtureRequest
) -> None:
    class Zero(diffloom.Schedule):
        """Ends without any signal."""

        def __init__(self, *, steps: int = 50) -> None:
            self.steps = steps

        def table(self):  # type: ignore[no-untyped-def] # noqa: ANN202
            import torch

            alpha = torch.linspace(0.99, 0, self.steps, dtype=torch.float64)
            return alpha, (1 - alpha**2).sqrt()

    with diffloom.registry.add("schedule", "zero", Zero), pytest.raises(DiffloomError) as caught:
        diffloom.load(recipe_file, overrides=change).check()
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_check_counts_parameters_and_operations(recipe_file: Path) -> None:
    report = diffloom.load(recipe_file).check()
    assert report.parameters == {"denoiser": 8 * 9 + 8 + 4 * 8 + 8 + 8 * 9 + 1, "conditioners.digit": 11 * 4}
    convolutions = 2 * (8 * 9 + 8 * 9) * 64
    assert report.forward_flops == convolutions + 2 * 4 * 8
    assert report.sample_flops == report.forward_flops * 4 * 2
    assert report.samples > 1000
