"""Optimizers and the loss scale are those of torch, weight decay reaches its parameters, rates follow schedules."""

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW

from tests.support.families import FAMILIES, effective_of
from tests.support.tiny_models import POEM, make_run
from tests.support.trainings import TEXT, losses, observed
from trainer.contracts.training_options import OptimizerConfig
from trainer.training.device import Precision, seed_everything
from trainer.training.optimizer import Optimizer, learning_rate
from trainer.training.update_rules import LossScale, UpdateRule, WeightGroup

RATE, DECAY = 0.01, 0.5
NAMES = {
    "bias": r"bias",
    "norm": r"(norm\w*|ln_\w)\.weight$",
    "embedding": r"(embeddings?|embed_tokens|wte|wpe)\.weight$",
}
"""Names of the weights of each kind, here and in the library."""
TORCH: dict[str, Callable[[list[torch.nn.Parameter], float], torch.optim.Optimizer]]
TORCH = {"adamw": AdamW, "adam": Adam, "sgd": SGD}


def after_one_step(folder: Path, family: str, decay: float, excluded: list[str]) -> tuple[dict[str, Tensor], ...]:
    """All weights of a model before and after a step of AdamW; none of them is zero before."""
    folder.mkdir()
    optimizer: dict[str, object] = {"weight_decay": decay, "weight_decay_exclude": excluded}
    fields: dict[str, object] = {**FAMILIES[family], "tokenizer": {"method": "char"}, "learning_rate": RATE}
    run = make_run(folder, POEM, **fields, optimizer=optimizer, max_steps=1)
    model = run.fresh_model()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    seed_everything(run.effective.seed)
    run.train(model)
    return before, {name: weight.detach() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("excluded", [["bias", "norm"], ["embedding"], []])
@pytest.mark.parametrize("family", ["char_lstm", "lstm both", "gpt2", "llama", "bert"])
def test_weight_decay__is_that_of_adamw_for_all_that_is_not_excluded(
    tmp_path: Path, family: str, excluded: list[str]
) -> None:
    """AdamW decays by rate x decay x weight; its other step is the same with and without."""
    before, with_decay = after_one_step(tmp_path / "with", family, DECAY, excluded)
    _, without = after_one_step(tmp_path / "without", family, 0.0, excluded)
    for name, weight in before.items():
        is_free = any(re.search(NAMES[kind], name, re.IGNORECASE) for kind in excluded)
        expected = torch.zeros_like(weight) if is_free else -RATE * DECAY * weight
        assert torch.allclose(with_decay[name] - without[name], expected, atol=1e-6), name


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_optimizer__steps_as_that_of_torch_with_its_defaults(tmp_path: Path, name: str) -> None:
    """One step by hand: the gradient of the mean loss of the first batch."""
    optimizer = {"name": name, "weight_decay_exclude": []}
    run = make_run(tmp_path, TEXT, optimizer=optimizer, max_steps=1, gradient_clipping=None)
    told, model = observed(run), run.fresh_model()
    theirs = TORCH[name](list(model.parameters()), RATE)
    rows = run.corpus.rows("train", 16)
    order = np.random.Generator(np.random.PCG64([run.effective.seed, 0])).permutation(len(rows))
    batch = rows.batch(order[:4])
    loss = torch.nn.functional.cross_entropy(model.forward(batch.inputs).flatten(0, 1), batch.targets.flatten())
    torch.autograd.backward([loss])
    theirs.step()
    assert all(map(partial(torch.allclose, atol=1e-6), told.model.parameters(), model.parameters()))
    assert math.isclose(losses(told.rows)[0], float(loss.detach()), rel_tol=1e-6)


def test_optimizer__uses_the_values_that_are_given(tmp_path: Path) -> None:
    still = make_run(tmp_path, TEXT, optimizer={"name": "adamw", "weight_decay": 0.0, "eps": 1e9}, max_steps=3)
    pairs = zip(still.fresh_model().parameters(), observed(still).model.parameters(), strict=True)
    assert 0 < max(float((a.detach() - b.detach()).abs().max()) for a, b in pairs) < 1e-6


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, [1.0, 1.0, 1.0, 1.0]),
        ({"lr_schedule": "linear"}, [1.0, 0.75, 0.5, 0.25]),
        ({"lr_schedule": "linear", "warmup_steps": 2}, [0.5, 1.0, 1.0, 0.5]),
        ({"lr_schedule": "cosine"}, [(1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]),
        ({"warmup_ratio": 0.5}, [0.5, 1.0, 1.0, 1.0]),
        ({"warmup_ratio": 0.3}, [0.5, 1.0, 1.0, 1.0]),
        ({"warmup_steps": 8}, [1 / 8, 2 / 8, 3 / 8, 4 / 8]),
        ({"lr_schedule": "linear", "warmup_steps": 4}, [0.25, 0.5, 0.75, 1.0]),
        ({"lr_schedule": "linear", "min_learning_rate": 0.004}, [1.0, 0.8, 0.6, 0.4]),
        ({"lr_schedule": "linear", "min_learning_rate": 0.02}, [1.0, 1.0, 1.0, 1.0]),
        (
            {"lr_schedule": "cosine", "min_learning_rate": 0.004, "warmup_steps": 1},
            [1.0, *(0.2 + 0.8 * (1 + math.cos(math.pi * k / 3)) / 2 for k in range(3))],
        ),
    ],
)
def test_learning_rate__follows_its_schedule(values: dict[str, object], expected: list[float]) -> None:
    effective = effective_of("lstm", learning_rate=0.02, **values)
    rates = [learning_rate(step, 4, effective) for step in range(4)]
    assert rates == pytest.approx([0.02 * share for share in expected])


def test_learning_rate__of_the_curve_is_the_one_that_was_used(tmp_path: Path) -> None:
    told = observed(make_run(tmp_path, TEXT, lr_schedule="linear", log_every_steps=1))
    total = told.progress[-1].total_steps
    assert [row.lr for row in told.rows] == pytest.approx([0.01 * (1 - k / total) for k in range(total)])


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
