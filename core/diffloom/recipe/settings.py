"""Settings: the parts of a recipe that are not components, and the keys that components share.

Every model forbids unknown keys; descriptions and bounds reach the JSON Schema and the command line's help.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from diffloom.prediction import Prediction

Precision = Literal["float32", "bfloat16", "float16"]
Component = dict[str, object]


class Settings(BaseModel):
    """Base of all settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModuleSettings(Settings):
    """Keys that every component with weights accepts beside its own."""

    weights: Annotated[
        str | None,
        Field(
            description="A .safetensors file or a folder of shards, ours or in a layout that the component knows; "
            "or run:NAME for this role's averaged weights of an earlier run, run:NAME:ROLE for "
            "another role's. ~ and environment variables are replaced."
        ),
    ] = None
    freeze: Annotated[bool, Field(description="Keep the weights as they are during training.")] = False


class DenoiserSettings(ModuleSettings):
    """Keys that every denoiser accepts beside its own."""

    prediction: Annotated[Prediction, Field(description="What the network's output means.")] = "eps"


class ConditionerSettings(ModuleSettings):
    """Keys that every conditioner accepts beside its own."""

    drop: Annotated[
        float, Field(ge=0, le=1, description="Probability of being replaced by its null in training, per sample.")
    ] = 0.0
    guidance: Annotated[
        float | None, Field(description="Scale of classifier-free guidance in sampling; null: always given, unguided.")
    ] = None
    start: Annotated[
        float,
        Field(ge=0, lt=1, description="Part of the sampling steps before it is told; its null is, until then."),
    ] = 0.0
    end: Annotated[
        float, Field(gt=0, le=1, description="Part of the sampling steps after which its null is told again.")
    ] = 1.0


class TrainSettings(Settings):
    """How a system is trained."""

    steps: Annotated[int, Field(ge=0, description="Optimiser steps.")] = 10_000
    batch: Annotated[int, Field(gt=0, description="Samples per step, over all processes together.")] = 64
    accumulate: Annotated[int, Field(gt=0, description="Parts in which a batch is computed, to save memory.")] = 1
    lr: Annotated[float, Field(gt=0, description="Learning rate after warm-up.")] = 2e-4
    warmup: Annotated[int, Field(ge=0, description="Steps over which the rate rises linearly from 0.")] = 0
    decay: Annotated[Literal["none", "cosine", "linear"], Field(description="How the rate falls to 0 at the end.")] = (
        "none"
    )
    optimizer: Annotated[Literal["adam", "adamw"], Field(description="The optimiser.")] = "adamw"
    betas: Annotated[tuple[float, float], Field(description="Adam's moments.")] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0, description="Decoupled weight decay (adamw).")] = 0.0
    clip: Annotated[float | None, Field(gt=0, description="Largest global gradient norm; null: none.")] = 1.0
    ema: Annotated[float, Field(ge=0, lt=1, description="Decay of the averaged weights that sampling uses.")] = 0.999
    ema_warmup: Annotated[bool, Field(description="Start the average fast: min(ema, (1 + n)/(10 + n)).")] = True
    workers: Annotated[int, Field(ge=0, description="Processes that read data; 0 reads in the main one.")] = 0
    log_every: Annotated[int, Field(gt=0, description="Steps between records in metrics.jsonl.")] = 10
    checkpoint_every: Annotated[int, Field(gt=0, description="Steps between checkpoints.")] = 500
    keep: Annotated[int, Field(ge=2, description="Checkpoints kept; older ones are removed.")] = 2
    sample_every: Annotated[int | None, Field(gt=0, description="Steps between live samples; null: none.")] = None


class SampleSettings(Settings):
    """What a run draws when it samples."""

    count: Annotated[int, Field(gt=0, description="How many items.")] = 16
    batch: Annotated[int, Field(gt=0, description="How many at a time.")] = 64
    tile: Annotated[
        int | None,
        Field(
            gt=0,
            description="Side, in latents, of the overlapping tiles in which larger images are decoded and encoded; "
            "null: at once.",
        ),
    ] = None
    window: Annotated[
        int | None,
        Field(
            gt=1,
            description="Side, in what is diffused, of the overlapping windows in which the denoiser sees larger maps; "
            "null: as a whole.",
        ),
    ] = None
    columns: Annotated[int | None, Field(gt=0, description="Columns of the picture; null: the number of classes.")] = (
        None
    )


class EvalSettings(Settings):
    """How a run is judged."""

    count: Annotated[int, Field(gt=0, description="How many items are judged.")] = 500
    batch: Annotated[int, Field(gt=0, description="How many at a time.")] = 100
    metrics: Annotated[list[Component], Field(description="The metrics, each a component.")] = []
    samplers: Annotated[
        dict[str, Component], Field(description="Further samplers to judge on the same weights, by name.")
    ] = {}
    held_out: Annotated[
        Component | None,
        Field(description="What to lay over `data` for the held-out data, as one recipe over another: {split: test}."),
    ] = None


HOOKS = ("progress", "metrics-log", "samples", "tensorboard", "report")
"""The built-in behaviours that act on a run unless its recipe says otherwise."""
