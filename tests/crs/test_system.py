"""CRS-Diff as a system: any subset of conditions, what guidance acts on, and what the second stage trains."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import diffloom
from diffloom import Condition, Conditioner, Ports, System
from diffloom.conditioner import Batch, Code
from diffloom.guided import Guided
from diffloom.layout import layouts_of
from diffloom.noise import Noise
from diffloom.recipe.importing import import_weights
from diffloom.system import Conditioning, Plan
from diffloom_crs.content_image import ContentImage
from diffloom_crs.metadata import Metadata
from tests.crs.parts import KEYS, SPACE, STRIDE, T, controls, latents, maps, network, shaken, x_t

SCALES = {"text": 7.5, "content": 7.5}


class Words(Conditioner):
    """A caption as tokens: numbers in a batch, learned rows here."""

    needs = ("words",)

    def __init__(self) -> None:
        super().__init__()
        self.gives = Ports(context=6)
        self.table = nn.Embedding(10, 6)

    def encode(self, batch: Batch) -> Condition:
        return Condition(context=self.table(batch["words"]))

    def null(self, code: Code) -> Condition:
        return Condition(context=self.table(torch.zeros(len(code.context), 5, dtype=torch.int64)))


def system(drop: float = 0.0, **scales: float | None) -> System:
    net = network()
    torch.manual_seed(2)
    parts: dict[str, Conditioner] = {
        "metadata": shaken(Metadata(width=8, denoiser=net)),
        "text": Words(),
        "content": shaken(ContentImage(width=4, tokens=2, denoiser=net)),
        "maps": shaken(controls(net)),
    }
    how = {name: Conditioning(drop=drop * (name == "text"), guidance=scales.get(name)) for name in parts}
    schedule = diffloom.build("schedule", "linear", steps=1000)
    built = System(
        Plan(data_space=SPACE, conditioning=how),
        schedule=schedule,
        denoiser=net,
        autoencoder=latents(stride=1),
        conditioners=parts,
        sampler=diffloom.build("sampler", "ddim", steps=3, clip=None),
        task=diffloom.build("task", "generate", schedule=schedule),
    )
    return built.eval()


def asked(count: int = 2) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(4)
    return {
        "words": torch.randint(1, 10, (count, 5), generator=generator),
        "metadata": torch.tensor([[2016, 7, 15, 0.5, 10, 34.05, -118.24]] * count),
        "content": torch.randn(count, 4, generator=generator),
        **maps(count),
    }


def output(built: System, codes: dict[str, Code]) -> Tensor:
    return built.output(x_t(), T, codes)


@torch.no_grad()
def test_a_guidance_scale_of_1_is_the_conditional_pass() -> None:
    built = system(text=1.0, content=1.0)
    guided = Guided(built, built.codes(asked()))(x_t(), T).eps
    torch.testing.assert_close(guided, output(built, built.codes(asked())), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_guidance_acts_on_text_and_content_and_leaves_maps_and_metadata() -> None:
    built = system(**SCALES)
    codes, parts = built.codes(asked()), built.conditioners
    nothing = {**codes, **{name: parts[name].null(codes[name]) for name in SCALES}}
    with_all, without = output(built, codes), output(built, nothing)
    wanted = without + 7.5 * (with_all - without)
    torch.testing.assert_close(Guided(built, codes)(x_t(), T).eps, wanted, atol=1e-3, rtol=1e-3)
    bare = {**nothing, **{name: parts[name].null(codes[name]) for name in ("metadata", "maps")}}
    assert not torch.allclose(output(built, bare), without, atol=1e-2)


@torch.no_grad()
def test_any_subset_of_conditions_can_be_asked_for() -> None:
    built, everything = system(**SCALES), asked()
    optional = ("metadata", "content", "road", "depth")
    outputs = []
    for pattern in product((False, True), repeat=4):
        batch = {"words": everything["words"]}
        batch |= {key: everything[key] for key, keep in zip(optional, pattern, strict=True) if keep}
        outputs.append(built.walk(batch, Noise([0, 1])))
    different = [not torch.equal(a, b) for i, a in enumerate(outputs) for b in outputs[:i]]
    assert all(different)


@torch.no_grad()
def test_a_walk_says_what_the_plain_system_says() -> None:
    """Prepared once per walk, for both branches, and asked anew at every step, are the same."""
    built = system(text=3.0)
    codes = built.codes(asked())
    unguided = {**codes, "text": built.conditioners["text"].null(codes["text"])}
    model = Guided(built, codes)
    for t in (torch.tensor(900.0), torch.tensor(30.0)):
        with_text, without = (built.output(x_t(), t, told) for told in (codes, unguided))
        torch.testing.assert_close(model(x_t(), t).eps, without + 3 * (with_text - without), atol=1e-3, rtol=1e-3)


def test_text_is_dropped_half_of_the_time_and_maps_by_themselves() -> None:
    built, count = system(drop=0.5), 2000
    batch = asked(count)
    with torch.no_grad():
        codes = built.codes(batch)
        dropped = built.drop(codes, Noise(range(count)))
    kept = (dropped["text"].context == codes["text"].context).flatten(1).all(1)
    assert float(kept.float().mean()) == pytest.approx(0.5, abs=0.04)
    all_gone = (~dropped["maps"]["there"]).all(1)
    assert float(all_gone.float().mean()) == pytest.approx(0.1 + 0.8 * 0.5**6, abs=0.03)
    assert float((all_gone & ~kept).float().mean()) == pytest.approx(0.5 * (0.1 + 0.8 * 0.5**6), abs=0.02)


def test_the_second_stage_trains_the_side_networks_alone() -> None:
    built = system()
    for part in (built.denoiser, built.autoencoder, built.conditioners["text"]):
        part.requires_grad_(False)
    for shift in built.conditioners["maps"].get_submodule("shifts").parameters():
        nn.init.zeros_(shift)
    built.train()
    before = {name: value.clone() for name, value in built.state_dict().items()}
    (objective,) = built.task.objectives(built)
    trained = {name: p for name, p in objective.parameters.items() if p.requires_grad}
    assert {name.split(".")[1] for name in trained} == {"metadata", "content", "maps"}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2, weight_decay=0.0)
    batch = {"image": torch.randn(2, *SPACE.shape), **asked()}
    for _ in range(2):
        optimizer.zero_grad()
        torch.autograd.backward(objective.loss(batch, Noise([0, 1])).value)
        optimizer.step()
    moved = {name for name, value in built.state_dict().items() if not torch.equal(value, before[name])}
    frozen = ("_denoiser.", "autoencoder.", "conditioning.text.")
    assert not {name for name in moved if name.startswith(frozen)}
    for begin in ("metadata.items.", "content.adapter.", "maps.shifts.", "maps.copy.", "maps.extractor.leave."):
        assert any(name.startswith(f"conditioning.{begin}") for name in moved), begin


RECIPE = """\
diffloom: 1
name: small
data:      {type: digits, size: 16}
schedule:  {type: cosine, steps: 50}
denoiser:  {type: unet, channels: 16, multipliers: [1, 2], blocks: 1, attention: [8], context: 6, embedding: adm}
conditioners:
  text:     {type: class-label, classes: 10, port: context, drop: 0.5}
  content:  {type: content-image, width: 4, tokens: 2}
  metadata: {type: metadata, width: 6}
  maps:     {type: local-controls, widths: [8, 12], narrow: [4, 6, 8]}
