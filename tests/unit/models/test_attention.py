"""Attention by products, against torch's kernel in double precision."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.models.attention import attend
from trainer.models.dropout import dropout

_BATCH, _HEADS, _WIDTH = 3, 4, 8
_SCALE = 0.3


class _Attention(nn.Module):
    """The fields of a library's layer that attention reads."""

    def __init__(self, groups: int = _HEADS, *, is_causal: bool = True) -> None:
        super().__init__()
        self.is_causal = is_causal
        self.num_key_value_groups = _HEADS // groups


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("tokens", [1, 7, 64, 600])
def test_attention_in_bf16__equals_torchs_with_its_gradients(tokens: int, groups: int, is_causal: bool) -> None:
    query, key, value = _inputs(tokens, groups, torch.bfloat16)
    exact = [part.detach().double().requires_grad_() for part in (query, key, value)]
    attended, _ = attend(_Attention(groups, is_causal=is_causal), query, key, value, None, dropout=0.0, scaling=_SCALE)
    expected = functional.scaled_dot_product_attention(
        exact[0], exact[1], exact[2], is_causal=is_causal, scale=_SCALE, enable_gqa=True
    ).transpose(1, 2)
    gradient = torch.randn(expected.shape, dtype=torch.float64)
    torch.autograd.backward([attended], [gradient.bfloat16()])
    torch.autograd.backward([expected], [gradient])
    torch.testing.assert_close(attended.double(), expected, atol=0.03, rtol=0.02)
    for part, reference in zip((query, key, value), exact, strict=True):
        assert part.grad is not None
        assert reference.grad is not None
        error, size = (float(grad.square().sum()) for grad in (part.grad - reference.grad, reference.grad))
        assert math.sqrt(error) < 0.02 * math.sqrt(size) + 1e-3


@pytest.mark.parametrize("tokens", [1, 7, 64])
def test_attention_with_dropout__drops_weights_as_drawn(tokens: int) -> None:
    query, key, value = _inputs(tokens, _HEADS, torch.float32)
    torch.manual_seed(4)
    attended, _ = attend(_Attention(), query, key, value, None, dropout=0.25, scaling=_SCALE)
    scores = (query @ key.transpose(2, 3)) * _SCALE
    later = torch.arange(tokens) > torch.arange(tokens).unsqueeze(1)
    weights = scores.masked_fill(later, -torch.inf).softmax(-1)
    torch.manual_seed(4)
    kept = dropout(weights.flatten(0, 1), 0.25, is_training=True).view_as(weights)
    torch.testing.assert_close(attended, (kept @ value).transpose(1, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_with_a_mask__is_torchs(dtype: torch.dtype) -> None:
    query, key, value = _inputs(7, _HEADS, dtype)
    is_read = torch.rand(_BATCH, 1, 7, 7) > 0.3
    is_read |= torch.eye(7, dtype=torch.bool)
    attended, _ = attend(_Attention(), query, key, value, is_read, dropout=0.0, scaling=_SCALE)
    expected = functional.scaled_dot_product_attention(query, key, value, attn_mask=is_read, scale=_SCALE)
    assert torch.equal(attended, expected.transpose(1, 2))


def test_attention_to_earlier_tokens__reads_all_of_them() -> None:
    query, key, value = _inputs(7, _HEADS, torch.bfloat16)
    last = query[:, :, -1:]
    attended, _ = attend(_Attention(), last, key, value, None, dropout=0.0, scaling=_SCALE)
    expected = functional.scaled_dot_product_attention(last, key, value, scale=_SCALE)
    assert torch.equal(attended, expected.transpose(1, 2))


def _inputs(tokens: int, groups: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(tokens)
    query, key, value = (
        torch.randn(_BATCH, count, tokens, _WIDTH, dtype=dtype, requires_grad=True)
        for count in (_HEADS, groups, groups)
    )
    return query, key, value
