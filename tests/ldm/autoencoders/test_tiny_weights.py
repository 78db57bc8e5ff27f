"""TAESD's real weights: a Stable Diffusion latent space, offline."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import diffloom
from diffloom.autoencoder import Autoencoder
from diffloom.errors import CheckpointError
from diffloom.stored import stored
from diffloom.vision_compat import ensure_torchvision
from diffloom_ldm.autoencoders.tiny import Tiny
from diffloom_metrics.fidelity import psnr
from tests.ldm.autoencoders.parity import apart

DATA = Path(os.environ.get("DIFFLOOM_DATA", "/nowhere"))
needs_data = pytest.mark.skipif(not (DATA / "weights").is_dir(), reason="DIFFLOOM_DATA has no weights")

RECIPE = """\
diffloom: 1
name: taesd
data: {type: folder, path: $DIFFLOOM_DATA/scenes256, size: 256}
autoencoder: {type: tiny, weights: $DIFFLOOM_DATA/weights}
task: {type: autoencode}
train: {steps: 0}
hooks: []
"""


@pytest.fixture(scope="module")
def taesd(tmp_path_factory: pytest.TempPathFactory) -> Autoencoder:
    file = tmp_path_factory.mktemp("taesd") / "taesd.yaml"
    file.write_text(RECIPE)
    diffloom.load(file).check()
    return diffloom.load(file).build().autoencoder


@pytest.fixture(scope="module")
def photograph() -> Tensor:
    file = DATA / "disaster" / "pre" / "joplin_c0_y0256_x0256.png"
    raw = torch.frombuffer(bytearray(Image.open(file).convert("RGB").tobytes()), dtype=torch.uint8)
    return raw.view(1, 256, 256, 3).permute(0, 3, 1, 2).float() / 127.5 - 1


@needs_data
def test_an_aerial_photograph_comes_back(taesd: Autoencoder, photograph: Tensor) -> None:
    with torch.inference_mode():
        z = taesd.encode(photograph).mode()
        again = taesd.decode(z)
    assert z.shape == (1, 4, 32, 32)
    assert float(psnr(again.clamp(-1, 1), photograph)) == pytest.approx(26.8, abs=0.3)
    assert 0.5 < float(z.std()) < 1.5  # already of unit size


@needs_data
def test_outputs_are_those_of_diffusers_on_the_real_weights(taesd: Autoencoder, photograph: Tensor) -> None:
    ensure_torchvision()
    from diffusers import AutoencoderTiny

    layout = next(found for found in taesd.layouts() if found.name == "diffusers")
    theirs = AutoencoderTiny()
    theirs.load_state_dict(layout.write(taesd.state_dict()))
    with torch.inference_mode():
        raw = theirs.eval().encode(photograph).latents
        z = taesd.encode(photograph).mode()
        assert apart(z, raw) < 1e-5
        assert apart(taesd.decode(z), theirs.decode(raw).sample) < 1e-5


def test_two_halves_are_one_autoencoder(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"0.weight": torch.zeros(1)}, tmp_path / "a_encoder.safetensors")
    save_file({"0.weight": torch.ones(2)}, tmp_path / "a_decoder.safetensors")
    found = stored(tmp_path)
    assert found.shapes == {"encoder.0.weight": (1,), "decoder.0.weight": (2,)}
    assert {key: float(value.sum()) for key, value in found.read().items()} == {
        "encoder.0.weight": 0.0,
        "decoder.0.weight": 2.0,
    }
    save_file({"0.weight": torch.ones(2)}, tmp_path / "b_decoder.safetensors")
    with pytest.raises(CheckpointError, match="several files could be meant"):
        stored(tmp_path)


def test_the_architecture_has_taesds_tensors() -> None:
    from diffloom.space import Space

    part = Tiny(space=Space(3, (64, 64)))
    layout = next(found for found in part.layouts() if found.name == "taesd")
    keys = layout.write(part.state_dict())
    assert keys["decoder.1.weight"].shape == (64, 4, 3, 3)
    assert keys["decoder.19.bias"].shape == (3,)
    assert keys["encoder.14.weight"].shape == (4, 64, 3, 3)
    assert "encoder.2.bias" not in keys
