"""Layers in place of the library's: layer normalization against torch's own in 64 bits, and packed linear layers."""

import pytest
import torch
from torch import Tensor, nn

from tests.support.families import POSITIONS, TRANSFORMERS, model_of, slow_unless_quick, vocabulary
from trainer.models.base import LanguageModel
from trainer.models.linear_layers import LayerNorm, LinearLayer


def layer_gradients(layer: nn.Module, inputs: Tensor, upstream: Tensor) -> list[Tensor]:
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
    expected = layer_gradients(native.double(), inputs.double(), upstream.double())
    found = layer_gradients(ours.float(), inputs, upstream)
    for mine, its in zip(found, expected, strict=True):
        assert torch.allclose(mine.double(), its, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, POSITIONS), (7, 5), (300, 8)], ids=str)
@pytest.mark.parametrize("name", slow_unless_quick(TRANSFORMERS))
def test_packed_weights__give_the_same_logits(name: str, shape: tuple[int, int]) -> None:
    model = model_of(name, vocabulary(150, mask=4))
    ids = torch.randint(5, 150, shape)
    with torch.inference_mode():
        plain = model.forward(ids)
        with model.packed_products():
            packed = model.forward(ids)
            assert all(is_packed(model))
        after = model.forward(ids)
    torch.testing.assert_close(packed, plain, rtol=1e-4, atol=1e-4)
    assert not any(is_packed(model))
    assert torch.equal(after, plain)


def test_packed_weights__are_unpacked_after_an_error() -> None:
    model, recurrent = model_of("gpt2"), model_of("lstm")
    with pytest.raises(ValueError, match="Expected x with shape"), model.packed_products():
        model.forward(torch.zeros(3, dtype=torch.long))
    assert not any(is_packed(model))
    modules = list(recurrent.modules())
    with recurrent.packed_products():
        assert list(recurrent.modules()) == modules


def is_packed(model: LanguageModel) -> list[bool]:
    """Return True for each linear layer of a transformer with packed weights."""
    packed = [layer.packed is not None for layer in model.modules() if isinstance(layer, LinearLayer)]
    assert packed
    return packed
