"""Layer normalization against torch's own in 64 bits."""

import pytest
import torch
from torch import Tensor, nn

from trainer.models.linear_layers import LayerNorm, replace_layers


def gradients(layer: nn.Module, inputs: Tensor, upstream: Tensor) -> list[Tensor]:
    leaf = inputs.clone().requires_grad_()
    output: Tensor = layer(leaf)
    return [output.detach(), *torch.autograd.grad(output, [leaf, *layer.parameters()], upstream)]


@pytest.mark.parametrize("shape", [(3, 5, 16), (7, 16)])
def test_gradients__are_those_of_torch(shape: tuple[int, ...]) -> None:
    torch.manual_seed(3)
    native = nn.LayerNorm(16, eps=1e-3)
    for weight in native.parameters():
        nn.init.normal_(weight)
    ours, inputs, upstream = LayerNorm(native), 3 + 2 * torch.randn(shape), torch.randn(shape)
    expected = gradients(native.double(), inputs.double(), upstream.double())
    found = gradients(ours.float(), inputs, upstream)
    for mine, its in zip(found, expected, strict=True):
        assert torch.allclose(mine.double(), its, atol=1e-5)


def test_replaced_layers__keep_their_weights_names_and_numbers() -> None:
    torch.manual_seed(4)
    native = nn.LayerNorm(4)
    body, inputs = nn.Sequential(nn.Identity(), native), torch.randn(5, 4)
    names = [name for name, _ in body.named_parameters()]
    replace_layers(body)
    _, replaced = body.children()
    assert isinstance(replaced, LayerNorm)
    assert [name for name, _ in body.named_parameters()] == names
    with torch.no_grad():
        assert torch.equal(replaced.forward(inputs), native.forward(inputs))
    assert torch.equal(replaced.forward(inputs), native.forward(inputs))
