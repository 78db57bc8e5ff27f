"""The verb `sr`: by runs and by recipes, for files and folders, and interrupted by a real signal."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import diffloom
from diffloom.cli import main
from diffloom_stablesr import enlarge
from tests.stablesr.test_task import RECIPE

GIVEN = RECIPE.replace("steps: 2, batch: 4, checkpoint_every: 2", "steps: 0")


def test_the_verb_enlarges_a_folder_by_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("enlarge.yaml").write_text(RECIPE)
    diffloom.Run(diffloom.load("enlarge.yaml"), Path("runs/enlarge")).train()
    Path("in").mkdir()
    for number in range(2):
        Image.linear_gradient("L").rotate(90 * number).resize((9, 7)).save(f"in/{number}.png")
    assert main(["sr", "in", "--out", "out", "--by", "enlarge", "--block", "8", "--margin", "2"]) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["0.png", "1.png"]
    with Image.open("out/1.png") as picture:
        assert picture.size == (36, 28)
    assert "1.png: block 2 of 2" in capsys.readouterr().err
    assert main(["sr", "nothing.png", "-o", "x.png", "--by", "enlarge"]) == 2


def test_a_recipe_that_trains_nothing_enlarges_as_it_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("given.yaml").write_text(GIVEN)
    Image.linear_gradient("L").resize((9, 7)).save("in.png")
    for colour in ("none", "wavelet"):
        assert (
            main(["sr", "in.png", "-o", f"{colour}.png", "--by", "given.yaml", "--set", f"task.colour={colour}"]) == 0
        )
    assert not Path("runs").exists()
    made = [np.asarray(Image.open(f"{name}.png")) for name in ("none", "wavelet")]
    assert made[0].shape == made[1].shape == (28, 36)
    assert not np.array_equal(made[0], made[1])


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Let SIGINT act as in a terminal: a shell starts what runs in its background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_is_told_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("given.yaml").write_text(GIVEN)
    Image.linear_gradient("L").resize((32, 24)).save("in.png")
    command = ["sr", "in.png", "--by", "given.yaml", "--block", "8", "--margin", "2"]
    made, asked = enlarge._made, []

    def interrupted(*given: Any) -> Any:
        asked.append(given)
        if len(asked) == 4:
            signal.raise_signal(signal.SIGINT)
        return made(*given)

    monkeypatch.setattr(enlarge, "_made", interrupted)
    assert main([*command, "-o", "out.png"]) == 130
    assert "stopped after block 3 of 12: nothing is lost" in capsys.readouterr().err
    assert not Path("out.png").exists()
    assert main([*command, "-o", "out.png"]) == 0
    assert len(asked) == 4 + 12 - 3
    assert main([*command, "-o", "again.png"]) == 0
    assert Path("out.png").read_bytes() == Path("again.png").read_bytes()
    assert sorted(path.name for path in Path().iterdir()) == ["again.png", "given.yaml", "in.png", "out.png"]


def test_what_the_network_wants_beside_the_image_comes_from_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = GIVEN.replace("conditioners:\n", "conditioners:\n  digit: {type: class-label, classes: 10, guidance: 0.0}\n")
    Path("given.yaml").write_text(text)
    Image.linear_gradient("L").resize((9, 7)).save("in.png")
    assert main(["sr", "in.png", "-o", "out.png", "--by", "given.yaml"]) == 0
