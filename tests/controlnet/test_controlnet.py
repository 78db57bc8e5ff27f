"""The laws of a ControlNet: nothing at first, then what wakes up in which order; scales, windows, sums."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffloom.condition import Condition, Ports
from diffloom.conditioner import Batch, Conditioner
from diffloom.engine.audit import ignored
from diffloom.errors import DataError, IncompatibleParts
from diffloom.noise import Noise
from diffloom.space import Space
from diffloom.system import Conditioning, Plan, System
from diffloom.testing.contracts import verify
from diffloom.testing.standins import PlainSampler, TinyDenoiser, vp
from diffloom_controlnet import ControlNet, HintEncoder
from diffloom_controlnet.strengths import strengths
from diffloom_ddpm.generate import Generate
from diffloom_unet import UNet
from tests.controlnet.parts import SMALL, SPACE, Halving, base, control, hints, normal, trained
from tests.unet.parity import SD1, scramble

NET = base()
X, T = normal(2, 4, 16, 16), torch.tensor([3, 700])
TOLD = Condition(context=normal(2, 5, 12, seed=1))
BATCH: Batch = {"hint": hints(2), "context": normal(2, 5, 12, seed=1)}
SKIPS = [f"skip.{i}" for i in range(6)]


def answer(net: UNet, part: ControlNet, batch: Batch = BATCH, told: Condition = TOLD) -> Tensor:
    out: Any = net(X, T, told | part(part.encode(batch), X, T, told))
    return out  # type: ignore[no-any-return]  # without `read` it is a tensor


class Text(Conditioner):
    """Tokens of the batch as they are; zeros say nothing."""

    gives = Ports(context=12)
    needs = ("context",)

    def encode(self, batch: Batch) -> Condition:
        return Condition(context=batch["context"])

    def null(self, code: Condition) -> Condition:
        assert code.context is not None
        return Condition(context=torch.zeros_like(code.context))


def system(net: UNet, parts: dict[str, Conditioner], steps: int = 10, **how: Conditioning) -> System:
    return System(
        Plan(Space(3, (128, 128)), conditioning=how),
        autoencoder=Halving(),
        task=Generate(),
        schedule=vp(100),
        denoiser=net,
        sampler=PlainSampler(steps=steps),
        conditioners={"text": Text(), **parts},
    ).eval()


def test_stable_diffusion_s_has_the_published_size_and_outputs() -> None:
    with torch.device("meta"):
        net = UNet(space=Space(4, (64, 64), low=None, high=None), **SD1)
        part = ControlNet(denoiser=net, autoencoder=Halving())
        code = part.encode({"hint": torch.empty(1, 3, 512, 512)})
        told = Condition(context=torch.empty(1, 77, 768))
        said = part(code, torch.empty(1, 4, 64, 64), torch.tensor(0.0), told)
    count = {name: sum(p.numel() for p in module.parameters()) for name, module in part.named_children()}
    convs = [sum(p.numel() for p in conv.parameters()) for conv in part.zeros]
    each = [sum(p.numel() for p in conv.parameters()) for conv in part.hint.modules() if isinstance(conv, nn.Conv2d)]
    assert count == {"copy": 348_712_960, "hint": 1_086_480, "zeros": 9_840_000 + 1_639_680}
    assert sum(count.values()) == 361_279_120
    assert each == [448, 2_320, 4_640, 9_248, 27_744, 83_040, 221_440, 737_600]
    assert convs == [102_720] * 4 + [410_240] * 3 + [1_639_680] * 6
    diffusers, ldm = part.layouts()[:2]
    assert len(diffusers.write(part.state_dict())) == len(ldm.write(part.state_dict())) == 340
    shapes = [tuple(edit.shift.shape[1:]) for edit in said.affine.values() if edit.shift is not None]
    grid = [(320, 64)] * 3 + [(320, 32)] + [(640, 32)] * 2 + [(640, 16)] + [(1280, 16)] * 2 + [(1280, 8)] * 4
    assert shapes == [(channels, side, side) for channels, side in grid]
    assert list(said.affine) == [*(f"skip.{i}" for i in range(12)), "mid"]


def test_at_the_start_not_a_bit_changes() -> None:
    part = control(NET)
    assert torch.equal(answer(NET, part), NET(X, T, TOLD))
    with torch.inference_mode():
        assert torch.equal(answer(NET, part), NET(X, T, TOLD))
    changed = trained(control(NET))
    assert not torch.allclose(answer(NET, changed), NET(X, T, TOLD), atol=1e-2)


def test_weights_wake_up_from_the_outputs_to_the_first_convolution_of_the_hint() -> None:
    part = control(NET).train()
    optimiser = torch.optim.SGD(part.parameters(), lr=0.1)
    target = normal(2, 4, 16, 16, seed=9)

    def awake() -> dict[str, list[bool]]:
        optimiser.zero_grad()
        (answer(NET, part) - target).square().mean().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        groups: dict[str, list[bool]] = {}
        for name, p in part.named_parameters():
            group = name.split(".")[0] if not name.startswith("hint") else "last" if ".leave" in name else "hint"
            groups.setdefault(group, []).append(p.grad is not None and bool(p.grad.any()))
        optimiser.step()
        return groups

    first, second, third = awake(), awake(), awake()
    assert all(first["zeros"])
    assert not any(first["copy"] + first["hint"] + first["last"])
    assert all(second["zeros"] + second["copy"] + second["last"])
    assert not any(second["hint"])
    assert all(third["zeros"] + third["copy"] + third["last"] + third["hint"])
    assert not any(p.grad is not None for p in NET.parameters())


def test_the_scalar_form_learns_as_the_paper_says() -> None:
    w, b = (torch.tensor(0.0, requires_grad=True) for _ in "wb")
    x, target = torch.tensor(3.0), 7.0

    def y() -> Tensor:
        return 2 * x + (w * (2 * x) + b)

    assert y().item() == 6
    (0.5 * (y() - target) ** 2).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert (float(w.grad or 0), float(b.grad or 0)) == (-6, -1)
    with torch.no_grad():
        w -= 0.1 * (w.grad or 0)
        b -= 0.1 * (b.grad or 0)
    assert y().item() == pytest.approx(9.7)


GUESS = [0.099414, 0.120502, 0.146063, 0.177046, 0.214601, 0.260122, 0.3153]
GUESS += [0.382182, 0.46325, 0.561516, 0.680625, 0.825, 1.0]
LOGSPACE = [0.1, 0.121153, 0.14678, 0.177828, 0.215443, 0.261016, 0.316228]
LOGSPACE += [0.383119, 0.464159, 0.562341, 0.681292, 0.825404, 1.0]
STRIDES = [1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8, 8]


def test_strengths_are_the_published_ones() -> None:
    assert strengths("guess", STRIDES) == pytest.approx(GUESS, abs=5e-7)
    assert strengths("logspace", STRIDES) == pytest.approx(LOGSPACE, abs=5e-7)
    assert strengths("resolution", STRIDES) == STRIDES
    assert strengths("even", STRIDES) == [1.0] * 13


def shifts(part: ControlNet, batch: Batch = BATCH) -> dict[str, Tensor]:
    said = part(part.encode(batch), X, T, TOLD)
    return {name: edit.shift for name, edit in said.affine.items() if edit.shift is not None}


def rebuilt(**config: Any) -> ControlNet:
    """Return the same trained ControlNet, configured differently."""
    part = control(NET, **config)
    part.load_state_dict(trained(control(NET)).state_dict())
    return part


@torch.no_grad()
def test_shifts_are_linear_in_the_scale() -> None:
    whole, half = shifts(rebuilt()), shifts(rebuilt(scale=0.5))
    assert list(whole) == [*SKIPS, "mid"]
    for name, shift in whole.items():
        torch.testing.assert_close(half[name], 0.5 * shift)
    own = [0.0, 1.0, 2.0, 0.0, 0.5, 1.0, 3.0]
    each = shifts(rebuilt(scale=own))
    assert list(each) == ["skip.1", "skip.2", "skip.4", "skip.5", "mid"]
    for name, factor in zip([*SKIPS, "mid"], own, strict=True):
        if factor:
            torch.testing.assert_close(each[name], factor * whole[name])
    guess = shifts(rebuilt(scale=2.0, weighting="guess"))
    for i, (name, shift) in enumerate(whole.items()):
        torch.testing.assert_close(guess[name], 2 * 0.825 ** (6 - i) * shift)


@torch.no_grad()
def test_scale_0_is_the_base_and_computes_nothing() -> None:
    part = rebuilt(scale=0.0)
    part.copy.forward = None  # type: ignore[assignment, method-assign]  # it must not be called
    assert torch.equal(answer(NET, part), NET(X, T, TOLD))
    assert part.gives.affine == {}


@torch.no_grad()
def test_the_middle_alone_and_pooled_shifts() -> None:
    whole, mid, pooled = shifts(rebuilt()), shifts(rebuilt(only_mid=True)), shifts(rebuilt(pool=True))
    assert list(mid) == ["mid"]
    torch.testing.assert_close(mid["mid"], whole["mid"])
    for name, shift in whole.items():
        torch.testing.assert_close(pooled[name], shift.mean((2, 3), keepdim=True))
    part = control(NET, only_mid=True)
    assert [p.requires_grad for p in part.zeros.parameters()] == [False] * 12 + [True] * 2


@torch.no_grad()
def test_two_equal_nets_at_half_the_scale_are_one() -> None:
    half = rebuilt(scale=0.5)
    code = half.encode(BATCH)
    once = TOLD | half(code, X, T, TOLD)
    twice = once | half(code, X, T, once)
    torch.testing.assert_close(NET(X, T, twice), answer(NET, rebuilt()), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_others_edits_do_not_reach_the_copy() -> None:
    part, other = rebuilt(), trained(control(NET), seed=7)
    code, first = part.encode(BATCH), other(other.encode(BATCH), X, T, TOLD)
    given = TOLD | first
    alone, beside = part(code, X, T, TOLD), part(code, X, T, given)
    for name, edit in alone.affine.items():
        assert edit.shift is not None
        assert torch.equal(edit.shift, beside.affine[name].shift)


def test_a_copy_has_weights_of_its_own_made_of_those_of_the_base() -> None:
    part = control(NET)
    mine, whole = dict(part.copy.named_parameters()), dict(NET.named_parameters())
    assert all(torch.equal(p, whole[name][: len(p)]) for name, p in mine.items())
    assert not {id(p) for p in mine.values()} & {id(p) for p in whole.values()}
    assert all(p.requires_grad for p in part.parameters())


# --- walks -----------------------------------------------------------------------------------------------------


class Counting(nn.Module):
    """Counts calls of a module, and how many items they had."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.items: list[int] = []
        module.register_forward_pre_hook(lambda _, given: self.items.append(len(given[0])))


