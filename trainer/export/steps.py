"""A model as a function of tensors alone, as TorchScript and ONNX have it: state in, state out."""

import torch
from torch import Tensor, nn

from trainer.models.base import LanguageModel


class Step(nn.Module):
    """Of a causal model: ids (B, T) and the state before them to logits (B, T, V) and the state after them."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        logits, after = self.model.forward_with_state(ids, state)
        return (logits, *after)


class Whole(nn.Module):
    """Of a masked model: ids (B, T), and how many of each row are read (B,), to logits (B, T, V)."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        return self.model.forward(ids, lengths)


def state_names(count: int) -> list[str]:
    """Name the tensors of a state: of a recurrent model hidden and cell, else places read, then keys and values."""
    if count <= len(_RECURRENT):
        return list(_RECURRENT[:count])
    return ["read", *(f"{part}_{layer}" for layer in range(count // 2) for part in ("key", "value"))]


_RECURRENT = ("hidden", "cell")


def example_ids(model: LanguageModel) -> Tensor:
    """Return some ids (B, T) for a graph to be recorded with: no size of theirs is another one's."""
    return torch.arange(2 * 5).reshape(2, 5) % model.vocab_size


def example_lengths() -> Tensor:
    """Return how many of each row of the example are read (B,)."""
    lengths: list[int] = [5, 4]
    return torch.tensor(lengths)


def example_state(model: LanguageModel) -> tuple[Tensor, ...]:
    """Return the state (B = 2) after three tokens."""
    with torch.inference_mode():
        _, state = model.forward_with_state(example_ids(model)[:, :3], model.initial_state(2))
    return tuple(part.clone() for part in state)
