"""What a conditioner hides in training by its own choice, and keys of a batch that it can do without."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffloom
from diffloom import Condition, Conditioner, Denoiser, Ports
from diffloom.cli.asking import conditions
from diffloom.conditioner import Batch, Code, length
from diffloom.engine.run import Run
from diffloom.errors import DataError, DiffloomError
from diffloom.noise import Noise


class Halves(Conditioner):
    """Two numbers of `label` and `item`; training hides the second half of an item with probability ½."""

    def __init__(self, *, keys: tuple[str, ...] = ("label",), denoiser: Denoiser) -> None:
        super().__init__()
        self.wants = keys
        self.gives = Ports(vector=denoiser.ports.vector)
        self.mix = nn.Linear(2, denoiser.ports.vector)

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        found = [batch[key].float() for key in self.wants if key in batch]
        zeros = self.mix.weight.new_zeros(length(batch))
        return {"numbers": torch.stack([found[0] if found else zeros, zeros + 1], 1)}

    def null(self, code: Code) -> Code:
        return {"numbers": torch.zeros_like(code["numbers"])}

    def hide(self, code: Code, noise: Noise) -> Code:
        keep = noise.uniform(torch.empty_like(code["numbers"][:, 0]), "half") >= 0.5
        return {"numbers": torch.stack([code["numbers"][:, 0], code["numbers"][:, 1] * keep], 1)}

    def forward(self, code: Code, x_t: Tensor, t: Tensor, given: Condition) -> Condition:
        return Condition(vector=self.mix(code["numbers"]))


@pytest.fixture
def halves() -> Iterator[None]:
    with diffloom.registry.add("conditioner", "halves", Halves):
        yield


def recipe(file: Path, **how: Any) -> diffloom.Recipe:
    return diffloom.load(file, overrides={"conditioners": {"digit": None, "parts": {"type": "halves", **how}}})


@pytest.mark.usefixtures("halves")
def test_a_conditioner_hides_parts_before_the_recipe_drops_the_whole(recipe_file: Path) -> None:
    system, count = recipe(recipe_file, drop=0.2).build(), 4000
    codes = system.codes({"label": torch.full((count,), 7)})
    assert torch.equal(codes["parts"]["numbers"], torch.tensor([[7.0, 1.0]]).expand(count, 2))
    first, second = system.drop(codes, Noise(range(count)))["parts"]["numbers"].unbind(1)
    assert float((first == 7).float().mean()) == pytest.approx(0.8, abs=0.02)
    assert float((second == 1).float().mean()) == pytest.approx(0.8 * 0.5, abs=0.02)
    assert not second[first == 0].any()


@pytest.mark.usefixtures("halves")
def test_sampling_hides_nothing(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("hidden in sampling")

    monkeypatch.setattr(Halves, "hide", fail)
    system = recipe(recipe_file).build()
    assert system.sample(2, batch={"label": torch.tensor([1, 2])}).shape == (2, 1, 8, 8)


@pytest.mark.usefixtures("halves")
def test_what_can_be_done_without_is_asked_for_where_the_data_have_it(recipe_file: Path) -> None:
    system = recipe(recipe_file, keys=["label", "far"]).build()
    assert system.prompts(3)["label"].tolist() == [0, 1, 2]
    alone = system.sample(1, batch={"item": torch.arange(1)})
    assert not torch.equal(alone, system.sample(1, batch={"label": torch.tensor([3])}))


@pytest.mark.usefixtures("halves")
def test_a_batch_that_is_asked_for_keeps_to_what_was_given(recipe_file: Path, tmp_path: Path) -> None:
    run = Run(recipe(recipe_file), tmp_path / "run")
    assert conditions(run, ["label=3"], 2)["label"].tolist() == [3, 3]
    with pytest.raises(DataError, match="one of the keys label"):
        conditions(run, ["lable=3"], 2)


@pytest.mark.usefixtures("halves")
def test_training_must_see_what_it_can_do_without_and_loaded_weights_need_not(recipe_file: Path) -> None:
    with pytest.raises(DiffloomError, match="'halves' reads 'far', and the data have none"):
        recipe(recipe_file, keys=["label", "far"]).check()
    recipe(recipe_file, keys=["label"]).check()
    recipe(recipe_file, keys=["label", "far"], freeze=True).check()


def test_an_empty_batch_has_no_length() -> None:
    assert length({"caption": ["a", "b"]}) == 2
    with pytest.raises(DataError, match="how many items"):
        length({})
