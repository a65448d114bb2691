"""When validation says that more training does not help."""

from trainer.contracts.base import Frozen
from trainer.contracts.runs import EarlyStopping


class ValidationHistory(Frozen):
    """The best validation so far, and how long the loss has not fallen by enough."""

    best_loss_nats: float | None = None
    best_step: int | None = None
    best_epoch: int | None = None
    reference_loss_nats: float | None = None
    """The loss that the next one is measured against: the last that fell by more than `min_delta`."""
    evaluations_without_fall: int = 0

    def after(self, loss_nats: float, *, step: int, epoch: int, rule: EarlyStopping) -> "ValidationHistory":
        """Return the history with one more evaluation."""
        changes: dict[str, object] = {"evaluations_without_fall": self.evaluations_without_fall + 1}
        if self.reference_loss_nats is None or loss_nats < self.reference_loss_nats - rule.min_delta:
            changes = {"evaluations_without_fall": 0, "reference_loss_nats": loss_nats}
        if self.best_loss_nats is None or loss_nats < self.best_loss_nats:
            changes |= {"best_loss_nats": loss_nats, "best_step": step, "best_epoch": epoch}
        return self.model_copy(update=changes)

    def stops(self, rule: EarlyStopping) -> bool:
        return rule.enabled and self.evaluations_without_fall >= rule.patience
