from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from diffloom.data import Dataset, Sample, Transform
from diffloom.errors import DataError
from diffloom.space import Space
from diffloom_data.colour import Colour
from diffloom_data.geometry import Crop, Flip, Geometry, Resize, Rotate, georeferenced
from diffloom_data.moves import Mirror, Move, QuarterTurns, Scale, Turn, Window
from diffloom_data.pixels import fit, resize

SIZES = st.tuples(st.integers(4, 12), st.integers(4, 12))


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(height: int = 12, width: int = 12, seed: int = 0) -> Sample:
    """An image whose single channel is its own mask, so that any misalignment shows."""
    mask = torch.randint(0, 5, (1, height, width), generator=stream(seed))
    return {"image": mask.float() / 2 - 1, "mask": mask, "label": 3, "low_res": mask.float()[:, ::2, ::2]}


def geometries() -> st.SearchStrategy[Geometry]:
    return st.one_of(
        st.builds(
            Crop,
            size=st.sampled_from([4, 8]),
            position=st.sampled_from(["random", "centre"]),
            multiple=st.just(2),
        ),
        st.builds(Flip, horizontal=st.floats(0, 1), vertical=st.floats(0, 1)),
        st.just(Rotate()),
    )


@given(geometries(), st.integers(0, 99))
@settings(deadline=None)
def test_image_mask_and_low_resolution_stay_aligned(transform: Geometry, seed: int) -> None:
    sample = scene()
    before = {key: value.clone() for key, value in sample.items() if isinstance(value, Tensor)}
    changed = transform(sample, stream(seed))
    assert torch.equal(changed["image"], changed["mask"].float() / 2 - 1)
    assert all(torch.equal(sample[key], value) for key, value in before.items())
    assert changed["label"] == 3
    assert changed["image"].shape[-2:] == transform.space(Space(1, (12, 12))).size
    assert changed["low_res"].shape[-1] * 2 == changed["image"].shape[-1]


@given(geometries(), st.integers(0, 99))
@settings(deadline=None)
def test_equal_generators_give_equal_samples(transform: Geometry, seed: int) -> None:
    first, second = (transform(scene(), stream(seed)) for _ in range(2))
    assert torch.equal(first["image"], second["image"])


def test_the_global_generator_is_neither_used_nor_moved() -> None:
    state = torch.get_rng_state()
    for transform in (Crop(size=4), Flip(), Rotate(degrees=20), Resize(size=8), Colour()):
        transform({"image": scene()["image"]}, stream())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "transform", [Flip(horizontal=1), Flip(vertical=1, horizontal=0), Flip(horizontal=1, vertical=1)]
)
def test_two_flips_undo_each_other(transform: Transform) -> None:
    once = transform(scene(7, 9), stream())
    assert not torch.equal(once["mask"], scene(7, 9)["mask"])
    assert torch.equal(transform(once, stream())["mask"], scene(7, 9)["mask"])


@pytest.mark.parametrize(("angle", "times"), [(90, 4), (180, 2), (270, 4)])
def test_right_angles_come_round_again(angle: int, times: int) -> None:
    transform = Rotate(angles=(angle,))  # type: ignore[arg-type]
    sample = scene(6, 10)
    seen = []
    for _ in range(times):
        sample = transform(sample, stream())
        seen.append(tuple(sample["mask"].shape[-2:]))
    assert torch.equal(sample["mask"], scene(6, 10)["mask"])
    assert torch.equal(sample["image"], scene(6, 10)["image"])
    assert seen[0] == transform.space(Space(1, (6, 10))).size


def test_a_positive_angle_turns_anticlockwise() -> None:
    sample = {"image": torch.tensor([[[1.0, 2], [3, 4]]])}
    assert Rotate(angles=(90,))(sample, stream())["image"].tolist() == [[[2, 4], [1, 3]]]


@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_any_angle_agrees_with_right_angles(turns: int, nearest: bool) -> None:
    image = torch.rand(2, 9, 9, generator=stream())
    turned = Turn(90.0 * turns, (9, 9))(image, nearest=nearest)
    assert torch.allclose(turned, torch.rot90(image, turns, (-2, -1)), atol=1e-5)


def test_a_turn_keeps_masks_to_their_values_and_brings_in_no_new_class() -> None:
    mask = torch.randint(3, 6, (1, 16, 10), generator=stream())
    turned = Rotate(angles=(0,), degrees=45)({"image": mask.float(), "mask": mask}, stream(1))
    assert turned["mask"].dtype == torch.int64
    assert set(turned["mask"].unique().tolist()) <= {3, 4, 5}
    assert not torch.equal(turned["mask"], mask)


def test_masks_of_any_number_type_take_existing_values_only() -> None:
    mask = torch.randint(0, 2, (1, 9, 9), generator=stream()).float()
    for transform in (Resize(size=7), Rotate(angles=(0,), degrees=45)):
        changed = transform({"image": torch.rand(1, 9, 9), "mask": mask}, stream(1))["mask"]
        assert set(changed.unique().tolist()) == {0.0, 1.0}


