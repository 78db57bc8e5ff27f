"""What an autoencoder is trained with: likelihoods, codebook, judge and perceptual distance."""

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffloom.errors import CheckpointError, DataError, IncompatibleParts
from diffloom.noise import Noise
from diffloom_ldm.autoencoders.codebook import Codebook
from diffloom_ldm.losses.likelihood import distortion
from diffloom_ldm.losses.patch_gan import PatchGAN, adaptive_weight, discriminator_loss, generator_loss
from diffloom_ldm.losses.perceptual import LPIPS, _triples

DATA = Path(os.environ.get("DIFFLOOM_DATA", "/nowhere"))
ZERO = torch.zeros(())


def one(value: float) -> Tensor:
    return torch.full((1, 1, 1, 1), value, dtype=torch.float64)


# --- likelihoods -------------------------------------------------------------------------------------------------


def test_a_gaussian_of_variance_one_half_is_the_squared_error_and_a_constant() -> None:
    found = distortion("gaussian", one(0.3), one(0.0), torch.tensor(0.5 * math.log(0.5)))
    assert float(found) == pytest.approx(0.09 + 0.572364942925, abs=1e-6)
    assert float(distortion("l2", one(0.3), one(0.0), ZERO)) == pytest.approx(0.09)


def test_the_best_shared_variance_is_the_mean_squared_error() -> None:
    x = torch.tensor([1.0, -1.0, 2.0]).view(1, 3, 1, 1)
    log_width = torch.zeros((), requires_grad=True)
    at_best = torch.tensor(0.5 * math.log(2.0))
    assert float(distortion("gaussian", x, 0 * x, at_best)) / 3 == pytest.approx(1.76551212348, abs=1e-6)
    (slope,) = torch.autograd.grad(
        distortion("gaussian", x, 0 * x, at_best + 0 * log_width + log_width).sum(), log_width
    )
    assert float(slope) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_densities_add_to_one(kind: str) -> None:
    x = torch.linspace(-40, 40, 80_001).view(-1, 1, 1, 1)
    p = distortion(kind, x, torch.full_like(x, 0.3), torch.tensor(0.4)).neg().exp()  # type: ignore[arg-type]
    assert float(p.double().sum() * 0.001) == pytest.approx(1, abs=1e-3)


def test_grey_levels_add_to_one() -> None:
    levels = (torch.arange(256) / 127.5 - 1).view(-1, 1, 1, 1)
    p = distortion("discretised", levels, torch.full_like(levels, 0.2), torch.tensor(-2.0)).neg().exp()
    assert float(p.double().sum()) == pytest.approx(1, abs=1e-5)


def test_bernoulli_is_the_cross_entropy_of_chances() -> None:
    assert float(distortion("bernoulli", one(1.0), one(0.5), ZERO)) == pytest.approx(-math.log(0.75))
    assert float(distortion("bernoulli", one(-1.0), one(0.5), ZERO)) == pytest.approx(-math.log(0.25))


def test_plain_errors_are_sums_per_item() -> None:
    x, y = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4) * torch.tensor([1.0, 2.0]).view(-1, 1, 1, 1)
    assert distortion("l1", x, y, ZERO).tolist() == [48.0, 96.0]
    assert distortion("l2", x, y, ZERO).tolist() == [48.0, 192.0]


# --- codebook ----------------------------------------------------------------------------------------------------


