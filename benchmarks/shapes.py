"""Shapes of the models that the benchmarks train, their arithmetic, and the ids that the rivals train on."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.contracts.models import Activation

LEARNING_RATE = 1e-3
"""Constant and without a warm-up, in all contestants: a rule of ours must not give our side another training."""


class Shape(NamedTuple):
    """A model and its batch, as `mt train`, Hugging Face Trainer and a plain loop all train it."""

    is_lstm: bool
    layers: int
    hidden_size: int
    length: int
    """Tokens per row."""
    rows: int
    """Rows per batch."""
    steps: int
    """Steps of a full measurement."""
    embedding_size: int = 128
    """For an LSTM."""
    heads: int = 4
    """For GPT-2."""
    dropout: float = 0.0

    def request(self, activation: Activation = "gelu_new") -> dict[str, object]:
        """Return the fields of a train request; the activation is that of GPT-2."""
        sizes: dict[str, object]
        if self.is_lstm:
            sizes = {"model_family": "char_lstm", "model.embedding_size": self.embedding_size}
            sizes["model.dropout_places"] = "between_layers"  # as in `nn.LSTM`
        else:
            sizes = {"model_family": "gpt2", "model.activation_function": activation}
            sizes |= {"model.num_attention_heads": self.heads, "model.max_position_embeddings": self.length}
            sizes["model.attention_dropout"] = self.dropout
        sizes |= {"model.num_layers": self.layers, "model.hidden_size": self.hidden_size, "tokenizer.method": "char"}
        sizes["model.dropout"] = self.dropout
        sizes |= {"optimizer.name": "adamw", "learning_rate": LEARNING_RATE, "lr_schedule": "constant"}
        return sizes | {"warmup_steps": 0, "max_seq_len": self.length, "batch_size": self.rows}

    def flops_per_token(self, vocabulary: int) -> float:
        """Return the floating-point operations of a training step per token: 6 per weight of a product, and attention.

        Products with the whole context count half, because attention is causal.
        """
        width = self.hidden_size
        if self.is_lstm:
            inputs = self.embedding_size + (self.layers - 1) * width
            weights = 4 * width * (inputs + self.layers * width) + self.embedding_size * (width + vocabulary)
            return 6.0 * weights
        return 6.0 * (12 * self.layers * width**2 + width * vocabulary) + 6.0 * self.layers * self.length * width


SHAPES = {
    "lstm": Shape(is_lstm=True, layers=2, hidden_size=256, length=256, rows=64, steps=30, dropout=0.1),
    "gpt2": Shape(is_lstm=False, layers=4, hidden_size=128, length=64, rows=12, steps=300),
    "gpt2-large": Shape(is_lstm=False, layers=6, hidden_size=384, length=256, rows=16, steps=14, heads=6),
}
"""The preset of the paper; the small shape of nanoGPT's example for CPUs; a larger one."""


def character_ids(text_file: Path) -> tuple[Tensor, int]:
    """Return the characters of a text as the rivals read them, and the size of their vocabulary."""
    text = text_file.read_text(encoding="utf-8")
    numbers = {character: number for number, character in enumerate(sorted(set(text)))}
    ids: list[int] = [numbers[character] for character in text]
    return torch.tensor(ids), len(numbers)