def walk(built: System, seeds: Sequence[int] = (0, 1)) -> Tensor:
    with torch.inference_mode():
        return built.walk(BATCH, Noise(seeds))


def test_a_walk_projects_once_and_answers_as_if_it_were_asked_anew() -> None:
    part = rebuilt()
    built = system(NET, {"control": part}, text=Conditioning(guidance=3.0))
    projections = 0
    for module in part.copy.modules():
        if hasattr(module, "project") and hasattr(module, "kv"):
            projections += 1
    calls = Counting(next(module for name, module in part.copy.named_modules() if name.endswith(".kv")))
    model = built.model(BATCH)
    x, t = normal(2, 4, 16, 16), torch.tensor(40.0, dtype=torch.float64)
    with torch.no_grad():
        found = model(x, t)
        codes, nothing = built.codes(BATCH), Condition(context=torch.zeros_like(BATCH["context"]))
        ends = [NET(x, t, told | part(codes["control"], x, t, told)) for told in (nothing, TOLD)]
        eps = ends[0] + 3 * (ends[1] - ends[0])
    torch.testing.assert_close(found.eps, eps, rtol=1e-3, atol=1e-3)
    assert projections > 1
    assert sum(calls.items) <= 4 + 2 + 2  # once for the walk, and twice for the answers beside it


