"""The update rules and the loss scale move weights as torch's classes do, bit for bit."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW

from tests.support.tiny_models import make_run
from tests.support.trainings import TEXT
from trainer.contracts.training_options import OptimizerConfig
from trainer.training.device import Precision
from trainer.training.optimizer import Optimizer
from trainer.training.update_rules import LossScale, UpdateRule, WeightGroup

SHAPES = ((3, 4), (5,), (2, 2))
CONFIGS: tuple[dict[str, object], ...] = (
    {"name": "adamw"},
    {"name": "adamw", "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.3},
    {"name": "adam"},
    {"name": "adam", "weight_decay": 0.2},
    {"name": "sgd"},
    {"name": "sgd", "weight_decay": 0.1},
)


def weights() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in SHAPES]


def rule_of(values: dict[str, object], moved: Sequence[Tensor]) -> UpdateRule:
    config = OptimizerConfig.model_validate(values)
    return UpdateRule(config, [WeightGroup([*moved[:2]], config.weight_decay), WeightGroup([moved[2]], 0.0)])


def torch_optimizer(values: dict[str, object], moved: Sequence[Tensor]) -> torch.optim.Optimizer:
    config = OptimizerConfig.model_validate(values)
    given: dict[str, object] = config.model_dump(include={"betas", "eps", "weight_decay"}, exclude_none=True)
    groups: list[dict[str, object]] = [given | {"params": [*moved[:2]]}]
    groups.append(given | {"params": [moved[2]], "weight_decay": 0.0})
    if config.name == "sgd":
        return SGD(groups, lr=1.0)
    return (AdamW if config.name == "adamw" else Adam)(groups, lr=1.0, fused=True)


def set_gradients(step: int, *lists: Sequence[Tensor]) -> None:
    """Give equal weights equal gradients; the second weight has none in every third step."""
    generator = torch.Generator().manual_seed(step)
    for number, shape in enumerate(SHAPES):
        gradient = torch.randn(shape, generator=generator)
        for moved in lists:
            moved[number].grad = None if number == 1 and step % 3 == 0 else gradient.clone()


def take_steps(
    steps: range, rule: UpdateRule, ours: list[Tensor], theirs: torch.optim.Optimizer, others: list[Tensor]
) -> None:
    groups: list[dict[str, object]] = theirs.param_groups
    for step in steps:
        set_gradients(step, ours, others)
        for group in groups:
            group["lr"] = 0.1 / (step + 1)
        rule.step(0.1 / (step + 1))
        theirs.step()
        assert all(map(torch.equal, ours, others)), step


@pytest.mark.parametrize("values", CONFIGS)
def test_update_rule__is_torchs_bit_for_bit_and_exchanges_its_state(values: dict[str, object]) -> None:
    ours, theirs = weights(), weights()
    rule, optimizer = rule_of(values, ours), torch_optimizer(values, theirs)
    rule.load(rule_of(values, weights()).state())
    take_steps(range(20), rule, ours, optimizer, theirs)
    assert not any(map(torch.equal, ours, weights()))
    state: dict[str, object] = optimizer.state_dict()
    new_rule, new_optimizer = rule_of(values, ours), torch_optimizer(values, theirs)
    new_rule.load(state)
    new_optimizer.load_state_dict(rule.state())
    groups: list[dict[str, object]] = new_optimizer.param_groups
    for group in groups:
        group["fused"] = values["name"] != "sgd"
    take_steps(range(20, 25), new_rule, ours, new_optimizer, theirs)


def test_loss_scale__adapts_as_that_of_torch() -> None:
    scale, theirs = LossScale(), torch.amp.GradScaler("cpu")
    weight = torch.zeros(2).requires_grad_()
    optimizer = SGD([weight], lr=1.0)
    for step in range(4100):
        value = {3: math.inf, 50: math.nan, 51: -math.inf}.get(step, 0.1)
        gradient = torch.linspace(1, 1 / 3, 2) * value
        weight.grad = theirs.scale(gradient)
        ours = gradient * scale.scale
        theirs.unscale_(optimizer)
        scale.unscale([ours])
        assert torch.equal(ours, weight.grad) or math.isnan(value)
        before = weight.detach().clone()
        theirs.step(optimizer)
        assert scale.is_finite == (not torch.equal(before, weight))
        theirs.update()
        scale.update()
        state: dict[str, object] = theirs.state_dict()
        assert scale.state() == state
    loaded = LossScale()
    loaded.load(scale.state())
    assert loaded.state() == scale.state() and scale.scale != LossScale().scale


def test_fp16__scales_the_loss_and_skips_a_step_with_infinite_gradients(tmp_path: Path) -> None:
    run, precisions = make_run(tmp_path, TEXT), list[Precision](("fp32", "fp16"))
    plain, scaled = run.fresh_model(), run.fresh_model()
    optimizers = [
        Optimizer(model, run.effective, run.compute._replace(precision=precision), 10)
        for model, precision in zip((plain, scaled), precisions, strict=True)
    ]
    for factor in (1.0, math.inf, 1.0):
        for model, optimizer in zip((plain, scaled), optimizers, strict=True):
            optimizer.backward(sum((weight.square().sum() for weight in model.parameters()), torch.zeros(())) * factor)
            optimizer.clip_gradients()
            if math.isfinite(factor) or model is scaled:
                optimizer.step(0)
            optimizer.clear_gradients()
    again = Optimizer(scaled, run.effective, run.compute._replace(precision="fp16"), 10)
    again.load(optimizers[1].state())
    for ours, theirs in zip(scaled.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert again.state()["scaler"] == optimizers[1].state()["scaler"] != {}
    assert optimizers[0].state()["scaler"] == {}
