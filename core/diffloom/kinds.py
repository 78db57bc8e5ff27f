"""The kinds of component that diffloom knows, and the registry of everything installed.

Importing this module imports neither torch nor any component.
"""

from diffloom_registry import Kind, Registry

KINDS = (
    Kind("schedule", "diffloom.schedule:Schedule", "noise levels α_t, σ_t of a Gaussian path"),
    Kind(
        "denoiser",
        "diffloom.denoiser:Denoiser",
        "network that tells noise from data",
        extras="diffloom.recipe.settings:DenoiserSettings",
    ),
    Kind(
        "autoencoder",
        "diffloom.autoencoder:Autoencoder",
        "map between images and what is diffused",
        extras="diffloom.recipe.settings:ModuleSettings",
    ),
    Kind(
        "conditioner",
        "diffloom.conditioner:Conditioner",
        "turns something in a batch into what a denoiser is told",
        extras="diffloom.recipe.settings:ConditionerSettings",
    ),
    Kind("sampler", "diffloom.sampler:Sampler", "walks from noise to data, step by step"),
    Kind(
        "task",
        "diffloom.task:Task",
        "what a system is trained for and what it answers",
        extras="diffloom.recipe.settings:ModuleSettings",
    ),
    Kind("dataset", "diffloom.data:Dataset", "where samples come from"),
    Kind("transform", "diffloom.data:Transform", "changes one sample"),
    Kind("metric", "diffloom.metric:Metric", "a figure that says how good a system is"),
)

registry = Registry(KINDS, services=("diffloom.space:Space",))
"""Every installed component, by kind and name."""