def latents(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_the_nearest_code_is_the_nearest() -> None:
    torch.manual_seed(0)
    book = Codebook(20, 3)
    torch.nn.init.normal_(book.vectors)
    z = latents()
    rows = z.movedim(1, -1).reshape(-1, 3)
    brute = (rows[:, None] - book.vectors[None]).square().sum(-1).argmin(1)
    assert torch.equal(book.nearest(z).flatten(), brute)
    assert torch.equal(book.lookup(book.nearest(z)).movedim(1, -1).reshape(-1, 3), book.vectors[brute])


def test_gradients_pass_through_codes_as_they_are() -> None:
    book, z = Codebook(20, 3), latents().requires_grad_()
    seed = torch.randn(2, 3, 4, 4)
    (found,) = torch.autograd.grad((book(z).values * seed).sum(), z)
    torch.testing.assert_close(found, seed)


@pytest.mark.parametrize(("loss", "to_latents", "to_codes"), [("legacy", 2.0, 0.5), ("correct", 0.5, 2.0)])
def test_commitment_weighs_the_right_term(loss: str, to_latents: float, to_codes: float) -> None:
    """dL/dz = (2 | ½)(z − e)/n and dL/de = (½ | 2)(e − z)/n with β = ¼ over n elements."""
    book, z = Codebook(2, 3, loss=loss), latents().requires_grad_()  # type: ignore[arg-type]
    vectors = book.vectors
    for_latents, for_codes = torch.autograd.grad(book(z).loss, (z, vectors))
    gap, n = z - book.lookup(book.nearest(z)), z.numel()
    torch.testing.assert_close(for_latents, to_latents * gap / n)
    rows = torch.zeros_like(vectors).index_add_(0, book.nearest(z).flatten(), gap.movedim(1, -1).reshape(-1, 3))
    torch.testing.assert_close(for_codes, -to_codes * rows / n)


def test_perplexity_counts_codes_in_use() -> None:
    book = Codebook(8, 1)
    with torch.no_grad():
        book.vectors.copy_(torch.arange(8.0)[:, None])
    even = book(torch.arange(4.0).view(1, 1, 2, 2))
    assert float(even.perplexity) == pytest.approx(4)
    assert float(even.usage) == pytest.approx(0.5)
    assert float(book(torch.zeros(1, 1, 2, 2)).perplexity) == pytest.approx(1)


def test_averaged_codes_follow_the_formula() -> None:
    book = Codebook(4, 2, decay=0.99).train()
    start = book.vectors.clone()
    z = torch.randn(3, 2, 5, 5)
    found = book(z)
    rows, indices = z.movedim(1, -1).reshape(-1, 2), found.indices.flatten()
    n = torch.bincount(indices, minlength=4).float()
    counts = 0.99 * 1 + 0.01 * n
    sums = 0.99 * start + 0.01 * torch.zeros(4, 2).index_add_(0, indices, rows)
    smooth = (counts + 1e-5) / (counts.sum() + 4e-5) * counts.sum()
    torch.testing.assert_close(book.vectors, sums / smooth[:, None])
    assert not list(book.parameters())
    commitment = 0.25 * (z - start[indices].view(3, 5, 5, 2).movedim(-1, 1)).square().mean()
    torch.testing.assert_close(found.loss, commitment)
    with torch.no_grad():
        before = book.vectors.clone()
        book(z)
    assert torch.equal(book.vectors, before)  # nothing is learned without gradients


def test_averaged_codes_find_the_clusters() -> None:
    torch.manual_seed(0)
    centres = torch.tensor([[-5.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    book = Codebook(3, 2, decay=0.9, restart=5).train()
    for step in range(200):
        z = centres[torch.randint(3, (64,))] + 0.1 * torch.randn(64, 2)
        book(z.view(64, 2, 1, 1), Noise([step]))
    found = torch.cdist(centres, book.vectors).min(1)
    assert float(found.values.max()) < 0.2
    assert len(set(found.indices.tolist())) == 3


def test_idle_codes_start_again_at_latents_of_the_batch() -> None:
    book, z = Codebook(5, 2, restart=2).train(), torch.randn(1, 2, 3, 3)
    with torch.no_grad():
        book.vectors.copy_(torch.cat([torch.zeros(1, 2), torch.full((4, 2), 100.0)]))
    for _ in range(2):
        book(z, Noise([0]))
    assert bool((book.vectors[1:] == 100).all())  # not yet idle for long enough
    book(z, Noise([0]))
    rows = z.movedim(1, -1).reshape(-1, 2)
    assert bool((torch.cdist(book.vectors[1:], rows).min(1).values < 1e-6).all())
    assert bool((book.vectors[0] == 0).all())


def test_codes_cost_bits() -> None:
    """256² pixels: f = 4 and 8192 codes take 53 248 bits, 0.8125 per pixel; f = 8 takes 14 336 and 8 192."""
    assert 64**2 * Codebook(8192, 1).bits == 53_248
    assert 64**2 * Codebook(8192, 1).bits / 256**2 == 0.8125
    assert 32**2 * Codebook(16384, 1).bits == 14_336
    assert 32**2 * Codebook(256, 1).bits == 8_192


# --- judge -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "parameters", "patches"), [(3, 2_765_633, 30), (2, 663_361, 62)])
def test_the_judges_of_the_papers(layers: int, parameters: int, patches: int) -> None:
    with torch.device("meta"):
        judge = PatchGAN(3, layers=layers)
        assert judge(torch.empty(1, 3, 256, 256)).shape == (1, 1, patches, patches)
    assert sum(p.numel() for p in judge.parameters()) == parameters
    assert judge.patches(256) == patches


@pytest.mark.parametrize(("layers", "field"), [(3, 70), (2, 34)])
def test_a_patch_has_the_papers_pixels(layers: int, field: int) -> None:
    judge = PatchGAN(1, width=2, layers=layers).eval()
    x = torch.randn(1, 1, 128, 128, requires_grad=True)
    verdict = judge(x)
    middle = verdict.shape[-1] // 2
    (reach,) = torch.autograd.grad(verdict[0, 0, middle, middle], x)
    assert int(reach[0, 0].abs().sum(0).ne(0).sum()) == field


def test_hinge_and_vanilla_losses() -> None:
    real, fake = torch.tensor([0.5, 2.0]), torch.tensor([-0.5, 0.25])
    assert float(discriminator_loss("hinge", real, fake)) == pytest.approx(0.5625)
    assert float(generator_loss("hinge", fake)) == pytest.approx(0.125)
    softplus = [math.log1p(math.exp(v)) for v in (-0.5, -2.0, -0.5, 0.25)]
    assert float(discriminator_loss("vanilla", real, fake)) == pytest.approx(sum(softplus) / 4)
    assert float(generator_loss("vanilla", fake)) == pytest.approx(
        (math.log1p(math.exp(0.5)) + math.log1p(math.exp(-0.25))) / 2
    )


def test_the_adaptive_weight_is_a_ratio_of_gradients() -> None:
    layer = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    ones = torch.ones(4, dtype=torch.float64)
    weight = adaptive_weight((layer * ones).sum(), 0.25 * (layer * ones).sum(), layer)
    assert 0.5 * float(weight) == pytest.approx(1.9996000799840032, abs=1e-12)
    assert float(adaptive_weight(1e3 * layer.sum(), 0 * layer.sum(), layer)) == 1e4


def test_images_without_a_patch_are_refused() -> None:
    with pytest.raises(IncompatibleParts, match="too small for the discriminator"):
        PatchGAN(1).require((16, 16))


# --- perceptual distance -----------------------------------------------------------------------------------------


def vgg16(folder: Path) -> tuple[Any, str]:
    """Return timm's VGG16 with random weights, and the file of its convolutions."""
    from safetensors.torch import save_file

    from diffloom.vision_compat import ensure_torchvision

    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    net = timm.create_model("vgg16", num_classes=0)
    features = {k: v.contiguous() for k, v in net.state_dict().items() if k.startswith("features.")}
    save_file(features, folder / "vgg16.safetensors")
    return net, str(folder / "vgg16.safetensors")


def test_the_distance_is_that_of_its_definition_on_timms_network(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    net, file = vgg16(tmp_path)
    heads = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate((64, 128, 256, 512, 512))}
    save_file(heads, tmp_path / "linear.safetensors")
    ours = LPIPS(backbone=file, linear=str(tmp_path / "linear.safetensors"))
    x, y = torch.rand(2, 2, 3, 32, 32) * 2 - 1
    shift, scale = (torch.tensor(v).view(1, 3, 1, 1) for v in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
    taps, expected = {3: 0, 8: 1, 15: 2, 22: 3, 29: 4}, torch.zeros(2)
    h = torch.cat([x, y]).sub(shift).div(scale)
    for place, layer in enumerate(net.features.eval()):
        h = layer(h)
        if place in taps:
            unit = h / (h.square().sum(1, keepdim=True).sqrt() + 1e-10)
            difference = (unit[:2] - unit[2:]).square() * heads[f"lin{taps[place]}.model.1.weight"]
            expected = expected + difference.sum(1).mean((1, 2))
    torch.testing.assert_close(ours(x, y), expected, rtol=1e-4, atol=1e-6)


def test_equal_images_have_no_distance_and_gradients_reach_the_first(tmp_path: Path) -> None:
    net = LPIPS(backbone="random")
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    y = (torch.rand(1, 3, 32, 32) * 2 - 1).requires_grad_()
    assert float(net(x, x)) == 0
    net(y, x).sum().backward()
    assert y.grad is not None
    assert bool(y.grad.any())
    assert not list(net.parameters())
    assert not net.state_dict()


def test_every_band_is_seen() -> None:
    assert _triples(3) == [(0, 1, 2)]
    assert _triples(1) == [(0, 0, 0)]
    assert _triples(2) == [(0, 1, 1)]
    assert _triples(7) == [(0, 1, 2), (3, 4, 5), (4, 5, 6)]
    net = LPIPS(backbone="random")
    x = torch.rand(1, 7, 16, 16) * 2 - 1
    for band in range(7):
        y = x.clone()
        y[:, band] *= -1
        assert float(net(x, y)) > 1e-6
    triples = torch.stack([net(x[:, list(t)], -x[:, list(t)]) for t in _triples(7)])
    torch.testing.assert_close(net(x, -x), triples.mean(0))


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "bad.safetensors")
    with pytest.raises(CheckpointError, match=r"features\.0\.weight"):
        LPIPS(backbone=str(tmp_path / "bad.safetensors"))
    with pytest.raises(DataError, match="does not exist"):
        LPIPS(backbone="nowhere.pth")


@pytest.mark.skipif(not (DATA / "weights" / "lpips").is_dir(), reason="DIFFLOOM_DATA has no weights")
def test_the_published_linear_weights_are_read() -> None:
    net = LPIPS(backbone="random", linear="$DIFFLOOM_DATA/weights/lpips/vgg.pth")
    heads = [net.get_buffer(f"head{i}") for i in range(5)]
    assert [h.shape[1] for h in heads] == [64, 128, 256, 512, 512]
    assert all(bool((h >= 0).all()) and bool(h.any()) for h in heads)
