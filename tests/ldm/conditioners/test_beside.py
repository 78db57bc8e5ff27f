"""What is shown beside x_t: semantic maps, masks and images; orders, fills and numbers of channels are the papers'."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from diffloom.autoencoder import Autoencoder
from diffloom.condition import Condition
from diffloom.errors import DataError, IncompatibleParts
from diffloom.noise import Noise
from diffloom.testing.standins import PlainAutoencoder, vp
from diffloom_ldm.conditioners.image import Image
from diffloom_ldm.conditioners.mask import Mask
from diffloom_ldm.conditioners.semantic_map import SemanticMap
from tests.ldm.conditioners.parts import Quarter, denoiser

PIXELS = PlainAutoencoder(channels=3)
X, T = torch.zeros(2, 3, 16, 16), torch.tensor(3.0)


def beside(said: Condition) -> Tensor:
    assert said.concat is not None
    return said.concat


def latent(channels: int) -> Autoencoder:
    autoencoder = Quarter()
    autoencoder.latent_channels = channels
    return autoencoder


@pytest.mark.parametrize(
    ("make", "channels"),
    [
        (lambda: SemanticMap(classes=182, autoencoder=latent(3)), 3 + 3),
        (lambda: Mask(convention="ldm", autoencoder=latent(3)), 3 + 3 + 1),
        (lambda: Mask(convention="sd", autoencoder=latent(4)), 4 + 1 + 4),
        (lambda: Image(channels=3, autoencoder=latent(3), denoiser=denoiser(concat=3)), 3 + 3),
    ],
)
def test_the_published_numbers_of_input_channels(make: Callable[[], SemanticMap | Mask | Image], channels: int) -> None:
    part = make()
    space = part._borrowed.autoencoder.latent_channels if isinstance(part, Mask | Image) else 3
    assert space + part.gives.concat == channels


# --- semantic maps -------------------------------------------------------------------------------------------------


def test_the_published_number_of_parameters() -> None:
    part = SemanticMap(classes=182, autoencoder=Quarter())
    assert sum(p.numel() for p in part.parameters()) == 546


def test_two_halvings_are_means_over_sixteen_pixels() -> None:
    part = SemanticMap(classes=5, channels=5, autoencoder=Quarter())
    with torch.no_grad():
        part.mix.weight.copy_(torch.eye(5).view(5, 5, 1, 1))
    numbers = torch.randint(0, 5, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    shares = functional.avg_pool2d(functional.one_hot(numbers, 5).permute(0, 3, 1, 2).float(), 4)
    torch.testing.assert_close(beside(part.encode({"mask": numbers})), shares)
    torch.testing.assert_close(beside(part.encode({"mask": numbers[:, None]})), shares)


def test_an_unknown_place_says_nothing() -> None:
    part = SemanticMap(classes=3, autoencoder=PIXELS)
    code = part.encode({"mask": torch.full((1, 16, 16), 255)})
    assert not beside(code).any()
    assert torch.equal(beside(part.null(code)), beside(code))


def test_what_is_no_map_is_refused() -> None:
    with pytest.raises(DataError, match="no map of classes"):
        SemanticMap(classes=3, autoencoder=PIXELS).encode({"mask": torch.zeros(2, 3, 16, 16)})
    odd = PlainAutoencoder(channels=3)
    odd.stride = 6
    with pytest.raises(IncompatibleParts, match="power of 2"):
        SemanticMap(classes=3, autoencoder=odd)


# --- masks -----------------------------------------------------------------------------------------------------------


def scene() -> dict[str, Tensor]:
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:8, 8:16] = 1
    return {"image": image, "mask": mask}


def test_latent_diffusion_s_order_polarity_and_black_hole() -> None:
    told = beside(Mask(convention="ldm", autoencoder=PIXELS).encode(scene()))
    batch = scene()
    unit = (batch["image"] + 1) / 2
    masked = (1 - batch["mask"]) * unit * 2 - 1
    torch.testing.assert_close(told[:, :3], masked)
    torch.testing.assert_close(told[:, 3:], 2 * batch["mask"] - 1)
    assert told[0, :, 5, 9].tolist() == [-1, -1, -1, 1]


def test_stable_diffusion_s_order_polarity_and_grey_hole() -> None:
    told = beside(Mask(convention="sd", autoencoder=PIXELS).encode(scene()))
    batch = scene()
    torch.testing.assert_close(told[:, :1], batch["mask"])
    torch.testing.assert_close(told[:, 1:], batch["image"] * (batch["mask"] < 0.5))
    assert told[0, :, 5, 9].tolist() == [1, 0, 0, 0]


def test_in_latents_the_masked_image_is_encoded_and_scaled_and_the_mask_taken_at_nearest_pixels() -> None:
    told = beside(Mask(autoencoder=Quarter()).encode(scene()))
    batch = scene()
    assert told.shape == (1, 4, 4, 4)
    torch.testing.assert_close(told[:, :1], batch["mask"][..., ::4, ::4])
    torch.testing.assert_close(told[:, 1:], functional.avg_pool2d(batch["image"] * (1 - batch["mask"]), 4) * 0.5)


@pytest.mark.parametrize("convention", ["sd", "ldm"])
def test_hidden_pixels_are_never_looked_at(convention: str) -> None:
    part = Mask(convention=convention, autoencoder=Quarter())  # type: ignore[arg-type]  # one of the two
    batch = scene()
    other = batch | {"image": torch.where(batch["mask"] > 0, torch.rand(1, 3, 16, 16), batch["image"])}
    assert torch.equal(beside(part.encode(batch)), beside(part.encode(other)))


@pytest.mark.parametrize(("convention", "place"), [("sd", 0), ("ldm", 3)])
def test_nothing_said_is_a_hole_of_the_whole_image(convention: str, place: int) -> None:
    part = Mask(convention=convention, autoencoder=PIXELS)  # type: ignore[arg-type]  # one of the two
    null = beside(part.null(part.encode(scene())))
    assert set(null[:, place].flatten().tolist()) == {1}
    assert not null.index_select(1, torch.tensor([c for c in range(4) if c != place])).any()


def test_the_autoencoder_is_neither_trained_nor_saved_with_what_borrows_it() -> None:
    for part in (Mask(autoencoder=Quarter()), Image(encode=True, autoencoder=Quarter(), denoiser=denoiser(concat=3))):
        assert not list(part.parameters())
        assert not part.state_dict()


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(DataError, match=r"does not lie on the image.*got \(1, 1, 8, 8\)"):
        Mask(autoencoder=PIXELS).encode(scene() | {"mask": torch.zeros(1, 1, 8, 8)})


# --- images ----------------------------------------------------------------------------------------------------------


def small(**changes: object) -> Image:
    told = {"autoencoder": PIXELS, "denoiser": denoiser(concat=3, vector=6), "schedule": vp(50), **changes}
    return Image(**told)  # type: ignore[arg-type]  # parameters by name


def test_an_image_is_shown_in_the_size_of_x_t() -> None:
    part = small()
    low = torch.rand(2, 3, 4, 4) * 2 - 1
    told = part(part.encode({"low_res": low}), X, T, Condition())
    expected = functional.interpolate(low, (16, 16), mode="bicubic", antialias=True)
    torch.testing.assert_close(beside(told), expected)
    full = torch.rand(2, 3, 16, 16)
    assert beside(part(part.encode({"low_res": full}), X, T, Condition())) is full
    assert part.gives.vector == 0


def test_latents_of_a_source_are_the_scaled_most_likely_code() -> None:
    part = small(key="pre", encode=True, autoencoder=Quarter())
    assert part.needs == ("pre",)
    source = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(beside(part.encode({"pre": source})), functional.avg_pool2d(source, 4) * 0.5)


def test_augmentation_noises_to_the_level_that_it_tells() -> None:
    part, noise = small(noise=20, level=7).eval(), Noise([1, 2])
    low = torch.rand(2, 3, 4, 4)
    plain = part.encode({"low_res": low})
    varied = part.vary(plain, noise)
    eps = noise.normal(low, "augment")
    torch.testing.assert_close(beside(varied), vp(50).diffuse(low, 7, eps))
    assert part.levels is not None
    assert varied.vector is not None
    torch.testing.assert_close(varied.vector, part.levels.weight[[7, 7]])
    assert torch.equal(beside(plain), low)
    assert plain.vector is not None
    torch.testing.assert_close(plain.vector, part.levels.weight[[0, 0]])


def test_training_draws_every_level_up_to_the_highest_evenly() -> None:
    part, count = small(noise=4).train(), 2000
    low = torch.zeros(count, 3, 1, 1)
    varied = part.vary(part.encode({"low_res": low}), Noise(range(count)))
    assert part.levels is not None
    assert varied.vector is not None
    levels = torch.cdist(varied.vector, part.levels.weight).argmin(1)
    shares = levels.bincount(minlength=5) / count
    torch.testing.assert_close(shares, torch.full((5,), 0.2), atol=0.04, rtol=0)
    spread = torch.stack([beside(varied)[levels == k].std() for k in range(5)])
    torch.testing.assert_close(spread[1:], vp(50).sigma(torch.arange(1, 5)).float(), atol=0, rtol=0.1)
    assert spread[0] == 0


def test_nothing_shown_is_zeros_and_the_level_stays() -> None:
    part = small(noise=4)
    code = part.encode({"low_res": torch.rand(2, 3, 4, 4)})
    null = part.null(code)
    assert not beside(null).any()
    assert null.vector is code.vector


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"noise": 4, "denoiser": denoiser(concat=3)}, IncompatibleParts, "cannot be told"),
        ({"noise": 50}, IncompatibleParts, "no such level"),
        ({"noise": 4, "level": 5}, ValueError, "above the highest"),
    ],
)
def test_levels_that_cannot_be_are_refused(changes: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small(**changes)


def test_an_image_of_other_channels_is_refused() -> None:
    with pytest.raises(DataError, match=r"expected \(B, 3, h, w\), got \(2, 1, 4, 4\)"):
        small().encode({"low_res": torch.zeros(2, 1, 4, 4)})
