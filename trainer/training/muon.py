"""Muon: steps of momentum, orthogonalized (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

It moves the matrices of hidden layers. Embeddings, position tables, output layers, biases and normalizations are for
AdamW, because they map no hidden vector to another one.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainer.models.base import LanguageModel
from trainer.models.threads import MEASURED_THREADS, using_threads

_COEFFICIENTS, _ITERATIONS, _MIN_NORM = (3.4445, -4.7750, 2.0315), 5, 1e-7
"""Defaults of torch.optim.Muon."""
_GATES = {"LSTM": 4, "GRU": 3}
_ADAMW_RMS = 0.2
"""Root mean square of an update of AdamW, divided by the learning rate (Liu et al. 2025, arXiv 2502.16982)."""


class Blocks(NamedTuple):
    """The number of matrices that lie side by side in a weight, and the dimension that they share.

    Each block is a map of its own: a gate of an LSTM, or the queries of attention. Muon's step is the steepest descent
    for the largest singular value of a map. In one step for the whole stack, a block with small gradients would move
    less, although its outputs are used apart from the others.
    """

    number: int = 1
    dim: int = 0


def hidden_matrices(model: LanguageModel) -> dict[Tensor, Blocks]:
    """Return the weights (outputs, inputs), or transposed, of hidden layers: all matrices but embeddings and head."""
    head = model.head_weight()
    modules: Iterator[tuple[str, nn.Module]] = model.named_modules()
    return {
        weight: _blocks(path, module)
        for path, module in modules
        for weight in module.parameters(recurse=False)
        if weight.dim() == 2 and weight is not head and type(module).__name__ != "Embedding"
    }


def orthogonalized(weights: Sequence[Tensor], blocks: Blocks) -> list[Tensor]:
    """Return U S V^T of each block U Σ V^T of weights of one shape, with S near 0.2 √max(rows, columns).

    An entry then is as large as one of an update of AdamW, so that both take one learning rate. This is the adjustment
    `match_rms_adamw` of torch. The iteration of Newton and Schulz is in fp32, not in bf16 as in torch: so CPUs with and
    without bf16 give the same numbers. With up to two threads one of them computes it, because two would add in
    another order. All blocks are iterated at once: on a GPU, starting a product takes longer than the product.
    """
    threads = torch.get_num_threads()
    matrices = torch.stack([block for weight in weights for block in weight.chunk(blocks.number, blocks.dim)])
    scale = _ADAMW_RMS * math.sqrt(max(matrices.shape[1:]))
    with using_threads(1 if threads <= MEASURED_THREADS else threads):
        parts = torch.split(_newton_schulz(matrices).mul_(scale), blocks.number)
        return [torch.cat(part.unbind(), blocks.dim) for part in parts]


def _newton_schulz(matrices: Tensor) -> Tensor:
    """Bring the singular values of matrices (N, A, B) near 1: each step maps a value s to a s + b s³ + c s⁵."""
    a, b, c = _COEFFICIENTS
    is_tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if is_tall else matrices
    norm: Tensor = torch.linalg.vector_norm(wide, dim=(1, 2), keepdim=True)
    wide = wide / norm.clamp(min=_MIN_NORM)
    for _ in range(_ITERATIONS):
        gram = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.mT if is_tall else wide


def _blocks(path: str, module: nn.Module) -> Blocks:
    if path.endswith(".c_attn"):  # queries, keys and values of GPT-2, whose weight is (inputs, outputs)
        return Blocks(3, dim=1)
    return Blocks(_GATES.get(type(module).__name__, 1))
