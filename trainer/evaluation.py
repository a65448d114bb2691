"""What a model does on a split: loss and accuracy by the rows that training uses, and seeded samples."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainer.data.batches import NO_TARGET, Rows
from trainer.device import Compute, autocast
from trainer.models.base import LanguageModel


class Evaluation(NamedTuple):
    """Sums over the predicted tokens of a split; [EOS] is one of them, [BOS] and padding are not."""

    loss_sum_nats: float
    tokens: int
    top1_hits: int
    top5_hits: int

    @property
    def loss_nats(self) -> float:
        return self.loss_sum_nats / self.tokens


def evaluate_rows(
    model: LanguageModel, rows: Rows, compute: Compute, between_batches: Callable[[], None] = lambda: None
) -> Evaluation:
    """Score every row with the model as it is, without dropout; leaves the model in training mode if it was."""
    was_training = model.training
    model.eval()
    try:
        return _evaluate(model, rows, compute, between_batches)
    finally:
        model.train(was_training)


def perplexity(loss_nats: float) -> float:
    """Return exp(loss), at most the largest float."""
    return math.exp(min(loss_nats, 709.0))


def _evaluate(model: LanguageModel, rows: Rows, compute: Compute, between_batches: Callable[[], None]) -> Evaluation:
    loss_sum = torch.zeros((), dtype=torch.float64, device=compute.device)
    hits = torch.zeros(2, dtype=torch.int64, device=compute.device)
    tokens = 0
    for start in range(0, len(rows), compute.batch_size):
        between_batches()
        batch = rows.batch(np.arange(start, min(start + compute.batch_size, len(rows)))).to(compute.device)
        with torch.inference_mode(), autocast(compute):
            logits = model.forward(batch.inputs).float()  # (B, T, V)
            losses = functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none")
            loss_sum += losses.double().sum()
            hits += _hits(logits, batch.targets)
        tokens += batch.tokens
    return Evaluation(float(loss_sum), tokens, int(hits[0]), int(hits[1]))


def _hits(logits: Tensor, targets: Tensor) -> Tensor:
    """Count the targets (B, T) that are among the first one and the first five of the logits (B, T, V)."""
    predicted = targets != NO_TARGET
    of_target = logits.gather(-1, targets.clamp_min(0).unsqueeze(-1))  # (B, T, 1)
    better = (logits > of_target).sum(-1)  # (B, T)
    return torch.stack([(better[predicted] < 1).sum(), (better[predicted] < 5).sum()])
