"""AdamW, Adam and SGD by torch's functions, Muon, and the loss scale of fp16: bit for bit as torch's classes.

The classes import torch's compiler, which takes more processor time than hundreds of steps of a small model.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from pydantic import ConfigDict, TypeAdapter
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from trainer.config.presets import TORCH_BETAS, TORCH_EPS, TORCH_MOMENTUM, TORCH_WEIGHT_DECAY
from trainer.contracts.training_options import OptimizerConfig
from trainer.training.muon import Blocks, orthogonalized

moments_adapter: TypeAdapter[dict[int, dict[str, Tensor]]] = TypeAdapter(
    dict[int, dict[str, Tensor]], config=ConfigDict(arbitrary_types_allowed=True)
)
"""The moments of each weight in a checkpoint, by the number of the weight."""
_numbers_adapter = TypeAdapter(dict[str, float])
_MOMENTUM = "momentum_buffer"
"""Name of Muon's only moment in a state."""
_STACKED_ON_CPU, _STACKED_ON_GPU = 1 << 16, 1 << 23
"""Muon moves so many entries of matrices of one shape at once: more leave the cache of a CPU, and cost memory."""

_INITIAL_SCALE, _GROWTH, _BACKOFF, _GROWTH_STEPS = 65536.0, 2.0, 0.5, 2000
"""Defaults of torch.amp.GradScaler."""


class Shards:
    """Shards of weights, gradients and moments in several processes; here each tensor is complete."""

    def full(self, tensor: Tensor) -> Tensor:
        """Return a complete tensor, of which each process may have a shard."""
        return tensor

    def local(self, tensor: Tensor) -> Tensor:
        """Return this process's shard of a tensor; both share their memory."""
        return tensor

    def sharded(self, full: Tensor, like: Tensor) -> Tensor:
        """Return a complete tensor with the dtype, the device and the shards of another one."""
        return full.to(like)


NO_SHARDS = Shards()


class WeightGroup(NamedTuple):
    """Weights with the same weight decay; None is the default of torch."""

    weights: list[Tensor]
    weight_decay: float | None


class _Moments(NamedTuple):
    """State of a weight in Adam and AdamW: its steps, and the means of its gradients and of their squares."""

    step: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor

    def mapped(self, function: Callable[[Tensor], Tensor]) -> "_Moments":
        return _Moments(self.step, function(self.exp_avg), function(self.exp_avg_sq))


