"""Restoration: a task that learns as another task does, and answers each image of a batch with one of its own.

Law: what is learned is how to denoise; what it is told beside x_t (a mask, a low-resolution image, a source) is a
conditioner's business. So every restoration shares one loss, and only its answer differs.
"""

from collections.abc import Sequence

from diffloom.system import System
from diffloom.task import Objective, Task
from diffloom_ddpm.generate import Generate


class Restoration(Task):
    """Base of the restorations.

    Args:
        objective: The task whose objectives are trained; `generate` with its defaults where none is named.
    """

    paired = True

    def __init__(self, objective: Task | None = None) -> None:
        super().__init__()
        self.learned = Generate() if objective is None else objective

    def objectives(self, system: System) -> Sequence[Objective]:
        """Return the objectives of the task that it learns as."""
        return self.learned.objectives(system)
