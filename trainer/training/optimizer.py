"""Optimizer of a training: weight-decay groups, gradient scaling and clipping, and the learning-rate schedule."""

import math
from typing import assert_never

import torch
from torch import Tensor, nn

from trainer.contracts.runs import DecayFree, EffectiveRequest, OptimizerConfig
from trainer.models.base import LanguageModel
from trainer.training.checkpoint import OptimizerState
from trainer.training.device import Compute, random_state, restore_random_state


class Optimizer:
    """A torch optimizer with a gradient scaler (fp16), clipping and the learning rate of each step."""

    def __init__(self, model: LanguageModel, effective: EffectiveRequest, compute: Compute, total_steps: int) -> None:
        self._model, self._effective, self._total_steps = model, effective, total_steps
        self._optimizer = build_optimizer(model, effective)
        self._scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.precision == "fp16")

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a scalar loss to those of the step."""
        torch.autograd.backward([self._scaler.scale(loss)])

    def clip_gradients(self) -> Tensor:
        """Clip the gradients to `gradient_clipping` and return their norm before that, a scalar."""
        self._scaler.unscale_(self._optimizer)
        limit = self._effective.gradient_clipping or math.inf
        return torch.nn.utils.clip_grad_norm_(self._model.parameters(), limit)

    def step(self, step: int) -> None:
        """Move the weights by their gradients, after `step` earlier steps, and clear the gradients."""
        groups: list[dict[str, object]] = self._optimizer.param_groups
        for group in groups:
            group["lr"] = learning_rate(step, self._total_steps, self._effective)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.clear_gradients()

    def clear_gradients(self) -> None:
        self._optimizer.zero_grad()

    def state(self) -> OptimizerState:
        """Return the state of the optimizer, the gradient scaler and the random generators."""
        optimizer: dict[str, object] = self._optimizer.state_dict()
        scaler: dict[str, object] = self._scaler.state_dict()
        return OptimizerState(optimizer=optimizer, scaler=scaler, random=random_state())

    def load(self, state: OptimizerState) -> None:
        """Load the state that an earlier optimizer returned, with the random generators."""
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        restore_random_state(state["random"])


def learning_rate(step: int, total_steps: int, effective: EffectiveRequest) -> float:
    """Return the learning rate after `step` steps: a linear warm-up, then the schedule down to `min_learning_rate`."""
    if effective.warmup_ratio is not None:
        warmup = math.ceil(effective.warmup_ratio * total_steps)
    else:
        warmup = effective.warmup_steps or 0
    if step < warmup:
        return effective.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, total_steps - warmup)
    match effective.lr_schedule:
        case "constant":
            return effective.learning_rate
        case "linear":
            share = 1.0 - done
        case "cosine":
            share = (1.0 + math.cos(math.pi * done)) / 2
        case unknown:
            assert_never(unknown)
    return effective.min_learning_rate + (effective.learning_rate - effective.min_learning_rate) * share


def build_optimizer(model: LanguageModel, effective: EffectiveRequest) -> torch.optim.Optimizer:
    """Build the torch optimizer of a request for all weights that require a gradient."""
    config, rate = effective.optimizer, effective.learning_rate
    groups = _weight_groups(model, config)
    match config.name:
        case "sgd":
            return torch.optim.SGD(groups, lr=rate)
        case "adam":
            return torch.optim.Adam(groups, lr=rate)
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate)
        case unknown:
            assert_never(unknown)


def _weight_groups(model: LanguageModel, config: OptimizerConfig) -> list[dict[str, object]]:
    """Return the optimizer's groups that are not empty: trainable weights with weight decay, then those without."""
    options: dict[str, object] = config.model_dump(exclude={"name", "weight_decay_exclude"}, exclude_none=True)
    excluded = {
        weight
        for module in model.modules()
        for name, weight in module.named_parameters(recurse=False)
        if _weight_kind(module, name) in config.weight_decay_exclude
    }
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    decaying = options | {"params": [weight for weight in trainable if weight not in excluded]}
    constant = options | {"params": [weight for weight in trainable if weight in excluded], "weight_decay": 0.0}
    return [group for group in (decaying, constant) if group["params"]]


def _weight_kind(module: nn.Module, name: str) -> DecayFree | None:
    """Return the kind of a module's weight that `weight_decay_exclude` can name; None for all others."""
    if "bias" in name:
        return "bias"
    layer = type(module).__name__  # the normalization layers of transformers share no base class
    if layer.endswith("Norm"):
        return "norm"
    return "embedding" if layer == "Embedding" else None