def test_guess_mode_runs_the_copy_for_the_told_branch_alone() -> None:
    part = rebuilt(weighting="guess")
    both = Conditioning(guidance=3.0)
    built = system(NET, {"control": part}, text=both, control=both)
    calls = Counting(part.copy)
    with torch.no_grad():
        model = built.model(BATCH)
    x, t = normal(2, 4, 16, 16), torch.tensor(40.0, dtype=torch.float64)
    with torch.no_grad():
        found = model(x, t)
        assert calls.items == [2]
        nothing = NET(x, t, Condition(context=torch.zeros_like(BATCH["context"])))
        told = NET(x, t, TOLD | part(part.encode(BATCH), x, t, TOLD))
    torch.testing.assert_close(found.eps, nothing + 3 * (told - nothing), rtol=1e-3, atol=1e-3)


def test_outside_its_part_of_the_walk_it_costs_nothing_and_the_base_answers() -> None:
    part = rebuilt()
    calls = Counting(part.copy)
    built = system(NET, {"control": part}, control=Conditioning(start=0.2, end=0.8))
    walked = walk(built)
    assert calls.items == [2] * 6
    assert not torch.allclose(walked, walk(system(NET, {})), atol=1e-3)
    never = system(NET, {"control": part}, control=Conditioning(start=0.95, end=0.97))
    assert torch.equal(walk(never), walk(system(NET, {})))


