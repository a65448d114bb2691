"""The training loss of a model, as one module: DDP and FSDP2 need it so."""

from torch import Tensor, nn
from torch.nn import functional

from trainer.models.base import LanguageModel
from trainer.training.batches import NO_TARGET
from trainer.training.device import Compute, autocast


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
