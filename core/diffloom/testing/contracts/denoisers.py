"""What every denoiser must do."""

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffloom.condition import Affine, Condition
from diffloom.denoiser import Denoiser
from diffloom.space import Space
from diffloom.testing.contracts.base import Contract, Make, applies, close, equal, require


class DenoiserContract(Contract):
    """A denoiser answers in its space, listens at its ports and publishes its taps."""

    kind: ClassVar[str] = "denoiser"

    def check_output(self, make: Make) -> None:
        """The output is finite, (B, out_channels, *spatial), for one time or one per item."""
        net, x = _network(make), self._x(2)
        each = _output(net, x, torch.tensor([30.0, 30.0]), _told(net, 2, x))
        require(tuple(each.shape) == (2, net.out_channels, *x.shape[2:]), f"its shape is {tuple(each.shape)}")
        require(bool(each.isfinite().all()), "it is not finite")
        close(_output(net, x, torch.tensor(30.0), _told(net, 2, x)), each, 1e-5, "t 0-d and t (B,)")

    def check_time_matters(self, make: Make) -> None:
        """Another time gives another output."""
        net, x = _network(make), self._x(1)
        told = _told(net, 1, x)
        one, other = (_output(net, x, torch.tensor(t), told) for t in (3.0, 700.0))
        require(not torch.equal(one, other), "the time makes no difference")

    def check_items_do_not_depend_on_their_batch(self, make: Make) -> None:
        """An item's output is what it is alone."""
        net, x = _network(make), self._x(2)
        told = _told(net, 2, x)
        together = _output(net, x, torch.tensor([5.0, 500.0]), told)
        alone = _output(net, x[1:], torch.tensor([500.0]), _item(told, 1))
        close(together[1:], alone, 1e-4, "item 1")

    def check_reading_changes_nothing(self, make: Make) -> None:
        """Reading taps leaves the output bit-equal, and gives maps of the published channels and stride."""
        net, x = _network(make), self._x(1)
        applies(bool(net.taps), "it publishes no taps")
        told = _told(net, 1, x)
        plain = _output(net, x, torch.tensor([9.0]), told)
        with torch.no_grad():
            read = net(x, torch.tensor([9.0]), told, read=[tap.name for tap in net.taps])
        require(isinstance(read, tuple), "with `read` it gives no pair")
        equal(read[0], plain, "outputs with and without reading")
        for tap in net.taps:
            wanted = (1, tap.channels, *(side // tap.stride for side in x.shape[2:]))
            got = tuple(read[1][tap.name].shape)
            require(got == wanted, f"{tap.name} is {got}, published as {wanted}")

    def check_every_edit_counts_and_comes_off(self, make: Make) -> None:
        """An edit of any tap changes the output; an edit by zero is none, where it replaces nothing."""
        net, x = _network(make), self._x(1)
        applies(bool(net.ports.affine), "no tap can be edited")
        told = _told(net, 1, x)
        plain = _output(net, x, torch.tensor([9.0]), told)
        taps = {tap.name: tap for tap in net.taps}
        for name, channels in net.ports.affine.items():
            shape = (1, channels, *(side // taps[name].stride for side in x.shape[2:]))
            edited = _output(net, x, torch.tensor([9.0]), told | _edit(name, torch.ones(shape)))
            require(not torch.equal(edited, plain), f"an edit of {name} makes no difference")
            if taps[name].replaces:
                continue
            zero = _output(net, x, torch.tensor([9.0]), told | _edit(name, torch.zeros(shape)))
            close(zero, plain, 1e-6, f"an edit of {name} by zero")
        equal(_output(net, x, torch.tensor([9.0]), told), plain, "output after all edits came off")

    def check_every_port_is_heard(self, make: Make) -> None:
        """What is said at an open port changes the output."""
        net, x = _network(make), self._x(1)
        told, other = _told(net, 1, x), _told(net, 1, x, seed=1)
        plain = _output(net, x, torch.tensor([9.0]), told)
        ports = [port for port in ("context", "vector", "concat") if getattr(net.ports, port)]
        applies(bool(ports), "it has no ports but x_t and t")
        for port in ports:
            changed = _output(net, x, torch.tensor([9.0]), replace(told, **{port: getattr(other, port)}))
            require(not torch.equal(changed, plain), f"what is said at {port} makes no difference")

    def check_preparing_says_the_same(self, make: Make) -> None:
        """A condition that was prepared says what it said before, and so does one to which tokens are joined later."""
        net, x = _network(make), self._x(1)
        told, more = _told(net, 1, x), Condition(context=_told(net, 1, x, seed=1).context)
        with torch.no_grad():
            prepared = net.prepare(told)
        for plain, made in ((told, prepared), (told | more, prepared | more)):
            expected = _output(net, x, torch.tensor([9.0]), plain)
            close(_output(net, x, torch.tensor([9.0]), made), expected, 1e-5, "a condition and the prepared one")

    def check_branches_share_what_they_begin_with(self, make: Make) -> None:
        """Where x_t may stand for several branches, the output is that of as many copies of it."""
        net, x = _network(make), self._x(2)
        applies(net.shares and not net.ports.concat, "every branch has an x_t of its own")
        told = net.prepare(Condition(context=_told(net, 6, x.repeat(3, 1, 1, 1)).context))
        expected = _output(net, x.repeat(3, 1, 1, 1), torch.tensor(9.0), told)
        close(_output(net, x, torch.tensor(9.0), told), expected, 1e-5, "three branches of one x_t, and of three")

    def check_every_parameter_learns(self, make: Make) -> None:
        """A loss of the output reaches every parameter that is not frozen."""
        net, x = _network(make), self._x(2)
        output = net(x, torch.tensor([5.0, 500.0]), _told(net, 2, x))
        output.square().mean().backward()
        idle = [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None]
        require(not idle, f"no gradient reaches {', '.join(idle[:5])}")

    def check_a_copy_until_a_tap(self, make: Make) -> None:
        """A copy until a tap reads there what the network reads, has weights of its own, and learns though it froze."""
        net, x = _network(make).requires_grad_(False), self._x(1)
        applies(bool(net.taps), "it publishes no taps")
        told, t = _told(net, 1, x), torch.tensor([9.0])
        theirs = {id(p) for p in net.parameters()}
        for name in [tap.name for tap in net.taps][:: max(len(net.taps) // 5, 1)]:
            part = net.until(name)
            with torch.no_grad():
                expected, read = net(x, t, told, read=[name])[1], part(x, t, told, read=[name])[1]
            close(read[name], expected[name], 1e-4, f"{name} of the network and of its copy")
            own = all(p.requires_grad and id(p) not in theirs for p in part.parameters())
            require(own, f"a weight of the copy until {name} is the network's, or frozen")

    def check_shapes_on_the_meta_device(self, make: Make) -> None:
        """It can be built and run on the meta device."""
        x = self._x(1)
        with torch.device("meta"):
            net = make().eval()
            output = _output(net, x.to("meta"), torch.zeros(1), _told(net, 1, x))
        require(output.device.type == "meta", "the output is on another device")

    def _x(self, count: int) -> Tensor:
        space = self.provided[Space]
        shape = (count, space.channels, *space.size)  # type: ignore[attr-defined]  # a Space
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _network(make: Make) -> Denoiser:
    """Return the network in evaluation mode with no parameter at zero, so that nothing hides behind an output of 0."""
    net: Denoiser = make().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            if not bool(parameter.any()):
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    return net


@torch.no_grad()
def _output(net: Denoiser, x: Tensor, t: Tensor, told: Condition) -> Tensor:
    output: Any = net(x, t, told)
    return output  # type: ignore[no-any-return]  # without `read` it is a tensor


def _told(net: Denoiser, count: int, x: Tensor, seed: int = 0) -> Condition:
    """Return a condition that fills every open port but the edits."""
    generator, ports = torch.Generator().manual_seed(seed), net.ports
    device = next((p.device for p in net.parameters()), x.device)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device="cpu").to(device)

    return Condition(
        context=normal(count, 3, ports.context) if ports.context else None,
        vector=normal(count, ports.vector) if ports.vector else None,
        concat=normal(count, ports.concat, *x.shape[2:]) if ports.concat else None,
    )


def _item(told: Condition, index: int) -> Condition:
    def row(value: Tensor | None) -> Tensor | None:
        return None if value is None else value[index : index + 1]

    return Condition(context=row(told.context), vector=row(told.vector), concat=row(told.concat))


def _edit(tap: str, value: Tensor) -> Condition:
    return Condition(affine={tap: Affine(0.5 * value, value)})
