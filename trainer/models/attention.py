"""Attention of the transformers library's models, by plain products where torch's kernel for CPUs is slow."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface, PreTrainedModel

from trainer.models.dropout import dropout as drop_out

_NAME = "products"
_MAX_BF16_TOKENS = 512
"""Longest row in bf16 whose (T, T) weights are kept in memory; torch's kernel keeps none."""
_Attend: TypeAlias = "Callable[[nn.Module, Tensor, Tensor, Tensor, Tensor | None, float, float], tuple[Tensor, None]]"
_torch_kernel: _Attend = sdpa_attention_forward
_mask_for_torch: Callable[[int, int, int], Tensor | None] = sdpa_mask


def use_products(body: PreTrainedModel) -> None:
    """Let a model of the library compute its attention by `attend`."""
    body.set_attn_implementation(_NAME)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float,
    scaling: float,
    **options: object,
) -> tuple[Tensor, None]:
    """Return the attended values (B, T, heads, D) of queries (B, heads, T, D) and of keys and values (B, groups, S, D).

    torch's kernel for CPUs has no dropout, and its backward pass takes longer in bf16 than in fp32: products are up to
    three times as fast. All else goes to torch's kernel. The options that the library adds are for other kernels.
    """
    is_plain = query.device.type == "cpu" and attention_mask is None and query.shape[2] == key.shape[2]
    is_short_bf16 = value.dtype == torch.bfloat16 and query.shape[2] <= _MAX_BF16_TOKENS
    if not is_plain or not (dropout or is_short_bf16):
        return _torch_kernel(module, query, key, value, attention_mask, dropout, scaling)
    heads, groups = query.shape[1], key.shape[1]
    key, value = (part.repeat_interleave(heads // groups, dim=1) if heads > groups else part for part in (key, value))
    with torch.autocast("cpu", enabled=False):  # rotary positions give queries in fp32
        is_causal = bool(module.is_causal)
        attended = _products(query.to(value.dtype), key.to(value.dtype), value, dropout, scaling, is_causal=is_causal)
    return attended.transpose(1, 2).contiguous(), None


def _products(query: Tensor, key: Tensor, value: Tensor, dropout: float, scaling: float, *, is_causal: bool) -> Tensor:
    batch, heads, tokens, width = query.shape
    query, key, value = (part.reshape(batch * heads, tokens, width) for part in (query, key, value))
    mask = torch.zeros(tokens, tokens, dtype=value.dtype)
    if is_causal:
        mask = mask.fill_(-torch.inf).triu_(1)
    weights = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=scaling).softmax(-1)  # (B * heads, T, T)
    weights = drop_out(weights, dropout, is_training=True)
    return torch.bmm(weights, value).view(batch, heads, tokens, width)


AttentionInterface.register(_NAME, attend)
AttentionMaskInterface.register(_NAME, _mask_for_torch)
