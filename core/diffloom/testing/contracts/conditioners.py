"""What every conditioner must do."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from diffloom.condition import Condition
from diffloom.conditioner import Conditioner
from diffloom.noise import Noise
from diffloom.space import Space
from diffloom.testing.contracts.base import Contract, Make, applies, asked, close, equal, require


class ConditionerContract(Contract):
    """A conditioner fills the ports it declares, for every item by itself."""

    kind: ClassVar[str] = "conditioner"

    def check_gives_what_it_declares(self, make: Make) -> None:
        """The condition fills the declared ports with the declared widths, and no other."""
        part, said = self._said(make, 2)
        gives = part.gives
        for port, axis in (("context", 2), ("vector", 1), ("concat", 1)):
            value, wanted = getattr(said, port), getattr(gives, port)
            got = 0 if value is None else value.shape[axis]
            require(got == wanted, f"{port} is {got} wide, declared {wanted}")
            require(value is None or value.shape[0] == 2, f"{port} is not one row per item")
        require(set(said.affine) <= set(gives.affine), f"it edits {set(said.affine) - set(gives.affine)}")

    def check_null_has_the_shape_of_a_code(self, make: Make) -> None:
        """The code of "nothing said" is a tree of the same shapes and types."""
        part, code = self._encoded(make, 2)
        code, null = _shapes(code), _shapes(part.null(code))
        require(null == code, f"{null} is not {code}")

    def check_items_do_not_depend_on_their_batch(self, make: Make) -> None:
        """An item is told the same alone."""
        part, together = self._encoded(make, 2)
        made = self._batch(part, 2)
        alone = part.encode({key: value[1:] for key, value in made.items()})
        pairs = zip(pytree.tree_leaves(together), pytree.tree_leaves(alone), strict=True)
        for both, single in pairs:
            if isinstance(both, Tensor):
                close(both[1:], single, 1e-5, "item 1")

    def check_what_it_wants_can_be_left_out(self, make: Make) -> None:
        """Without the keys that it can do without, the code has the same shapes and types."""
        part, code = self._encoded(make, 2)
        applies(bool(part.wants), "it has no such keys")
        left = {key: value for key, value in self._batch(part, 2).items() if key not in part.wants}
        with torch.no_grad():
            without = part.encode(left | {"item": torch.arange(2)})
        require(_shapes(without) == _shapes(code), f"{_shapes(without)} is not {_shapes(code)}")

    def check_hiding_keeps_the_shape_of_a_code(self, make: Make) -> None:
        """A code that training has partly hidden is a tree of the same shapes and types."""
        part, code = self._encoded(make, 2)
        with torch.no_grad():
            hidden = part.train().hide(code, Noise(range(2)))
        require(_shapes(hidden) == _shapes(code), f"{_shapes(hidden)} is not {_shapes(code)}")

    def check_claims_of_time_alone_hold(self, make: Make) -> None:
        """What claims to look at the code and the time alone says the same for any x_t and whatever else is said."""
        part, code = self._encoded(make, 2)
        applies(part.only_time, "it looks at more than the time")
        space: Any = self.provided[Space]
        x = torch.randn(2, space.channels, *space.size, generator=torch.Generator().manual_seed(0))
        t, more = torch.tensor(3.0), Condition(vector=torch.ones(2, 1))
        with torch.no_grad():
            one, other = part(code, x, t, Condition()), part(code, 2 * x, t, more)
        for plain, changed in zip(pytree.tree_leaves(one), pytree.tree_leaves(other), strict=True):
            if isinstance(plain, Tensor):
                equal(plain, changed, "what it says")

    def _batch(self, part: Conditioner, count: int) -> dict[str, Any]:
        return asked(part, count, self.provided[Space])  # type: ignore[arg-type]  # a Space

    def _encoded(self, make: Make, count: int) -> tuple[Conditioner, Any]:
        part: Conditioner = make().eval()
        with torch.no_grad():
            return part, part.encode(self._batch(part, count))

    def _said(self, make: Make, count: int) -> tuple[Conditioner, Condition]:
        part, code = self._encoded(make, count)
        space: Any = self.provided[Space]
        x = torch.randn(count, space.channels, *space.size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            return part, part(code, x, torch.tensor(3.0), Condition())


def _shapes(code: object) -> list[tuple[tuple[int, ...], torch.dtype]]:
    return [(tuple(leaf.shape), leaf.dtype) for leaf in pytree.tree_leaves(code) if isinstance(leaf, Tensor)]