sampler:   {type: ddim, steps: 4}
task:      {type: generate}
train:     {steps: 0}
hooks:     []
"""


@torch.no_grad()
def test_one_checkpoint_of_the_release_gives_every_part_its_weights(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(RECIPE)
    recipe = diffloom.load(file)
    parts = shaken(recipe.build()).roles()
    released: dict[str, Tensor] = {"cond_stage_model.something": torch.zeros(3)}
    for role in ("denoiser", "conditioners.content", "conditioners.metadata", "conditioners.maps"):
        layout = next(one for one in layouts_of(parts[role]) if one.name in ("ldm", "crs-diff"))
        released |= layout.write(parts[role].state_dict())
    save_file(released, tmp_path / "release.safetensors")
    found = import_weights([tmp_path / "release.safetensors"], recipe, tmp_path / "out")
    names = {part.role: part.layout for part in found.imported}
    assert names == {"denoiser": "ldm"} | {f"conditioners.{n}": "crs-diff" for n in ("content", "metadata", "maps")}
    again = diffloom.load(file, found.overlay).build().roles()
    for role in names:
        ours, theirs = again[role].state_dict(), parts[role].state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), role


@torch.no_grad()
def test_maps_are_seen_in_windows_as_everything_else_is() -> None:
    built = system()
    built.plan = type(built.plan)(**{**vars(built.plan), "window": 8})
    wide = {key: torch.cat([value, value], 3) for key, value in maps(1, side=8 * STRIDE).items()}
    batch = {"words": asked(1)["words"], **wide}
    x = torch.cat([x_t(1), x_t(1)], 3)
    told = Guided(built, built.codes(batch))(x, T).eps
    assert told.shape == (1, 2, 8, 16)
    bare = Guided(built, built.codes({"words": batch["words"]}))(x, T).eps
    assert not torch.allclose(told, bare, atol=1e-2)
    assert set(KEYS) <= set(batch)