def test_all_eight_symmetries_are_reached() -> None:
    image = torch.arange(9.0).view(1, 3, 3)
    chain: tuple[Transform, ...] = (Flip(), Rotate())
    seen = set()
    for seed in range(80):
        sample, generator = {"image": image}, stream(seed)
        for transform in chain:
            sample = transform(sample, generator)
        seen.add(tuple(sample["image"].flatten().tolist()))
    assert len(seen) == 8


def test_probabilities_are_kept() -> None:
    image = torch.tensor([[[0.0, 1.0]]])
    generator = stream()
    flipped = sum(int(Flip(horizontal=0.3)({"image": image}, generator)["image"][0, 0, 0]) for _ in range(2000))
    assert abs(flipped / 2000 - 0.3) < 0.05


def test_a_random_window_reaches_every_place_and_a_centred_one_the_middle() -> None:
    image = torch.arange(36.0).view(1, 6, 6)
    corners = {int(Crop(size=4)({"image": image}, stream(seed))["image"][0, 0, 0]) for seed in range(200)}
    assert corners == {row * 6 + column for row in range(3) for column in range(3)}
    assert Crop(size=4, position="centre")({"image": image}, stream())["image"][0, 0, 0] == 7
    with pytest.raises(DataError, match="smaller than the window"):
        Crop(size=7)({"image": image}, stream())


def test_a_window_between_the_pixels_of_a_part_is_refused() -> None:
    with pytest.raises(DataError, match="whole pixels"):
        Crop(size=5)(scene(), stream())


def test_an_unknown_spatial_part_is_refused_until_it_is_named() -> None:
    sample = {"image": torch.rand(1, 4, 4), "depth": torch.rand(1, 4, 4)}
    with pytest.raises(DataError, match="'depth'"):
        Flip()(sample, stream())
    flipped = Flip(horizontal=1, also=("depth",))(sample, stream())
    assert torch.equal(flipped["depth"], sample["depth"].flip(-1))
    with pytest.raises(DataError, match="shows nothing"):
        Flip()({"label": 1}, stream())


def test_resize_fits_as_asked() -> None:
    generator = stream()
    wide = {"image": torch.rand(1, 8, 16, generator=generator)}
    cover, stretch, shorter = (
        Resize(size=6, fit=fit)(wide, generator)["image"] for fit in ("cover", "stretch", "shorter")
    )
    assert (cover.shape, stretch.shape, shorter.shape) == ((1, 6, 6), (1, 6, 6), (1, 6, 12))
    assert torch.equal(cover, shorter[..., 3:9])
    assert Resize(size=6, fit="shorter").space(Space(1, (8, 16))).size == (6, 12)
    assert torch.equal(Resize(size=8)({"image": torch.ones(1, 8, 8)}, generator)["image"], torch.ones(1, 8, 8))


@given(SIZES, SIZES, st.integers(0, 9))
@settings(deadline=None)
def test_resizing_agrees_with_pillow_and_never_leaves_the_range(
    before: tuple[int, int], after: tuple[int, int], seed: int
) -> None:
    image = torch.rand(before, generator=stream(seed))
    ours = resize(image, after)
    pillow = Image.fromarray(image.numpy()).resize((after[1], after[0]), Image.Resampling.BICUBIC)
    theirs = torch.from_numpy(np.array(pillow))
    assert torch.allclose(ours, theirs.clamp(image.min(), image.max()), atol=1e-4)
    assert tuple(fit(image, after).shape) == after
    constant = resize(torch.full(before, 0.3), after)
    assert torch.equal(constant, torch.full(after, 0.3))


def test_whole_numbers_are_resized_by_the_nearest() -> None:
    mask = torch.tensor([[[1, 2], [3, 4]]])
    assert resize(mask, (4, 4))[0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert torch.equal(resize(resize(mask, (4, 4)), (2, 2)), mask)


MOVES: list[Callable[[tuple[int, int]], Move]] = [
    lambda size: Window((1, 2), (3, 2), size),
    lambda size: Mirror(-1, size),
    lambda size: Mirror(-2, size),
    *(lambda size, n=n: QuarterTurns(n, size) for n in range(4)),
]


@pytest.mark.parametrize("make", MOVES)
def test_the_georeference_still_points_at_the_same_ground(make: Callable[[tuple[int, int]], Move]) -> None:
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(9.0), indexing="ij")
    before = (10.0, 1.0, 500.0, -2.0, -10.0, 900.0)

    def ground(transform: tuple[float, ...], x: Tensor, y: Tensor) -> Tensor:
        a, b, c, d, e, f = transform
        return torch.stack([a * (x + 0.5) + b * (y + 0.5) + c, d * (x + 0.5) + e * (y + 0.5) + f])

    move = make((6, 9))
    moved = move(ground(before, columns, rows), nearest=False)
    height, width = moved.shape[-2:]
    new_rows, new_columns = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    after = georeferenced(before, move.source())
    assert torch.allclose(ground(after, new_columns, new_rows), moved)