def test_large_maps_are_controlled_window_by_window() -> None:
    from dataclasses import replace

    part, whole = rebuilt(), hints(1, side=192)
    built = system(NET, {"control": part})
    built.plan = replace(built.plan, window=16)
    batch = {"hint": whole, "context": normal(1, 5, 12)}
    x, t = normal(1, 4, 24, 24), torch.tensor(40.0, dtype=torch.float64)
    with torch.inference_mode():
        blended = built.model(batch)(x, t)
        other = built.model({**batch, "hint": 1 - whole})(x, t)
    assert blended.x0.shape == x.shape
    assert not torch.allclose(blended.x0, other.x0, atol=1e-3)


def test_who_is_dropped_in_training_is_not_controlled_and_gradients_stay() -> None:
    part = rebuilt()
    code = part.encode(BATCH)
    mixed = code._replace(on=torch.tensor([True, False]))
    out = NET(X, T, TOLD | part(mixed, X, T, TOLD))
    plain, full = NET(X, T, TOLD), answer(NET, part)
    torch.testing.assert_close(out[:1], full[:1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(out[1:], plain[1:], rtol=1e-4, atol=1e-4)
    nobody = NET(X, T, TOLD | part(part.null(code), X, T, TOLD))
    assert torch.equal(nobody, plain)
    nobody.square().mean().backward()
    assert all(p.grad is not None and not p.grad.any() for p in part.copy.parameters())


def test_the_audit_names_a_control_that_the_output_ignores() -> None:
    noise = Noise([0, 1])
    for part, deaf in ((control(NET), ("control",)), (rebuilt(), ())):
        assert ignored(system(NET, {"control": part}), BATCH, noise) == deaf


@pytest.mark.parametrize("prepared", [False, True])
@torch.no_grad()
def test_who_is_not_controlled_is_left_out_and_the_others_are_told_all_that_the_base_is(prepared: bool) -> None:
    net = base(concat=2, vector=6)
    part = trained(control(net))
    told = Condition(
        context=normal(2, 5, 12, seed=1),
        context_mask=torch.tensor([[True] * 5, [True] * 3 + [False] * 2]),
        vector=normal(2, 6, seed=2),
        concat=normal(2, 2, 16, 16, seed=3),
    )
    code = part.encode(BATCH)
    half = code._replace(on=torch.tensor([False, True]))
    whole = part(code, X, T, told)
    said = part(part.prepare(half, told) if prepared else half, X, T, net.prepare(told))
    for name, edit in said.affine.items():
        assert edit.shift is not None
        expected = whole.affine[name].shift
        assert expected is not None
        assert not edit.shift[0].any()
        torch.testing.assert_close(edit.shift[1], expected[1], rtol=1e-4, atol=1e-4)


def test_a_step_waits_for_no_device() -> None:
    with torch.device("meta"):
        net = UNet(space=SPACE, **SMALL)
        part = ControlNet(denoiser=net, autoencoder=Halving())
    code = part.encode({"hint": torch.empty(4, 3, 128, 128, device="meta")})
    assert code.on.device.type == "cpu"
    half = code._replace(on=torch.tensor([False, False, True, True]))
    x, told = torch.empty(4, 4, 16, 16, device="meta"), Condition(context=torch.empty(4, 5, 12, device="meta"))
    with torch.no_grad():  # a number asked of a tensor on the meta device is an error
        walk = part.prepare(half, told)
        said = part(walk, x, torch.tensor(0.0), told)
    assert walk.hint.shape[0] == 2
    assert all(projected.shape[0] == 2 for projected in walk.projected.values())
    assert said.affine["mid"].shift is not None
    assert said.affine["mid"].shift.shape == (4, 32, 8, 8)


@pytest.mark.parametrize("name", ["controlnet", "t2i-adapter"])
def test_the_contract_of_conditioners_is_kept(name: str) -> None:
    outcomes = verify("conditioner", name)
    assert {outcome.status for outcome in outcomes} == {"passed", "not applicable"}
    assert sum(outcome.status == "passed" for outcome in outcomes) >= 4


# --- what is refused -------------------------------------------------------------------------------------------


def test_hints_are_between_0_and_1_and_fit() -> None:
    part = control(NET)
    with pytest.raises(DataError, match=r"out of range.*got -0\.\d+ … 0\.\d+.*left? in|out of range"):
        part.encode({"hint": hints(2) - 0.5})
    with pytest.raises(DataError, match="out of range"):
        part.encode({"hint": 255 * hints(2)})
    for wrong in (hints(2, side=100), hints(2, channels=2), hints(2)[0]):
        with pytest.raises(DataError, match="does not fit"):
            part.encode({"hint": wrong})
    masked = hints(2)
    masked[:, :, :9] = -1.0
    part.encode({"hint": masked})
    one = hints(2, channels=1)
    assert torch.equal(part.encode({"hint": one}).hint, part.encode({"hint": one.expand(-1, 3, -1, -1)}).hint)
    whole = (hints(2) > 0.5).to(torch.uint8)
    assert torch.equal(part.encode({"hint": whole}).hint, part.encode({"hint": whole.float()}).hint)
    with pytest.raises(IncompatibleParts, match=r"not as large.*128 × 128.*64 × 64"):
        part(part.encode({"hint": hints(2, side=64)}), X, T, TOLD)


def test_what_does_not_fit_is_refused() -> None:
    part = rebuilt()
    with pytest.raises(IncompatibleParts, match=r"not told what the denoiser is.*list it after"):
        part(part.encode(BATCH), X, T, Condition())
    with pytest.raises(IncompatibleParts, match="or 7: for each skip"):
        control(NET, scale=[1.0, 2.0])
    bare = TinyDenoiser(space=SPACE)
    bare.taps = bare.taps[-1:]
    with pytest.raises(IncompatibleParts, match="lacks the taps"):
        ControlNet(denoiser=bare, autoencoder=Halving())
    with pytest.raises(IncompatibleParts, match="4 widths for a stride of 8"):
        control(NET, widths=(8, 8))
    with pytest.raises(IncompatibleParts, match="power of two"):
        control(NET, stride=6)


@pytest.mark.parametrize(("stride", "widths"), [(1, (16,)), (2, (16, 32)), (8, (16, 32, 96, 256)), (16, None)])
def test_a_hint_encoder_ends_in_the_size_of_what_is_diffused(stride: int, widths: tuple[int, ...] | None) -> None:
    encoder = scramble(HintEncoder(2, 12, stride=stride))
    assert encoder.widths == (widths or (16, 32, 96, 256, 256))
    assert encoder(hints(1, side=64, channels=2)).shape == (1, 12, 64 // stride, 64 // stride)


def test_any_denoiser_with_the_taps_is_copied() -> None:
    net = scramble(TinyDenoiser(space=SPACE))
    part = scramble(ControlNet(denoiser=net, autoencoder=Halving()), seed=3)
    told = part(part.encode({"hint": hints(2)}), X, T, Condition())
    assert list(told.affine) == ["skip.0", "mid"]
    assert not torch.allclose(net(X, T, told), net(X, T), atol=1e-3)