class UpdateRule:
    """Moves weights by their gradients; its state has the form of `torch.optim.Optimizer.state_dict`.

    `matrices` are the weights that Muon moves; all others of a rule `muon` are for AdamW.
    """

    def __init__(
        self,
        config: OptimizerConfig,
        groups: Sequence[WeightGroup],
        shards: Shards = NO_SHARDS,
        matrices: Mapping[Tensor, Blocks] = MappingProxyType({}),
    ) -> None:
        self._name, self._groups, self._shards, self._matrices = config.name, groups, shards, matrices
        self._momentum = TORCH_MOMENTUM if config.momentum is None else config.momentum
        self._betas, self._eps = config.betas or TORCH_BETAS, TORCH_EPS if config.eps is None else config.eps
        self._is_fused = all(weight.device.type == "cpu" for weight in self._weights())
        self._max_stacked = _STACKED_ON_CPU if self._is_fused else _STACKED_ON_GPU
        self._learning_rate = 0.0
        self._moments: dict[Tensor, _Moments] = {}
        self._momenta: dict[Tensor, Tensor] = {}

    def step(self, learning_rate: float) -> None:
        """Move the weights that have a gradient."""
        self._learning_rate = learning_rate
        with torch.no_grad():
            for group in self._groups:
                moved = [weight for weight in group.weights if weight.grad is not None]
                weight_decay = self._weight_decay(group)
                self._move([weight for weight in moved if weight not in self._matrices], weight_decay)
                alike: defaultdict[tuple[torch.Size, Blocks], list[Tensor]] = defaultdict(list)
                for weight in moved:
                    if weight in self._matrices:
                        alike[weight.shape, self._matrices[weight]].append(weight)
                for (shape, blocks), weights in alike.items():
                    size = max(1, self._max_stacked // shape.numel())
                    for start in range(0, len(weights), size):
                        self._move_matrices(weights[start : start + size], blocks, weight_decay)

    def gradients(self) -> list[Tensor]:
        return [weight.grad for weight in self._weights() if weight.grad is not None]

    def clear_gradients(self) -> None:
        for weight in self._weights():
            weight.grad = None

    def state(self) -> dict[str, object]:
        weights = self._weights()
        numbers = {weight: number for number, weight in enumerate(weights)}
        options: dict[str, object] = {"betas": self._betas, "eps": self._eps}
        if self._name == "sgd":
            options = {"momentum": 0.0, "dampening": 0.0}
        if self._name == "muon":
            options["momentum"] = self._momentum
        groups = [
            options
            | {"lr": self._learning_rate, "weight_decay": self._weight_decay(group)}
            | {"params": [numbers[weight] for weight in group.weights]}
            for group in self._groups
        ]
        moments = {
            numbers[weight]: self._moments[weight].mapped(self._shards.full)._asdict()
            for weight in weights
            if weight in self._moments
        }
        momenta = {numbers[weight]: {_MOMENTUM: self._shards.full(each)} for weight, each in self._momenta.items()}
        return {"state": moments | momenta, "param_groups": groups}

    def load(self, state: dict[str, object]) -> None:
        """Load the state that an update rule, or a torch optimizer of the same name, has returned."""
        weights = self._weights()
        for number, moments in moments_adapter.validate_python(state["state"]).items():
            if _MOMENTUM in moments:
                self._momenta[weights[number]] = self._shards.sharded(moments[_MOMENTUM], weights[number])
                continue
            step, *means = (moments[name] for name in _Moments._fields)
            self._moments[weights[number]] = _Moments(
                step, *(self._shards.sharded(mean, weights[number]) for mean in means)
            )

    def _weights(self) -> list[Tensor]:
        return [weight for group in self._groups for weight in group.weights]

    def _weight_decay(self, group: WeightGroup) -> float:
        return TORCH_WEIGHT_DECAY[self._name] if group.weight_decay is None else group.weight_decay

    def _move(self, weights: list[Tensor], weight_decay: float) -> None:
        local = self._shards.local
        gradients = [local(weight.grad) for weight in weights if weight.grad is not None]
        shards = [local(weight) for weight in weights]
        if self._name == "sgd":
            sgd(
                shards,
                gradients,
                [None] * len(weights),
                weight_decay=weight_decay,
                momentum=0.0,
                lr=self._learning_rate,
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )
            return
        for weight in weights:
            if weight not in self._moments:
                zeros = (torch.zeros_like(weight, memory_format=torch.preserve_format) for _ in range(2))
                self._moments[weight] = _Moments(torch.tensor(0.0), *zeros)
        moments = [self._moments[weight].mapped(local) for weight in weights]
        adam(
            shards,
            gradients,
            [each.exp_avg for each in moments],
            [each.exp_avg_sq for each in moments],
            [],
            [each.step for each in moments],
            fused=self._is_fused,
            foreach=not self._is_fused,
            amsgrad=False,
            beta1=self._betas[0],
            beta2=self._betas[1],
            lr=self._learning_rate,
            weight_decay=weight_decay,
            eps=self._eps,
            maximize=False,
            decoupled_weight_decay=self._name in {"adamw", "muon"},
        )

    def _move_matrices(self, weights: list[Tensor], blocks: Blocks, weight_decay: float) -> None:
        """Move weights of one shape, which have gradients."""
        local = self._shards.local
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        for weight, gradient in zip(weights, gradients, strict=True):
            if weight not in self._momenta:
                self._momenta[weight] = torch.zeros_like(weight, memory_format=torch.preserve_format)
            momentum = local(self._momenta[weight]).lerp_(local(gradient), 1 - self._momentum)
            local(gradient).lerp_(momentum, self._momentum)  # Nesterov's step, in place: the gradient is read no more
        updates = orthogonalized([self._shards.full(gradient) for gradient in gradients], blocks)
        for weight, update in zip(weights, updates, strict=True):
            shard = local(weight).mul_(1 - self._learning_rate * weight_decay)
            shard.add_(local(self._shards.sharded(update, weight)), alpha=-self._learning_rate)


class LossScale:
    """Factor of the loss that keeps gradients from vanishing in fp16; adapted as by `torch.amp.GradScaler`."""

    def __init__(self) -> None:
        self.scale = _INITIAL_SCALE
        self._finite_steps, self.is_finite = 0, True

    def unscale(self, gradients: Sequence[Tensor], shards: Shards = NO_SHARDS) -> None:
        """Divide gradients by the scale, and check that they are finite: else no weight may move by them."""
        self.is_finite = bool(shards.full(torch.nn.utils.get_total_norm(gradients, math.inf)).isfinite())
        for gradient in gradients:
            gradient.mul_(1 / self.scale)

    def update(self) -> None:
        """Halve the scale after gradients that were not finite; double it after 2,000 steps in a row that were."""
        self._finite_steps = self._finite_steps + 1 if self.is_finite else 0
        if not self.is_finite:
            self.scale *= _BACKOFF
        elif self._finite_steps == _GROWTH_STEPS:
            self.scale, self._finite_steps = self.scale * _GROWTH, 0

    def state(self) -> dict[str, object]:
        """Return the state in the form of `torch.amp.GradScaler.state_dict`."""
        constants = {"growth_factor": _GROWTH, "backoff_factor": _BACKOFF, "growth_interval": _GROWTH_STEPS}
        return {"scale": self.scale, **constants, "_growth_tracker": self._finite_steps}

    def load(self, state: Mapping[str, object]) -> None:
        numbers = _numbers_adapter.validate_python(state)
        self.scale, self._finite_steps = numbers["scale"], int(numbers["_growth_tracker"])
