"""The recipe of a new plugin: its own components, and diffloom's built-in ones for the other roles."""

from collections.abc import Mapping

_HEAD = """\
# yaml-language-server: $schema=recipe.schema.json
# `diffloom schema -o recipe.schema.json` lets an editor complete and check this file.
diffloom: 1
name: {plugin}
description: What {plugin} adds, on small images.
"""


def recipe(plugin: str, published: Mapping[str, str]) -> str:
    """Return a recipe that uses every published component; small enough to be trained on a laptop.

    Args:
        plugin: Name of the plugin, and of the recipe.
        published: Kind → name of the component.
    """
    own = "dataset" in published
    moved = f", transforms: [{{type: {published['transform']}, pixels: 1}}]" if "transform" in published else ""
    parts = {
        "data": f"{published.get('dataset', 'digits')}, size: 16{moved}",
        "schedule": f"{published.get('schedule', 'cosine')}, steps: 1000",
        "autoencoder": published.get("autoencoder", ""),
        "denoiser": (
            f"{published['denoiser']}, channels: 32, prediction: v"
            if "denoiser" in published
            else "unet, channels: 32, multipliers: [1, 2], blocks: 1, prediction: v"
        ),
        "conditioner": published.get("conditioner", f"class-label, classes: {2 if own else 10}")
        + ", drop: 0.1, guidance: 2.0",
        "sampler": f"{published.get('sampler', 'ddim')}, steps: 50",
        "task": published.get("task", "generate"),
    }
    lines = [_HEAD.format(plugin=plugin)]
    for role, text in parts.items():
        if role == "conditioner":
            lines.append(f"conditioners:\n  asked:     {{type: {text}}}\n")
        elif text:
            lines.append(f"{role + ':':<12} {{type: {text}}}\n")
    lines.append(f"{'train:':<12} {{steps: 300, batch: 32, lr: 1.0e-3, ema: 0.99}}\n")
    if "metric" in published:
        lines.append(f"eval:\n  count: 100\n  metrics:\n    - {{type: {published['metric']}}}\n")
    return "".join(lines)
