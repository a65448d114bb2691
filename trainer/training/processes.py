"""Processes that train one model together; here the training of a single process, without torch.distributed."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn import functional

from trainer.contracts.training_options import Strategy
from trainer.models.base import LanguageModel
from trainer.training.batches import NO_TARGET, Batch
from trainer.training.device import Compute, autocast
from trainer.training.update_rules import Shards


class LossSum(nn.Module):
    """Summed loss of a batch, a scalar in nats; fp32 in every precision, because a bf16 sum has three digits."""

    def __init__(self, model: LanguageModel, compute: Compute) -> None:
        super().__init__()
        self.model = model
        self.device = compute.device
        self._compute = compute

    def forward(self, inputs: Tensor, targets: Tensor, lengths: Tensor | None) -> Tensor:
        """Return the loss of targets (B, T) after inputs (B, T), of which `lengths` (B,) are no padding."""
        with autocast(self._compute):
            if self.model.objective == "masked_lm":  # few positions have a target
                hidden = self.model.hidden_states(inputs, lengths)[targets != NO_TARGET]  # (N, H)
                logits, targets = self.model.logits(hidden), targets[targets != NO_TARGET]  # (N, V)
            else:
                logits = self.model.forward(inputs, lengths)  # (B, T, V)
        return functional.cross_entropy(logits.float().flatten(0, -2), targets.flatten(), reduction="sum")


class Weights(Shards):
    """The weights that a training moves; here those of the model itself."""

    def __init__(self, loss: LossSum) -> None:
        self._loss = loss

    @property
    def model(self) -> LanguageModel:
        """The model with these weights."""
        return self._loss.model

    def loss_sum(self, batch: Batch, *, is_last: bool) -> Tensor:
        """Return the summed loss of this process's rows; processes may exchange gradients in the last batch only."""
        return self._loss.forward(batch.inputs, batch.targets, batch.lengths)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Hold all current weights in the model that the training was given, on its device."""
        yield


class Processes:
    """The processes of a training; here one. All processes call the methods in the same order."""

    rank, count = 0, 1
    backend: str | None = None
    """Backend of torch.distributed."""

    @property
    def is_first(self) -> bool:
        """True for the process that writes the run."""
        return self.rank == 0

    def weights(self, loss: LossSum, strategy: Strategy) -> Weights:
        """Return the weights of the model of a loss, to train by all processes."""
        loss.model.to(loss.device)
        return Weights(loss)

    def first(self, number: float) -> float:
        """Return the number of the first process."""
        return number

    def each(self, number: int) -> tuple[int, ...]:
        """Return the numbers of all processes, by rank."""
        return (number,)

    def total(self, number: int) -> int:
        """Return the sum of the numbers of all processes."""
        return number

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of the tensors of all processes."""
        return tensor

    @contextmanager
    def first_goes_ahead(self) -> Iterator[None]:
        """Let the first process do some work before the others."""
        yield


ONE_PROCESS = Processes()
