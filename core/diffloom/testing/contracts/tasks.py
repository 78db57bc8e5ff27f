"""What every task must do, in a system of stand-ins."""

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch

from diffloom.autoencoder import Autoencoder
from diffloom.denoiser import Denoiser
from diffloom.noise import Noise
from diffloom.sampler import Sampler
from diffloom.schedule import Schedule
from diffloom.space import Space
from diffloom.system import Plan, System
from diffloom.task import Loss, Task
from diffloom.testing.contracts.base import Contract, Make, applies, asked, close, equal, is_a, require


class TaskContract(Contract):
    """A task gives objectives over parameters, and predictions that depend on seeds alone."""

    kind: ClassVar[str] = "task"

    def check_objectives(self, make: Make) -> None:
        """Objectives have names of their own and parameters; their losses are finite and reach a parameter."""
        system, made = self._system(make)
        objectives = system.task.objectives(system)
        applies(bool(objectives) or any(True for _ in system.task.parameters()), "it has nothing to learn")
        require(bool(objectives), "there are none, and it has parameters")
        require(len({o.name for o in objectives}) == len(objectives), "two have one name")
        for objective in objectives:
            require(bool(objective.parameters), f"{objective.name} moves no parameter")
            is_a(objective.parameters, Mapping, f"what {objective.name} moves")
            loss = objective.loss(dict(made), Noise([0, 1]))
            is_a(loss, Loss, f"the loss of {objective.name}")
            value = loss.value
            require(value.dim() == 0 and bool(value.isfinite()), f"the loss of {objective.name} is {value}")
            reached = torch.autograd.grad(value, list(objective.parameters.values()), allow_unused=True)
            require(any(g is not None for g in reached), f"{objective.name} reaches none of its parameters")

    def check_losses_depend_on_seeds_alone(self, make: Make) -> None:
        """Equal noise gives an equal loss."""
        system, made = self._system(make)
        for objective in system.task.objectives(system):
            one, other = (objective.loss(dict(made), Noise([0, 1])).value.detach() for _ in range(2))
            equal(one, other, f"losses of {objective.name}")

    def check_predictions(self, make: Make) -> None:
        """Predictions hold finite images, equal for equal seeds, and for an item alone what it is in a batch."""
        system, made = self._system(make)
        one, other = (system.predict(dict(made), seeds=[0, 1]) for _ in range(2))
        is_a(one, dict, "what predict returns")
        require("image" in one, f"there is no image among {', '.join(one)}")
        require(bool(one["image"].isfinite().all()), "an image is not finite")
        equal(one["image"], other["image"], "images with equal seeds")
        alone = system.predict({key: value[1:] for key, value in made.items()}, seeds=[1])
        close(one["image"][1:], alone["image"], 1e-3, "item 1")

    def _system(self, make: Make) -> tuple[System, dict[str, Any]]:
        space = cast(Space, self.provided[Space])
        task: Task = make()
        made = asked(task, 2, space)
        system = System(
            Plan(data_space=space, prediction="v"),
            autoencoder=cast(Autoencoder, self.provided[Autoencoder]),
            task=task,
            schedule=cast(Schedule, self.provided[Schedule]),
            denoiser=cast(Denoiser, self.provided[Denoiser]),
            sampler=cast(Sampler, self.provided[Sampler]),
        )
        return system.eval(), made
