"""diffusers' networks and autoencoders as parts: equal outputs on equal weights, from every kind of folder."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

import diffloom
from diffloom.autoencoder import Autoencoder
from diffloom.condition import Affine, Condition
from diffloom.conditioner import Conditioner
from diffloom.denoiser import Denoiser
from diffloom.errors import CheckpointError, DataError, IncompatibleParts
from diffloom.noise import Noise
from diffloom.space import Space
from diffloom_ddpm.schedules import Linear
from diffloom_diffusers.class_label import DiffusersClass
from diffloom_diffusers.denoiser import DiffusersDenoiser
from diffloom_solvers.flow import Flow

SPACE, SCHEDULE = Space(channels=3, size=(16, 16)), Linear()
TIMES = torch.tensor([7.0, 801.0])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


X = normal(2, 3, 16, 16)


def denoiser(folder: Path, **changed: Any) -> Denoiser:
    given = {"space": SPACE, "schedule": SCHEDULE, "folder": folder, **changed}
    part: Denoiser = diffloom.build("denoiser", "diffusers", **given)
    return part.eval()


def autoencoder(folder: Path, **changed: Any) -> Autoencoder:
    part: Autoencoder = diffloom.build("autoencoder", "diffusers", **{"space": SPACE, "folder": folder, **changed})
    return part.eval()


def theirs(name: str, folder: Path) -> Any:
    return getattr(diffusers, name).from_pretrained(folder).eval()


@torch.no_grad()
def test_an_unconditional_unet_is_that_of_diffusers(folders: Mapping[str, Path]) -> None:
    ours = denoiser(folders["plain"])
    assert torch.equal(ours(X, TIMES), theirs("UNet2DModel", folders["plain"])(X, TIMES).sample)
    assert (ours.out_channels, ours.ports.context, ours.ports.vector, ours.ports.concat) == (3, 0, 0, 0)


@torch.no_grad()
def test_a_told_unet_is_that_of_diffusers(folders: Mapping[str, Path]) -> None:
    ours, wanted = denoiser(folders["told"]), theirs("UNet2DConditionModel", folders["told"])
    assert (ours.ports.context, ours.ports.vector, ours.ports.concat) == (12, 3, 2)
    context, beside, labels = normal(2, 4, 12, seed=1), normal(2, 2, 16, 16, seed=2), torch.tensor([2, 0])
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    classes = DiffusersClass(denoiser=ours).encode({"label": labels})
    told = Condition(context=context, context_mask=mask, concat=beside, vector=classes.vector)
    answer = wanted(torch.cat([X, beside], 1), TIMES, context, class_labels=labels, encoder_attention_mask=mask).sample
    torch.testing.assert_close(ours(X, TIMES, told), answer, rtol=1e-5, atol=1e-5)
    unmasked = ours(X, TIMES, Condition(context=context, concat=beside, vector=classes.vector))
    assert not torch.allclose(unmasked, answer, atol=1e-4)


@torch.no_grad()
def test_a_transformer_is_that_of_diffusers(folders: Mapping[str, Path]) -> None:
    ours, wanted = denoiser(folders["transformer"]), theirs("DiTTransformer2DModel", folders["transformer"])
    assert (ours.out_channels, ours.ports.vector) == (6, 5)
    assert not ours.taps
    classes = DiffusersClass(denoiser=ours)
    code = classes.encode({"label": torch.tensor([3, 1])})
    answer = wanted(X, timestep=TIMES, class_labels=torch.tensor([3, 1])).sample
    torch.testing.assert_close(ours(X, TIMES, code), answer, rtol=1e-5, atol=1e-5)
    nobody = wanted(X, timestep=TIMES, class_labels=torch.tensor([4, 4])).sample
    torch.testing.assert_close(ours(X, TIMES, classes.null(code)), nobody, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours(X, TIMES), nobody, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_flow_transformer_is_told_sigma(tmp_path: Path) -> None:
    config = {"sample_size": 16, "patch_size": 2, "in_channels": 3, "out_channels": 3, "num_layers": 1}
    config |= {"attention_head_dim": 8, "num_attention_heads": 2, "joint_attention_dim": 12}
    config |= {"caption_projection_dim": 16, "pooled_projection_dim": 6, "pos_embed_max_size": 8}
    diffusers.SD3Transformer2DModel(**config).save_pretrained(tmp_path)
    schedule = Flow(shift=3.0)
    ours = denoiser(tmp_path, schedule=schedule, time="sigma", time_scale=1000.0)
    assert (ours.ports.context, ours.ports.vector) == (12, 6)
    context, pooled = normal(2, 4, 12), normal(2, 6)
    sigma = (1000 * schedule.sigma(TIMES)).float()
    wanted = theirs("SD3Transformer2DModel", tmp_path)(X, context, pooled, sigma).sample
    torch.testing.assert_close(ours(X, TIMES, Condition(context=context, vector=pooled)), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["timestep", "identity", "projection"])
@torch.no_grad()
def test_a_vector_reaches_the_network_however_it_takes_it(kind: str, tmp_path: Path) -> None:
    config: dict[str, Any] = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}
    config |= {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "out_channels": 3}
    config |= {"in_channels": 3, "class_embed_type": kind, "cross_attention_dim": 8}
    config |= {"mid_block_type": "UNetMidBlock2D"}
    width = {"timestep": 1, "identity": 32, "projection": 5}[kind]
    diffusers.UNet2DConditionModel(**config, projection_class_embeddings_input_dim=5).save_pretrained(tmp_path)
    ours = denoiser(tmp_path)
    assert ours.ports.vector == width
    vector = 10 * normal(2, width)
    given = vector[:, 0] if kind == "timestep" else vector
    context = normal(2, 1, 8)
    wanted = theirs("UNet2DConditionModel", tmp_path)(X, TIMES, context, class_labels=given).sample
    got = ours(X, TIMES, Condition(context=context, vector=vector))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_edited_taps_are_what_a_controlnet_adds_in_diffusers(folders: Mapping[str, Path]) -> None:
    ours, wanted = denoiser(folders["told"]), theirs("UNet2DConditionModel", folders["told"])
    context, beside, labels = normal(2, 4, 12), normal(2, 2, 16, 16), torch.tensor([1, 1])
    shifts = {
        tap.name: 0.3 * normal(2, tap.channels, 16 // tap.stride, 16 // tap.stride, seed=place)
        for place, tap in enumerate(ours.taps)
    }
    skips = [shifts[tap.name] for tap in ours.taps if tap.name.startswith("skip.")]
    edits = {name: Affine(shift=shift) for name, shift in shifts.items() if name.partition(".")[0] in ("skip", "mid")}
    told = Condition(context=context, concat=beside, vector=torch.tensor([[0.0, 1.0, 0.0]] * 2), affine=edits)
    answer = wanted(
        torch.cat([X, beside], 1),
        TIMES,
        context,
        class_labels=labels,
        down_block_additional_residuals=skips,
        mid_block_additional_residual=shifts["mid"],
    ).sample
    got, maps = ours(X, TIMES, told, read=["mid", "up.1"])
    torch.testing.assert_close(got, answer, rtol=1e-5, atol=1e-5)
    assert [tuple(maps[name].shape) for name in ("mid", "up.1")] == [(2, 16, 8, 8), (2, 8, 16, 16)]


@torch.no_grad()
def test_edits_on_the_way_down_are_what_an_adapter_adds_in_diffusers(folders: Mapping[str, Path]) -> None:
    ours, wanted = denoiser(folders["told"]), theirs("UNet2DConditionModel", folders["told"])
    context, beside, vector = normal(2, 4, 12), normal(2, 2, 16, 16), torch.tensor([[0.0, 1.0, 0.0]] * 2)
    shifts = {"down.2": 0.3 * normal(2, 8, 8, 8), "down.3": 0.3 * normal(2, 16, 8, 8, seed=1)}
    edits = {name: Affine(shift=shift) for name, shift in shifts.items()}
    told = Condition(context=context, concat=beside, vector=vector)
    x, labels = torch.cat([X, beside], 1), torch.tensor([1, 1])
    downsampler, last = wanted.down_blocks[0].downsamplers[0], wanted.down_blocks[1].attentions[0]
    handles = [
        downsampler.register_forward_hook(lambda module, given, h: h + shifts["down.2"]),
        last.register_forward_hook(lambda module, given, out: (out[0] + shifts["down.3"],)),
    ]
    answer = wanted(x, TIMES, context, class_labels=labels).sample
    for handle in handles:
        handle.remove()
    got, maps = ours(X, TIMES, told | Condition(affine=edits), read=["down.2", "skip.2", "down.3", "skip.3"])
    torch.testing.assert_close(got, answer, rtol=1e-5, atol=1e-5)
    assert torch.equal(maps["down.2"], maps["skip.2"])
    assert torch.equal(ours(X, TIMES, told), denoiser(folders["told"])(X, TIMES, told))


@pytest.mark.parametrize("name", ["plain", "told"])
@torch.no_grad()
def test_a_copy_until_the_middle_leaves_the_way_up_out(name: str, folders: Mapping[str, Path]) -> None:
    ours = denoiser(folders[name])
    part = ours.until("mid")
    told = Condition(
        context=normal(2, 4, 12) if ours.ports.context else None,
        concat=normal(2, 2, 16, 16) if ours.ports.concat else None,
    )
    read = [tap.name for tap in part.taps]
    assert read == [*(f"down.{n}" for n in range(len(read) - 1)), "mid"]
    assert not any("up_blocks" in key or "conv_out" in key for key in part.state_dict())
    out, maps = part(X, TIMES, told, read=read)
    _, expected = ours(X, TIMES, told, read=read)
    for key in read:
        torch.testing.assert_close(maps[key], expected[key], rtol=1e-5, atol=1e-5)
    assert torch.equal(out, maps["mid"])
    torch.testing.assert_close(ours.until("up.0")(X, TIMES, told), ours(X, TIMES, told), rtol=1e-5, atol=1e-5)


def test_a_condition_that_does_not_fit_is_refused(folders: Mapping[str, Path]) -> None:
    plain, told = denoiser(folders["plain"]), denoiser(folders["told"])
    for part, condition, says in (
        (plain, Condition(context=normal(2, 4, 12)), "context port"),
        (plain, Condition(affine={"up.7": Affine(shift=X)}), "up.7"),
        (told, Condition(concat=normal(2, 2, 16, 16)), "context port"),
        (told, Condition(context=normal(2, 4, 12)), "concat port"),
        (told, Condition(context=normal(2, 4, 11), concat=normal(2, 2, 16, 16)), "expected width 12, got width 11"),
    ):
        with pytest.raises(IncompatibleParts, match=says):
            part(X, TIMES, condition)
    with pytest.raises(IncompatibleParts, match="no taps"):
        denoiser(folders["transformer"])(X, TIMES, read=["mid"])


@torch.no_grad()
def test_shards_variants_and_pipelines_are_read(folders: Mapping[str, Path], tmp_path: Path) -> None:
    model = theirs("UNet2DModel", folders["plain"])
    wanted = model(X, TIMES).sample
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    assert torch.equal(denoiser(tmp_path / "sharded")(X, TIMES), wanted)
    model.save_pretrained(tmp_path / "pipe" / "unet", variant="ema")
    (tmp_path / "pipe" / "model_index.json").write_text("{}")
    assert torch.equal(denoiser(tmp_path / "pipe", variant="ema")(X, TIMES), wanted)
    with pytest.raises(CheckpointError, match="no weights in this folder"):
        denoiser(tmp_path / "pipe", variant="fp16")


@torch.no_grad()
def test_weights_are_read_by_the_recipes_key_too(folders: Mapping[str, Path], tmp_path: Path) -> None:
    fresh = denoiser(folders["plain"], pretrained=False)
    assert not torch.equal(fresh(X, TIMES), denoiser(folders["plain"])(X, TIMES))
    (layout,) = fresh.layouts()
    written = layout.write(denoiser(folders["plain"]).state_dict())
    assert written.keys() == theirs("UNet2DModel", folders["plain"]).state_dict().keys()
    fresh.load_state_dict(layout.read(written))
    assert torch.equal(fresh(X, TIMES), denoiser(folders["plain"])(X, TIMES))


def test_broken_folders_are_refused_with_the_reason(folders: Mapping[str, Path], tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(folders["plain"], tmp_path / name))

    def configured(name: str, **changed: Any) -> Path:
        folder = copy(name)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changed}))
        return folder

    empty = tmp_path / "empty"
    empty.mkdir()
    pickled, damaged = copy("pickled"), copy("damaged")
    weights = "diffusion_pytorch_model.safetensors"
    (pickled / weights).rename(pickled / "diffusion_pytorch_model.bin")
    (damaged / weights).write_bytes((damaged / weights).read_bytes()[:1000])
    for folder, says in (
        (empty, "no folder in diffusers' layout"),
        (tmp_path / "nowhere", "got no folder"),
        (pickled, "no weights in this folder.*pickled"),
        (damaged, "cannot load this"),
        (configured("deeper", layers_per_block=2), "missing|cannot load"),
        (configured("wider", block_out_channels=[8, 32]), "shape|mismatch|cannot load"),
    ):
        with pytest.raises(CheckpointError, match=says):
            denoiser(folder)
    for folder, says in (
        (configured("alien", _class_name="UNetOfMine"), "no class of this name"),
        (configured("other", _class_name="DDPMScheduler"), "not a model of diffusers"),
        (configured("wrong", down_block_types=["DownBlock2D"]), "refuses its config"),
        (configured("narrow", in_channels=1), "fewer channels"),
        (configured("answer", out_channels=5), "not of the shape"),
    ):
        with pytest.raises(IncompatibleParts, match=says):
            denoiser(folder, pretrained=False)
    with pytest.raises(IncompatibleParts, match="does not run on what is diffused"):
        denoiser(folders["plain"], space=Space(channels=3, size=(9, 9)))


def test_a_network_that_must_be_told_more_is_refused(tmp_path: Path) -> None:
    config: dict[str, Any] = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}
    config |= {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "cross_attention_dim": 8}
    config |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 4, "in_channels": 3, "out_channels": 3}
    network = diffusers.UNet2DConditionModel(**config, projection_class_embeddings_input_dim=16)
    network.save_pretrained(tmp_path)
    with pytest.raises(IncompatibleParts, match="addition_embed_type text_time"):
        denoiser(tmp_path)


@pytest.mark.parametrize(("name", "cls"), [("kl", "AutoencoderKL"), ("vq", "VQModel"), ("tiny", "AutoencoderTiny")])
@torch.no_grad()
def test_an_autoencoder_is_that_of_diffusers(name: str, cls: str, folders: Mapping[str, Path]) -> None:
    ours, wanted = autoencoder(folders[name]), theirs(cls, folders[name])
    x = X.clamp(-1, 1)
    found, answer = ours.encode(x), wanted.encode(x)
    scale, shift = wanted.config.scaling_factor, wanted.config.get("shift_factor") or 0.0
    raw = answer.latent_dist.mean if name == "kl" else answer.latents
    torch.testing.assert_close(found.mean, (raw - shift) * scale, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.decode(found.mode()), wanted.decode(raw).sample, rtol=1e-5, atol=1e-5)
    assert (ours.latent_channels, 16 // ours.stride) == (raw.shape[1], raw.shape[2])
    if name == "kl":
        std = answer.latent_dist.std * scale
        drawn = found.sample(Noise([1, 2])) - found.mean
        z = Noise([1, 2]).normal(found.mean, "posterior")
        torch.testing.assert_close(drawn, std * z, rtol=1e-5, atol=1e-5)
    else:
        assert found.logvar is None


@torch.no_grad()
def test_scale_and_shift_may_be_given_or_stand_for_each_channel(folders: Mapping[str, Path], tmp_path: Path) -> None:
    plain, changed = autoencoder(folders["kl"]), autoencoder(folders["kl"], scale=2.0, shift=0.0)
    raw = plain.encode(X).mean / plain.scale + plain.shift
    torch.testing.assert_close(changed.encode(X).mean, 2 * raw, rtol=1e-5, atol=1e-5)
    folder = Path(shutil.copytree(folders["kl"], tmp_path / "kl"))
    config = json.loads((folder / "config.json").read_text())
    own = {"latents_mean": [0.1, 0.2, 0.3, 0.4], "latents_std": [1.0, 2.0, 3.0, 4.0], "scaling_factor": 1.0}
    (folder / "config.json").write_text(json.dumps({**config, **own}))
    mean, std = (torch.tensor(own[key]).view(1, 4, 1, 1) for key in ("latents_mean", "latents_std"))
    each = autoencoder(folder)
    torch.testing.assert_close(each.encode(X).mean, (raw - mean) / std, rtol=1e-5, atol=1e-5)
    again = each.decode(each.encode(X).mean)
    torch.testing.assert_close(again, plain.decode(plain.encode(X).mean), rtol=1e-4, atol=1e-4)


def test_an_autoencoder_of_other_channels_is_refused(folders: Mapping[str, Path]) -> None:
    with pytest.raises(IncompatibleParts, match="does not encode these images"):
        autoencoder(folders["kl"], space=Space(channels=4, size=(16, 16)))
    with pytest.raises(IncompatibleParts, match=r"encode|autoencoder"):
        autoencoder(folders["plain"])


def test_a_class_is_one_hot_and_nobody_is_the_networks_own_row(folders: Mapping[str, Path]) -> None:
    part: Conditioner = diffloom.build("conditioner", "diffusers-class", denoiser=denoiser(folders["told"]))
    code = part.encode({"label": torch.tensor([2, 0])})
    assert code.vector.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert part.null(code).vector.tolist() == [[0, 0, 0], [0, 0, 0]]
    own: Conditioner = DiffusersClass(denoiser=denoiser(folders["transformer"]))
    assert own.null(own.encode({"label": torch.tensor([2])})).vector.tolist() == [[0, 0, 0, 0, 1]]
    for wrong in (torch.tensor([3]), torch.tensor([-1]), torch.tensor([0.5])):
        with pytest.raises(DataError, match="not classes"):
            part.encode({"label": wrong})
    with pytest.raises(IncompatibleParts, match="no vector port"):
        DiffusersClass(denoiser=denoiser(folders["plain"]))
    with pytest.raises(IncompatibleParts, match="below 3"):
        DiffusersClass(denoiser=denoiser(folders["told"]), null=3)


def test_a_network_in_training_learns_and_is_saved_under_its_own_names(folders: Mapping[str, Path]) -> None:
    part = DiffusersDenoiser(space=SPACE, schedule=SCHEDULE, folder=folders["transformer"]).train()
    code = DiffusersClass(denoiser=part).encode({"label": torch.tensor([0, 3])})
    part(X, TIMES, code).square().mean().backward()
    assert all(p.grad is not None for p in part.parameters())
    first, again = (part(X, TIMES, code) for _ in range(2))
    assert torch.equal(first, again)  # the network drops no class by itself
