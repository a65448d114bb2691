"""Moving average of the weights, which is evaluated and stored in place of the weights that a training moves.

The last steps of a training circle around a minimum; their mean is nearer to it than each of them (Polyak & Juditsky
1992; Izmailov et al. 2018, https://arxiv.org/abs/1803.05407).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from trainer.models.base import LanguageModel
from trainer.training.update_rules import NO_SHARDS, Shards


class WeightAverage:
    """Exponential moving average of the trainable weights of a model; it starts with their current values."""

    def __init__(self, model: LanguageModel, decay: float, shards: Shards = NO_SHARDS) -> None:
        self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._decay, self._shards = decay, shards
        self._average = self._copies()

    def update(self, steps: int) -> None:
        """Move the average towards the weights after `steps` steps.

        The decay is at most (1 + steps) / (10 + steps), so that the average soon forgets the initial weights.
        """
        share = 1 - min(self._decay, (1 + steps) / (10 + steps))
        with torch.no_grad():
            for average, weight in zip(self._average, self._local(), strict=True):
                average.lerp_(weight, share)

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """Hold the average in the model, and return its weights bit for bit afterwards."""
        raw = self._copies()
        try:
            self.load_into_model()
            yield
        finally:
            self._write(raw)

    def load_into_model(self) -> None:
        """Replace the weights of the model by the average."""
        self._write(self._average)

    def raw_weights(self) -> dict[str, Tensor]:
        """Return complete copies of the weights that the training moves, by name; not for use within `in_model`."""
        with torch.no_grad():
            return {name: self._shards.full(weight).clone() for name, weight in self._weights.items()}

    def load(self, raw_weights: Mapping[str, Tensor]) -> None:
        """Continue with the average that the model now holds, and with the weights of a checkpoint."""
        self._average = self._copies()
        sharded, local = self._shards.sharded, self._shards.local
        self._write([local(sharded(raw_weights[name], weight)) for name, weight in self._weights.items()])

    def _local(self) -> list[Tensor]:
        return [self._shards.local(weight) for weight in self._weights.values()]

    def _copies(self) -> list[Tensor]:
        return [weight.detach().clone() for weight in self._local()]

    def _write(self, values: list[Tensor]) -> None:
        with torch.no_grad():
            for weight, value in zip(self._local(), values, strict=True):
                weight.copy_(value)
