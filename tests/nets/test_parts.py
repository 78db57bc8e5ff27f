"""The class label and the identity autoencoder."""

import pytest
import torch

from diffloom.condition import Condition
from diffloom.errors import DataError, IncompatibleParts
from diffloom.space import Space
from diffloom_ddpm.class_label import ClassLabel
from diffloom_ddpm.identity import Identity
from diffloom_nets import GroupNorm
from tests.unet.test_unet import small


def test_each_class_and_none_have_a_row_of_the_denoiser_s_width() -> None:
    net = small()
    label = ClassLabel(classes=10, denoiser=net)
    assert label.gives.vector == net.ports.vector == 64
    assert [name for name, _ in label.named_parameters()] == ["table.weight"]
    assert label.table.weight.shape == (11, 64)
    code = label.encode({"label": torch.tensor([0, 9, 9])})
    assert code.vector is not None
    assert torch.equal(code.vector, label.table.weight[[0, 9, 9]])
    nobody = label.null(code).vector
    assert nobody is not None
    assert torch.equal(nobody, label.table.weight[[10, 10, 10]])
    assert label(code, torch.zeros(3, 3, 16, 16), torch.tensor(0), Condition()) is code


def test_the_class_is_heard() -> None:
    net = small()
    label = ClassLabel(classes=2, denoiser=net)
    x, t = torch.randn(1, 3, 16, 16), torch.tensor(3)
    with torch.no_grad():
        one, other = [net(x, t, label.encode({"label": torch.tensor([i])})) for i in range(2)]
    assert not torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(("labels", "got"), [([0, 10], "got 10"), ([-1], "got -1"), ([0.5], "got torch.float32")])
def test_labels_that_are_no_classes_are_refused(labels: list[float], got: str) -> None:
    label = ClassLabel(classes=10, denoiser=small())
    with pytest.raises(DataError, match=got):
        label.encode({"label": torch.tensor(labels)})


def test_a_denoiser_without_the_port_is_refused() -> None:
    with pytest.raises(IncompatibleParts, match="no vector port"):
        ClassLabel(classes=10, denoiser=small(vector=0))


def test_the_identity_returns_what_it_is_given() -> None:
    identity = Identity(space=Space(5, (8, 8)))
    x = torch.randn(2, 5, 8, 8)
    assert identity.encode(x).mode() is x
    assert identity.decode(x) is x
    assert (identity.stride, identity.latent_channels, identity.bounded) == (1, 5, True)
    assert not identity.encode(x).kl().any()


def test_a_first_normalisation_of_data_learns_in_channels_last() -> None:
    """Only its weights want gradients there, for which torch 2.13 has a kernel that crashes, whatever the type."""
    x = torch.randn(2, 8, 4, 4, dtype=torch.float64)
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last):
        norm = GroupNorm(8, groups=4).double()
        torch.autograd.backward(norm(x.contiguous(memory_format=layout)).pow(3).sum())
        assert norm.weight.grad is not None
        gradients.append(norm.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-10)
    assert not x.requires_grad
