"""Mistakes that authors of components make: each is told with the class, what was expected and what came."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import diffloom
from diffloom import (
    Autoencoder,
    Condition,
    Conditioner,
    Dataset,
    Denoiser,
    DiffloomError,
    Grid,
    Loss,
    Metric,
    Noise,
    Objective,
    Ports,
    Posterior,
    Sampler,
    Schedule,
    Space,
    State,
    System,
    Task,
)
from diffloom.blame import blamed
from diffloom.cli import main
from diffloom.conditioner import Batch
from diffloom.metric import Evaluation
from diffloom.testing.contracts import Outcome, verify
from diffloom.testing.contracts.running import chosen
from tests.plugin_kit.conftest import python

RECIPE = {
    "data": {"type": "digits", "size": 8},
    "schedule": {"type": "cosine", "steps": 20},
    "denoiser": {"type": "unet", "channels": 8, "multipliers": [1, 2], "blocks": 1, "groups": 4},
    "sampler": {"type": "ddim", "steps": 2},
    "train": {"steps": 1, "batch": 4, "warmup": 0},
    "sample": {"count": 1},
    "eval": {"count": 2, "metrics": []},
    "hooks": [],
}


def checked(**changes: object) -> str:
    """Return what a check of a small recipe with some roles replaced says."""
    with pytest.raises(DiffloomError) as caught:
        diffloom.load("quickstart", overrides={**RECIPE, "conditioners": None, **changes}).check()
    return str(caught.value)


def failures(kind: str) -> dict[str, str]:
    """Return the checks that the component `mine` fails, with what is said."""
    return {o.check: o.message for o in outcomes(kind) if o.status == "failed"}


def outcomes(kind: str) -> list[Outcome]:
    return verify(kind, "mine")


class Strideless(Autoencoder):
    def __init__(self, *, space: Space) -> None:
        super().__init__()
        self.latent_channels = space.channels

    def encode(self, x: Tensor) -> Posterior:
        return Posterior(x)

    def decode(self, z: Tensor) -> Tensor:
        return z


class Coder(Strideless):
    stride = 1

    def encode(self, x: Tensor) -> Any:
        return x


class Outputless(Denoiser):
    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, read: Any = ()) -> Tensor:
        return x_t


class Spaceless(Dataset):
    def __len__(self) -> int:
        return 1

    def read(self, index: int) -> dict[str, Any]:
        return {"image": torch.zeros(1, 8, 8)}


@pytest.mark.parametrize(
    ("role", "kind", "cls", "lacks"),
    [
        ("autoencoder", "autoencoder", Strideless, "'stride': expected what Autoencoder declares"),
        ("denoiser", "denoiser", Outputless, "'out_channels': expected what Denoiser declares"),
        ("data", "dataset", Spaceless, "'space': expected what Dataset declares"),
    ],
)
def test_what_an_interface_declares_must_be_said(role: str, kind: str, cls: type, lacks: str) -> None:
    with diffloom.registry.add(kind, "mine", cls):
        said = checked(**{role: {"type": "mine"}})
    assert f"{kind} 'mine' from this process ({__name__}:{cls.__name__}): it does not say its {lacks}" in said


def test_a_code_that_is_a_tensor_is_told_by_the_contract() -> None:
    with diffloom.registry.add("autoencoder", "mine", Coder):
        assert "what encode returns is of type Tensor, not Posterior" in failures("autoencoder")["shapes"]


class Plain(Task):
    def objectives(self, system: System) -> list[Objective]:
        def loss(batch: Batch, noise: Noise) -> Any:
            return system.output(batch["image"], torch.tensor(3.0), {}).square().mean()

        return [Objective("fit", dict(system.denoiser.named_parameters()), loss)]

    def predict(self, system: System, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        return {"image": system.walk(batch, noise)}


class Listed(Plain):
    def objectives(self, system: System) -> list[Objective]:
        moved: Any = list(system.denoiser.parameters())
        return [Objective("fit", moved, lambda batch, noise: Loss(torch.zeros(())))]


def test_a_loss_must_be_a_loss_and_parameters_have_names() -> None:
    with diffloom.registry.add("task", "mine", Plain):
        assert "wrong loss of the objective 'fit': expected a Loss, got Tensor" in checked(task={"type": "mine"})
        assert "the loss of fit is of type Tensor, not Loss" in failures("task")["objectives"]
    with diffloom.registry.add("task", "mine", Listed):
        said = checked(task={"type": "mine"})
        assert "wrong parameters of the objective 'fit': expected a Mapping, got list" in said


class Shadowed(Denoiser):
    def __init__(self, *, space: Space) -> None:
        super().__init__()
        self.out_channels = space.channels
        layer: Any = nn.Conv2d(space.channels, space.channels, 1)
        self.double = layer  # type: ignore[method-assign]  # it hides nothing: `Module.double` is found first

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, read: Any = ()) -> Tensor:
        layer: Any = self.double
        output: Tensor = layer(x_t)
        return output


def test_an_error_in_a_components_code_names_its_class_and_line(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = Shadowed.forward.__code__.co_firstlineno + 2
    with diffloom.registry.add("denoiser", "mine", Shadowed):
        said = checked(denoiser={"type": "mine"})
    assert f"Shadowed ({__name__}, test_mistakes.py:{wrong}): a fake batch does not pass: Module.double()" in said
    assert "`diffloom verify` tests it alone" in said


class Forgetful(Denoiser):
    """What it prepares is not what it was told."""

    ports = Ports(context=2)

    def __init__(self, *, space: Space) -> None:
        super().__init__()
        self.out_channels = space.channels
        self.weight = nn.Parameter(torch.ones(2))

    def prepare(self, condition: Condition) -> Condition:
        assert condition.context is not None
        return Condition(context=condition.context, projected={"all": 2 * condition.context @ self.weight})

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None, *, read: Any = ()) -> Tensor:
        assert condition is not None
        assert condition.context is not None
        seen = condition.projected.get("all", condition.context @ self.weight)
        return (x_t + t.view(-1, 1, 1, 1)) * seen.sum(1).view(-1, 1, 1, 1)


def test_what_is_prepared_must_say_the_same() -> None:
    with diffloom.registry.add("denoiser", "mine", Forgetful):
        assert "a condition and the prepared one" in failures("denoiser")["preparing-says-the-same"]


def test_nobody_is_blamed_for_what_no_component_did() -> None:
    assert blamed(ValueError("alone")) is None


class Mean(Metric):
    def measure(self, evaluation: Evaluation) -> Any:
        return torch.cat([made["image"].flatten() for _, made in evaluation.pairs()]).mean()


def test_a_measure_that_is_no_dict_is_told(tmp_path: Any) -> None:
    with diffloom.registry.add("metric", "mine", Mean):
        changes = {**RECIPE, "conditioners": None, "train.steps": 0, "eval.metrics": [{"type": "mine"}]}
        run = diffloom.Run(diffloom.load("quickstart", overrides=changes), tmp_path / "run", hooks=[])
        run.train()
        with pytest.raises(DiffloomError, match=r"Mean .*: expected a dict of names and numbers, got Tensor"):
            run.evaluate()
        assert "what measure returns is of type Tensor, not dict" in failures("metric")["figures"]


class Undecorated(Sampler):
    share: float = 0.0

    def step(self, model: Any, schedule: Schedule, grid: Grid, state: State, noise: Noise | None) -> State:
        said = self.denoise(model, state.x, grid.t[state.index], grid.levels[state.index])
        there = grid.levels[state.index + 1]
        return State(there.alpha * said.x0 + there.sigma * said.eps, state.index + 1)


@dataclass(kw_only=True, eq=False)
class Decorated(Undecorated):
    more: float = 0.0


def test_a_samplers_fields_are_parameters_only_if_it_is_a_dataclass() -> None:
    with diffloom.registry.add("sampler", "mine", Undecorated):
        said = failures("sampler")
    assert list(said) == ["fields-are-parameters"]
    assert "share: decorate the class with @dataclass(kw_only=True, eq=False)" in said["fields-are-parameters"]
    with diffloom.registry.add("sampler", "mine", Decorated):
        assert next(o for o in outcomes("sampler") if o.check == "fields-are-parameters").status == "passed"


class Bounded(Schedule):
    def __init__(self, *, steps: int = 10) -> None:
        if steps < 2:
            raise ValueError("at least two")
        self.steps = steps

    def table(self) -> tuple[Tensor, Tensor]:
        signal = torch.linspace(0.99, 0.01, self.steps, dtype=torch.float64)
        return signal.sqrt(), (1 - signal).sqrt()


def test_a_number_of_levels_that_is_refused_is_no_failure() -> None:
    with diffloom.registry.add("schedule", "mine", Bounded):
        found = {o.check: o.status for o in outcomes("schedule")}
    assert found["any-number-of-levels"] == "passed"


class Day(Conditioner):
    needs = ("day",)

    def __init__(self, *, denoiser: Denoiser) -> None:
        super().__init__()
        self.gives = Ports(vector=denoiser.ports.vector)
        self.row = nn.Linear(1, denoiser.ports.vector)

    def encode(self, batch: Batch) -> Condition:
        return Condition(vector=self.row(batch["day"][:, None] / 365))

    def null(self, code: Condition) -> Condition:
        return Condition(vector=torch.zeros_like(code.vector))  # type: ignore[arg-type]  # its own code


class Exemplified(Day):
    examples: ClassVar[tuple[dict[str, Any], ...]] = ({},)

    @staticmethod
    def example_batch(count: int, space: Space) -> dict[str, Tensor]:
        return {"day": torch.linspace(0, 365, count)}


@pytest.fixture
def day() -> Iterator[None]:
    with diffloom.registry.add("conditioner", "mine", Day):
        yield


def test_keys_of_its_own_are_tested_where_a_component_makes_them(day: None) -> None:
    found = outcomes("conditioner")[0]
    assert found.status == "not applicable"
    assert "no made-up batch has day; give its class a static method `example_batch(count, space)`" in found.message
    with diffloom.registry.add("conditioner", "mine", Exemplified):
        assert {o.status for o in outcomes("conditioner")} <= {"passed", "not applicable"}
        assert outcomes("conditioner")[0].status == "passed"


def test_text_for_a_number_is_told(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    class Dated(Dataset):
        keys = ("image", "day")
        space = Space(channels=1, size=(8, 8))

        def __len__(self) -> int:
            return 4

        def read(self, index: int) -> dict[str, Any]:
            return {"image": torch.zeros(1, 8, 8), "day": float(index)}

    with diffloom.registry.add("conditioner", "mine", Day), diffloom.registry.add("dataset", "dated", Dated):
        changes = {
            **RECIPE,
            "data": {"type": "dated"},
            "conditioners": {"digit": None, "when": {"type": "mine"}},
            "train.steps": 0,
        }
        diffloom.Run(diffloom.load("quickstart", overrides=changes), tmp_path / "run", hooks=[]).train()
        assert main(["sample", "run", "-n", "1", "--give", "day=June", "-q"]) == 2
        assert "--give day: 'day' is a number in the data: expected a number" in capsys.readouterr().err
        assert main(["sample", "run", "-n", "1", "--give", "day=3", "-q"]) == 0


def test_a_sample_without_what_is_declared_is_told() -> None:
    class Keyless(Spaceless):
        keys = ("image", "when")
        space = Space(channels=1, size=(8, 8))

    class Broken(Keyless):
        def read(self, index: int) -> dict[str, Any]:
            raise KeyError("no such scene")

    with diffloom.registry.add("dataset", "mine", Keyless):
        said = checked(data={"type": "mine"})
    assert "data: a sample lacks 'when', which its data set or a transform declares: expected image, when" in said
    with diffloom.registry.add("dataset", "mine", Broken):
        assert re.search(r"Broken \(.*test_mistakes.py:\d+\): .*no such scene", checked(data={"type": "mine"}))


def test_what_there_is_to_test_is_a_component_a_kind_or_a_package() -> None:
    every = chosen(["diffloom"])
    assert ("sampler", "ddim") in every
    assert chosen(["sampler/ddim", "sampler/ddim"]) == [("sampler", "ddim")]
    assert set(chosen(["metric", "schedule/cosine"])) <= set(every)
    with pytest.raises(DiffloomError, match="or 'ddim'"):
        chosen(["sampler/ddmi"])
    with pytest.raises(DiffloomError, match="no-such-package: there is nothing to test: expected KIND/NAME"):
        chosen(["no-such-package"])


def test_a_misspelt_name_does_not_pass_for_tested(tmp_path: Path) -> None:
    options = ("-q", "-p", "no:cacheprovider", "--diffloom", "--diffloom-only", "sampler/ddmi")
    done = python("-m", "pytest", *options, cwd=tmp_path)
    assert done.returncode == 1
    assert "or 'ddim'" in done.stdout
