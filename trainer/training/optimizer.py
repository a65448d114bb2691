"""Optimizer of a training: weight-decay groups, loss scale and clipping, and the learning-rate schedule."""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import assert_never

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from trainer.contracts.runs import EffectiveRequest
from trainer.contracts.training_options import DecayFree, OptimizerConfig
from trainer.models.base import LanguageModel
from trainer.training.average import WeightAverage
from trainer.training.checkpoint import OptimizerState
from trainer.training.device import Compute, random_state, restore_random_state
from trainer.training.muon import hidden_matrices
from trainer.training.update_rules import NO_SHARDS, LossScale, Shards, UpdateRule, WeightGroup


class Optimizer:
    """An update rule with a loss scale (fp16), clipping and the learning rate of each step."""

    def __init__(
        self,
        model: LanguageModel,
        effective: EffectiveRequest,
        compute: Compute,
        total_steps: int,
        shards: Shards = NO_SHARDS,
    ) -> None:
        self._model, self._effective, self._total_steps, self._shards = model, effective, total_steps, shards
        matrices = hidden_matrices(model) if effective.optimizer.name == "muon" else {}
        self._rule = UpdateRule(effective.optimizer, _weight_groups(model, effective.optimizer), shards, matrices)
        self._scale = LossScale() if compute.precision == "fp16" else None
        decay = effective.ema_decay
        self._average = None if decay is None else WeightAverage(model, decay, shards)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a scalar loss to those of the step."""
        torch.autograd.backward([loss if self._scale is None else loss * self._scale.scale])

    def clip_gradients(self) -> Tensor:
        """Clip the gradients to `gradient_clipping` and return their norm before that, a scalar."""
        if self._scale is not None:
            self._scale.unscale(self._rule.gradients(), self._shards)
        limit = self._effective.gradient_clipping or math.inf
        weights = list(self._model.parameters())
        norm = self._shards.full(get_total_norm([weight.grad for weight in weights if weight.grad is not None]))
        clip_grads_with_norm_(weights, limit, norm)
        return norm

    def step(self, step: int, position: float) -> None:
        """Move the weights by their gradients, after `step` earlier steps, and clear the gradients; then average.

        `position` is that of the step in the schedule of the learning rate.
        """
        if self._scale is None or self._scale.is_finite:
            self._rule.step(learning_rate(position, self._total_steps, self._effective))
        if self._scale is not None:
            self._scale.update()
        self.clear_gradients()
        if self._average is not None:
            self._average.update(step + 1)

    def clear_gradients(self) -> None:
        self._rule.clear_gradients()

    def averaged(self) -> AbstractContextManager[None]:
        """Return a context in which the model has the moving average of its weights, if there is one."""
        return nullcontext() if self._average is None else self._average.in_model()

    def keep_average(self) -> None:
        """Replace the weights by their moving average, if there is one, at the end of the training."""
        if self._average is not None:
            self._average.load_into_model()

    def state(self) -> OptimizerState:
        """Return the state of the optimizer, the loss scale, the random generators and the moving average."""
        scale = {} if self._scale is None else self._scale.state()
        raw_weights = {} if self._average is None else self._average.raw_weights()
        return OptimizerState(
            optimizer=self._rule.state(), scaler=scale, random=random_state(), raw_weights=raw_weights
        )

    def load(self, state: OptimizerState) -> None:
        """Load the state that an earlier optimizer returned, with the random generators.

        The model has the weights of the checkpoint already.
        """
        if self._average is not None:
            self._average.load(state["raw_weights"])
        self._rule.load(state["optimizer"])
        if self._scale is not None:
            self._scale.load(state["scaler"])
        restore_random_state(state["random"])


def learning_rate(step: float, total_steps: int, effective: EffectiveRequest) -> float:
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
        case "wsd":
            decay = min(math.ceil(effective.decay_ratio * total_steps), total_steps - warmup)
            share = min(1.0, (total_steps - step) / max(1, decay))
        case unknown:
            assert_never(unknown)
    return effective.min_learning_rate + (effective.learning_rate - effective.min_learning_rate) * share


def _weight_groups(model: LanguageModel, config: OptimizerConfig) -> list[WeightGroup]:
    """Return the groups that are not empty: trainable weights with weight decay, then those without."""
    excluded = {
        weight
        for module in model.modules()
        for name, weight in module.named_parameters(recurse=False)
        if _weight_kind(module, name) in config.weight_decay_exclude
    }
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    decaying = WeightGroup([weight for weight in trainable if weight not in excluded], config.weight_decay)
    constant = WeightGroup([weight for weight in trainable if weight in excluded], 0.0)
    return [group for group in (decaying, constant) if group.weights]


def _weight_kind(module: nn.Module, name: str) -> DecayFree | None:
    """Return the kind of a module's weight that `weight_decay_exclude` can name; None for all others."""
    if "bias" in name:
        return "bias"
    layer = type(module).__name__  # the normalization layers of transformers share no base class
    if layer.endswith("Norm"):
        return "norm"
    return "embedding" if layer == "Embedding" else None
