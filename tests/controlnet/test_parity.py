"""Equal weights give diffusers' own answers, and files of both layouts are read and written."""

from typing import Any

import pytest
import torch
from torch import Tensor

from diffloom.condition import Condition
from diffloom.conditioner import Conditioner
from diffloom.space import Space
from diffloom_controlnet import Adapter
from diffloom_unet import UNet
from tests.controlnet.parts import Halving, base, control, hints, normal, theirs, trained
from tests.unet.parity import SD1, layout_of, twin

NET = base()
X, T, CONTEXT = normal(2, 4, 16, 16), torch.tensor([3, 700]), normal(2, 5, 12, seed=1)
TOLD = Condition(context=CONTEXT)


def diffusers_unet(net: UNet, name: str = "diffusers") -> Any:
    layout = layout_of(net, name)
    model = twin(layout)
    model.load_state_dict(layout.write(net.state_dict()))
    return model.eval()


def added(models: list[Any], pictures: list[Tensor], scales: list[float], **how: Any) -> tuple[list[Tensor], Tensor]:
    """Return what diffusers adds for several ControlNets, as its pipelines do."""
    from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel

    found: tuple[list[Tensor], Tensor] = MultiControlNetModel(models)(
        X, T, CONTEXT, pictures, scales, return_dict=False, **how
    )
    return found


@pytest.mark.parametrize("linear", [False, True])
@torch.no_grad()
def test_one_control_is_that_of_diffusers(linear: bool) -> None:
    part, hint = trained(control(NET)), hints(2)
    name = "diffusers-linear" if linear else "diffusers"
    unet, model = diffusers_unet(NET, name), theirs(part, name)
    downs, mid = model(X, T, CONTEXT, hint, return_dict=False)
    said = part(part.encode({"hint": hint}), X, T, TOLD)
    ours = [edit.shift for edit in said.affine.values()]
    for mine, other in zip(ours, (*downs, mid), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
    wanted = unet(X, T, CONTEXT, down_block_additional_residuals=downs, mid_block_additional_residual=mid).sample
    torch.testing.assert_close(NET(X, T, TOLD | said), wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_two_controls_add_up_as_in_diffusers() -> None:
    parts = [trained(control(NET, scale=scale), seed) for seed, scale in ((1, 0.7), (2, 0.4))]
    pictures = [hints(2, seed=5), hints(2, seed=6)]
    downs, mid = added([theirs(part) for part in parts], pictures, [0.7, 0.4])
    told = TOLD
    for part, picture in zip(parts, pictures, strict=True):
        told = told | part(part.encode({"hint": picture}), X, T, told)
    wanted = diffusers_unet(NET)(
        X, T, CONTEXT, down_block_additional_residuals=downs, mid_block_additional_residual=mid
    ).sample
    torch.testing.assert_close(NET(X, T, told), wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_guess_mode_and_pooling_are_those_of_diffusers() -> None:
    whole = trained(control(NET))
    for config, how in (
        ({"weighting": "logspace", "scale": 0.8}, {"guess_mode": True}),
        ({"pool": True, "scale": 0.8}, {}),
    ):
        part = control(NET, **config)
        part.load_state_dict(whole.state_dict())
        downs, mid = added([theirs(part)], [hints(2)], [0.8], **how)
        said = part(part.encode({"hint": hints(2)}), X, T, TOLD)
        for edit, other in zip(said.affine.values(), (*downs, mid), strict=True):
            torch.testing.assert_close(edit.shift, other, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_at_stable_diffusion_s_size_one_control_is_that_of_diffusers() -> None:
    from tests.benchmarks.stable_diffusion import filled

    with torch.device("meta"):
        net = UNet(space=Space(4, (64, 64), low=None, high=None), **SD1)
    filled(net)
    part = filled(control(net))
    x, t, context, hint = normal(1, 4, 64, 64), torch.tensor([500]), normal(1, 77, 768), hints(1, side=512)
    said = part(part.encode({"hint": hint}), x, t, Condition(context=context))
    shifts = [edit.shift for edit in said.affine.values()]
    model = theirs(part)
    downs, mid = model(x, t, context, hint, return_dict=False)
    for mine, other in zip(shifts, (*downs, mid), strict=True):
        assert float((mine - other).abs().max() / other.abs().max()) < 1e-4
    del part, model
    mine = net(x, t, Condition(context=context) | said)
    layout = layout_of(net)
    with torch.device("meta"):
        unet = twin(layout)
    unet.load_state_dict(layout.write(net.state_dict()), assign=True)
    wanted = unet.eval()(x, t, context, down_block_additional_residuals=downs, mid_block_additional_residual=mid).sample
    assert float((mine - wanted).abs().max() / wanted.abs().max()) < 1e-4


@pytest.mark.parametrize("kind", ["full", "light"])
@torch.no_grad()
def test_an_adapter_is_that_of_diffusers(kind: Any) -> None:
    net = base(multipliers=(1, 2, 2), attention=(16, 8))
    part: Adapter = trained(Adapter(denoiser=net, autoencoder=Halving(), kind=kind, scale=0.6))
    hint = hints(2)
    code = part.encode({"hint": hint})
    features = theirs(part)(hint)
    assert list(code.affine) == ["down.2", "down.5", "down.8"]
    for edit, feature in zip(code.affine.values(), features, strict=True):
        torch.testing.assert_close(edit.shift, 0.6 * feature, rtol=1e-4, atol=1e-4)
    residuals = [0.6 * feature for feature in features]
    wanted = diffusers_unet(net)(X, T, CONTEXT, down_intrablock_additional_residuals=residuals).sample
    torch.testing.assert_close(net(X, T, TOLD | code), wanted, rtol=1e-4, atol=1e-4)


def parts() -> dict[str, Conditioner]:
    adapters = {
        f"{kind}-adapter": Adapter(denoiser=base(multipliers=(1, 2, 2)), autoencoder=Halving(), kind=kind)
        for kind in ("full", "light")
    }
    return {"controlnet": control(NET), **adapters}


@pytest.mark.parametrize("name", list(parts()))
def test_every_layout_reads_what_it_writes(name: str) -> None:
    part = trained(parts()[name])
    assert part.layouts()
    for layout in part.layouts():
        written = layout.write(part.state_dict())
        again = layout.read(written)
        assert again.keys() == part.state_dict().keys()
        assert all(torch.equal(again[key], value) for key, value in part.state_dict().items())


def test_the_original_names_are_the_published_ones() -> None:
    layout = next(layout for layout in control(NET).layouts() if layout.name == "ldm")
    keys = set(layout.write(control(NET).state_dict()))
    assert all(key.startswith("control_model.") for key in keys)
    wanted = {f"input_hint_block.{2 * i}.{tensor}" for i in range(8) for tensor in ("weight", "bias")}
    wanted |= {f"zero_convs.{i}.0.{tensor}" for i in range(6) for tensor in ("weight", "bias")}
    wanted |= {"middle_block_out.0.weight", "input_blocks.0.0.weight", "time_embed.0.bias", "middle_block.1.norm.bias"}
    assert wanted <= {key.removeprefix("control_model.") for key in keys}
    adapter = Adapter(denoiser=base(multipliers=(1, 2, 2)), autoencoder=Halving())
    original = next(layout for layout in adapter.layouts() if layout.name == "t2i-adapter")
    assert {"conv_in.weight", "body.0.block1.weight", "body.2.in_conv.bias", "body.5.block2.weight"} <= set(
        original.write(adapter.state_dict())
    )
