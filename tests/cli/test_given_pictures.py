"""`sample` with pictures: restorations of files, and of other data."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import diffloom
from diffloom import Run
from diffloom.cli import main
from diffloom.cli.asking import conditions
from diffloom.cli.pictures import read
from diffloom.data import Sample, Transform
from diffloom.errors import DataError

RECIPE = """\
diffloom: 1
name: holes
data:      {type: digits, size: 8, transforms: [{type: random-mask}]}
schedule:  {type: cosine, steps: 40}
denoiser:  {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, concat: 2, prediction: v}
conditioners: {hole: {type: mask}}
sampler:   {type: ddim, steps: 2}
task:      {type: inpaint}
train:     {steps: 1, batch: 4}
sample:    {count: 2}
hooks:     []
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "holes.yaml").write_text(RECIPE)
    Run(diffloom.load("holes.yaml")).train()
    Image.linear_gradient("L").resize((30, 20)).save("photograph.png")
    hole = Image.new("L", (30, 20))
    hole.paste(255, (15, 0, 30, 20))
    hole.save("hole.png")
    return tmp_path


def level(file: Path) -> torch.Tensor:
    return torch.tensor(list(Image.open(file).convert("L").tobytes())).view(8, 8)


def test_known_pixels_of_a_given_picture_are_kept(run: Path) -> None:
    """The hole is the right half, and the two samples differ in it alone."""
    given = ["--give", "image=photograph.png", "--give", "mask=hole.png"]
    assert main(["sample", "holes", *given, "--count", "2", "--out", "filled", "--quiet"]) == 0
    made = [level(file) for file in sorted((run / "filled").glob("*.png"))]
    photograph = read("photograph.png", torch.zeros(1, 8, 8), mask=False, where="")
    expected = photograph.add(1).mul(127.5).round()[0]
    for image in made:
        torch.testing.assert_close(image[:, :4].float(), expected[:, :4], atol=1, rtol=0)
    assert not torch.equal(made[0][:, 4:], made[1][:, 4:])


def test_what_is_not_given_comes_from_the_data(run: Path) -> None:
    assert main(["sample", "holes", "--give", "image=photograph.png", "--out", "one", "--quiet"]) == 0
    assert main(["sample", "holes", "--out", "none", "--quiet"]) == 0
    assert len(list((run / "one").glob("*.png"))) == len(list((run / "none").glob("*.png"))) == 2


class Halved(Transform):
    """Adds the image with values in [0, 1]."""

    adds = maps = ("half",)

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        return sample | {"half": sample["image"] / 2 + 0.5}


def test_the_file_of_a_map_becomes_values_from_0_to_1(run: Path) -> None:
    with diffloom.registry.add("transform", "halved", Halved):
        data = {"type": "digits", "size": 8, "transforms": [{"type": "halved"}]}
        maps = {
            "type": "local-controls",
            "maps": {"half": {"channels": 1}},
            "fusion": "add",
            "widths": [8],
            "narrow": [4, 4, 8],
        }
        changes = {"data": data, "conditioners": {"hole": None, "maps": maps}, "denoiser.concat": 0}
        opened = Run(diffloom.load("holes.yaml", overrides={**changes, "task": {"type": "generate"}}), run / "maps")
        asked = conditions(opened, ["half=photograph.png"], 2)["half"]
    assert asked.shape == (2, 1, 8, 8)
    assert float(asked.min()) < 0.1
    assert float(asked.max()) > 0.9
    assert torch.equal(asked[0], read("photograph.png", torch.zeros(1, 8, 8), mask=True, where=""))


def test_other_data_can_be_asked_about(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "holes", "--data", "split=test", "--out", "test", "--quiet"]) == 0
    assert main(["sample", "holes", "--out", "train", "--quiet"]) == 0
    names = "00000-seed-0.png"
    assert (run / "test" / names).read_bytes() != (run / "train" / names).read_bytes()
    capsys.readouterr()
    assert main(["sample", "holes", "--data", "spilt=test"]) == 2
    assert "did you mean" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("like", "mask", "wanted"),
    [
        (torch.zeros(1, 2, 3), False, [[-1, -1, 1]] * 2),
        (torch.zeros(1, 2, 3), True, [[0, 0, 1]] * 2),
        (torch.zeros(1, 2, 3, dtype=torch.int64), True, [[0, 0, 255]] * 2),
    ],
)
def test_a_picture_comes_like_those_of_the_data(
    tmp_path: Path, like: torch.Tensor, mask: bool, wanted: list[list[float]]
) -> None:
    picture = Image.new("L", (3, 2))
    picture.paste(255, (2, 0, 3, 2))
    picture.save(tmp_path / "p.png")
    found = read(str(tmp_path / "p.png"), like, mask=mask, where="here")
    assert found.dtype == like.dtype
    assert found.tolist() == [wanted]


@pytest.mark.parametrize(("channels", "message"), [(2, "2 channels"), (1, "cannot be read")])
def test_what_cannot_be_read_is_refused(tmp_path: Path, channels: int, message: str) -> None:
    (tmp_path / "p.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=message):
        read(str(tmp_path / "p.png"), torch.zeros(channels, 2, 3), mask=False, where="here")
