"""The plugin enters by the door of strangers: public names only, a clear word where diffusers is missing, contracts."""

import ast
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import diffusers
import pytest
import torch
from typer.testing import CliRunner

import diffloom
import diffloom_diffusers
from diffloom.cli.app import app
from diffloom.testing.contracts import verify

PACKAGE = Path(diffloom_diffusers.__file__).parent
WITHOUT = """
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "diffusers" else found(name, *more)
from diffloom.errors import BrokenPlugin
from diffloom.kinds import registry
"""


def in_a_fresh_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_imports_no_private_name_and_no_other_plugin() -> None:
    for file in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("diffloom"):
                parts = [*str(node.module).split("."), *(alias.name for alias in node.names)]
                assert parts[0] in ("diffloom", "diffloom_diffusers"), (file.name, node.module)
                assert not [part for part in parts if part.startswith("_")], (file.name, parts)


def test_without_diffusers_it_is_set_aside_with_a_word_on_what_to_install(tmp_path: Path) -> None:
    code = f"""
from diffloom.cli.app import run
for kind in ("schedule", "denoiser", "autoencoder", "sampler"):
    try:
        registry.get(kind, "diffusers")
    except BrokenPlugin as error:
        said = str(error)
        print("pip install 'diffloom[diffusers]'" in said, kind + " 'diffusers'" in said)
registry.get("sampler", "ddim")
print(run(["export", {str(tmp_path)!r}, "-o", "out"]), run(["list", "sampler"]))
"""
    said = in_a_fresh_python(WITHOUT + code).splitlines()
    assert said[:4] == ["True True"] * 4
    assert said[-1] == "2 0"


def test_what_needs_no_network_imports_no_library() -> None:
    code = "import sys, diffloom_diffusers.denoiser, diffloom_diffusers.sampler, diffloom_diffusers.commands\n"
    assert in_a_fresh_python(code + "print('diffusers' in sys.modules)") == "False\n"


PARTS = [("denoiser", "diffusers"), ("autoencoder", "diffusers"), ("conditioner", "diffusers-class")]


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_a_component_keeps_its_contract(kind: str, name: str) -> None:  # schedule and sampler: tests/mathematics
    outcomes = verify(kind, name)
    assert not [outcome for outcome in outcomes if outcome.status not in ("passed", "not applicable")]
    assert len([outcome for outcome in outcomes if outcome.status == "passed"]) >= len(outcomes) // 2


def test_a_recipe_of_foreign_parts_is_checked_without_memory_and_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}
    ways = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    diffusers.AutoencoderKL(in_channels=1, out_channels=1, latent_channels=2, **blocks, **ways).save_pretrained("p/vae")
    network = {"in_channels": 2, "out_channels": 2, "num_class_embeds": 10, "sample_size": 4, **blocks}
    steps = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    diffusers.UNet2DModel(**network, **steps, add_attention=False).save_pretrained("p/unet")
    diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing").save_pretrained("p/scheduler")
    Path("foreign.yaml").write_text(
        """
diffloom: 1
name: foreign
data: {type: digits, size: 8}
autoencoder: {type: diffusers, folder: p}
schedule: {type: diffusers, folder: p}
denoiser: {type: diffusers, folder: p}
conditioners: {digit: {type: diffusers-class, guidance: 2.0, drop: 0.1}}
sampler: {type: diffusers, folder: p, steps: 3}
task: {type: generate}
train: {steps: 0}
hooks: []
"""
    )
    result = CliRunner().invoke(app, ["check", "foreign.yaml"])
    assert result.exit_code == 0, result.output
    system = diffloom.load("foreign.yaml").build()
    images = system.sample(seeds=[1, 2], batch={"label": torch.tensor([3, 8])})
    assert images.shape == (2, 1, 8, 8)
    alone = system.sample(seeds=[2], batch={"label": torch.tensor([8])})
    torch.testing.assert_close(images[1:], alone, rtol=1e-5, atol=1e-5)
    run = diffloom.Run(diffloom.load("foreign.yaml"))
    assert run.system is not None
    kept = (run.directory / "recipe.lock.yaml").read_text()
    for name in ("unet", "vae"):
        weights = Path("p", name, "diffusion_pytorch_model.safetensors").read_bytes()
        assert hashlib.sha256(weights).hexdigest() in kept
    Path("p/unet/config.json").write_text(json.dumps({"_class_name": "UNet2DModel", "in_channels": 7, **steps}))
    refused = CliRunner().invoke(app, ["check", "foreign.yaml"])
    assert refused.exit_code != 0
