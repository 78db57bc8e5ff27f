"""TAESD's two files with made-up weights, for recipes that diffuse in its latents."""

from pathlib import Path

from safetensors.torch import save_file

from diffloom.space import Space
from diffloom_ldm.autoencoders.tiny import Tiny


def taesd(folder: Path) -> None:
    """Write `taesd_encoder.safetensors` and `taesd_decoder.safetensors` into a new folder."""
    folder.mkdir()
    network = Tiny(space=Space(3, (64, 64)))
    layout = next(layout for layout in network.layouts() if layout.name == "taesd")
    tensors = layout.write(network.state_dict())
    for half in ("encoder", "decoder"):
        own = {key.removeprefix(f"{half}."): value for key, value in tensors.items() if key.startswith(f"{half}.")}
        save_file(own, folder / f"taesd_{half}.safetensors")