@pytest.mark.parametrize("move", [Turn(30.0, (64, 48)), Scale((32, 24), (64, 48))])
def test_smooth_moves_move_the_georeference_too(move: Move) -> None:
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(48.0), indexing="ij")
    moved = move(torch.stack([columns + 0.5, rows + 0.5]), nearest=False)
    a, b, c, d, e, f = move.source()
    y, x = (side // 2 for side in moved.shape[-2:])
    for row, column in ((y, x), (y - 5, x + 6)):
        shown = torch.tensor([a * (column + 0.5) + b * (row + 0.5) + c, d * (column + 0.5) + e * (row + 0.5) + f])
        assert torch.allclose(moved[:, row, column], shown, atol=1e-3)


def test_the_georeference_keeps_its_type_and_follows_the_transform() -> None:
    matrix = torch.tensor([[2.0, 0, 10], [0, -2, 20], [0, 0, 1]], dtype=torch.float64)
    sample = {"image": torch.rand(1, 6, 6), "transform": matrix}
    cropped = Crop(size=4, position="centre")(sample, stream())["transform"]
    assert cropped.tolist() == [[2, 0, 12], [0, -2, 18], [0, 0, 1]]
    assert georeferenced([2, 0, 10, 0, -2, 20], (1, 0, 1, 0, 1, 1)) == [2, 0, 12, 0, -2, 18]
    with pytest.raises(DataError, match="georeference"):
        georeferenced("EPSG", (1, 0, 0, 0, 1, 0))


def test_colour_follows_its_formulas() -> None:
    class Fixed(Colour):
        def factors(self, image: Tensor, *factors: float) -> Tensor:
            return self._changed(image, factors)

    colour = Fixed()
    pixel = torch.tensor([0.2, 0.4, 0.6]).view(3, 1, 1) * 2 - 1

    def values(image: Tensor) -> list[float]:
        return [round(v, 4) for v in image.add(1).div(2).flatten().tolist()]

    assert values(colour.factors(pixel, 1.5, 1, 1)) == [0.3, 0.6, 0.9]
    assert values(colour.factors(pixel, 2, 1, 1)) == [0.4, 0.8, 1.0]
    assert values(colour.factors(pixel, 1, 0.5, 1)) == [0.3, 0.4, 0.5]
    assert values(colour.factors(pixel, 1, 1, 0)) == [0.363] * 3
    assert torch.allclose(colour.factors(pixel, 1, 1, 1), pixel)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_brightness_and_contrast_take_any_channels_and_leave_opacity(channels: int) -> None:
    image = torch.rand(channels, 5, 5, generator=stream()) * 2 - 1
    changed = Colour(brightness=0.5, contrast=0.5)({"image": image}, stream(2))["image"]
    assert changed.shape == image.shape
    assert not torch.equal(changed, image)
    assert changed.abs().max() <= 1
    assert (channels != 4) or torch.equal(changed[3], image[3])
    if channels not in (3, 4):
        with pytest.raises(DataError, match="saturated"):
            Colour(saturation=0.1).space(Space(channels, (5, 5)))


def test_pairs_are_coloured_alike() -> None:
    pre = torch.rand(3, 4, 4, generator=stream()) * 2 - 1
    changed = Colour(saturation=0.5, keys=("pre", "post"))({"pre": pre, "post": pre.clone()}, stream(1))
    assert torch.equal(changed["pre"], changed["post"])
    with pytest.raises(DataError, match="bounded"):
        Colour().space(Space(3, (4, 4), None, None))


class Constant(Dataset):
    """Random transforms of one image."""

    def __init__(self, *transforms: Transform) -> None:
        self.transforms = transforms
        self.space = Space(1, (8, 8))

    def __len__(self) -> int:
        return 100

    def read(self, index: int) -> Sample:
        return {"image": torch.arange(64.0).view(1, 8, 8)}


def test_a_sample_depends_on_seed_epoch_and_index_only() -> None:
    data = Constant(Crop(size=3))
    first = data.get(4, seed=1, epoch=2)["image"]
    data.get(5, seed=9)
    assert torch.equal(data.get(4, seed=1, epoch=2)["image"], first)
    for change in ({"seed": 2, "epoch": 2}, {"seed": 1, "epoch": 3}):
        assert any(
            not torch.equal(data.get(i, seed=1, epoch=2)["image"], data.get(i, **change)["image"]) for i in range(9)
        )
    assert len({int(data.get(i)["image"][0, 0, 0]) for i in range(100)}) > 20
