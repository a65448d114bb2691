"""Optimizers step as torch's, weight decay reaches the chosen parameters, and rates follow their schedules."""

import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW

from tests.support import steady
from tests.support.families import FAMILIES, effective_of, model_of, slow_unless_quick
from tests.support.markers import slow_except
from tests.support.tiny_models import POEM, make_run
from tests.support.trainings import TEXT, losses, observed
from trainer.training.device import seed_everything
from trainer.training.muon import Blocks, hidden_matrices
from trainer.training.optimizer import learning_rate

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


@pytest.mark.parametrize("excluded", slow_except([["bias", "norm"], ["embedding"], []], ["bias", "norm"]))
@pytest.mark.parametrize("family", ["char_lstm", "lstm both", "gpt2", "llama", "bert"])
def test_weight_decay__equals_adamw_for_all_that_is_not_excluded(
    tmp_path: Path, family: str, excluded: list[str]
) -> None:
    """AdamW decays by rate x decay x weight; its other step is the same with and without."""
    before, with_decay = after_one_step(tmp_path / "with", family, DECAY, excluded)
    _, without = after_one_step(tmp_path / "without", family, 0.0, excluded)
    for name, weight in before.items():
        is_free = any(re.search(NAMES[kind], name, re.IGNORECASE) for kind in excluded)
        expected = torch.zeros_like(weight) if is_free else -RATE * DECAY * weight
        assert torch.allclose(with_decay[name] - without[name], expected, atol=1e-6), name


@pytest.mark.parametrize("family", slow_unless_quick(FAMILIES))
def test_muon__is_for_the_matrices_of_hidden_layers(family: str) -> None:
    """All but embeddings and the output layer, which is a recurrent model's projection unless a tied head follows."""
    model = model_of(family)
    head = r"^head\.weight$" if hasattr(model, "head") or family == "char_lstm" else r"^projection\.weight$"
    weights, blocks = dict(model.named_parameters()), hidden_matrices(model)
    expected = {name for name, weight in weights.items() if weight.dim() == 2}
    expected -= {name for name in expected if re.search(f"{NAMES['embedding']}|{head}", name)}
    assert {name for name, weight in weights.items() if weight in blocks} == expected
    gates = {"lstm": 4, "char_lstm": 4, "gru": 3}.get(family.split()[0], 1)
    for name in expected:
        stacked = Blocks(3, dim=1) if "c_attn" in name else Blocks(gates if "layers.weight" in name else 1)
        assert blocks[weights[name]] == stacked, name


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
        ({"lr_schedule": "wsd"}, [1.0, 1.0, 1.0, 1.0]),
        ({"lr_schedule": "wsd", "decay_ratio": 0.6}, [1.0, 1.0, 2 / 3, 1 / 3]),
        ({"lr_schedule": "wsd", "decay_ratio": 1.0}, [1.0, 0.75, 0.5, 0.25]),
        ({"lr_schedule": "wsd", "decay_ratio": 0.5, "warmup_steps": 1, "min_learning_rate": 0.01}, [1, 1, 1, 0.75]),
        ({"lr_schedule": "wsd", "decay_ratio": 0.9, "warmup_steps": 2}, [0.5, 1.0, 1.0, 0.5]),
        ({"lr_schedule": "wsd", "warmup_steps": 9}, [1 / 9, 2 / 9, 3 / 9, 4 / 9]),
        (
            {"lr_schedule": "cosine", "min_learning_rate": 0.004, "warmup_steps": 1},
            [1.0, *(0.2 + 0.8 * (1 + math.cos(math.pi * k / 3)) / 2 for k in range(3))],
        ),
    ],
)
def test_learning_rate__follows_its_schedule(values: dict[str, object], expected: list[float]) -> None:
    effective = effective_of("lstm", learning_rate=0.02, **(steady(values) | values))
    rates = [learning_rate(step, 4, effective) for step in range(4)]
    assert rates == pytest.approx([0.02 * share for share in expected])


def test_learning_rate__of_wsd_falls_in_the_last_fifth() -> None:
    effective = effective_of("lstm", learning_rate=0.02, lr_schedule="wsd", warmup_steps=10)
    rates = [learning_rate(step, 50, effective) for step in range(9, 51)]
    assert rates == pytest.approx([0.02] * 31 + [0.02 * left / 10 for left in range(10, -1, -1)])


def test_learning_rate__of_the_curve_is_the_one_that_was_used(tmp_path: Path) -> None:
    told = observed(make_run(tmp_path, TEXT, lr_schedule="linear", log_every_steps=1))
    total = told.progress[-1].total_steps
    assert [row.lr for row in told.rows] == pytest.approx([0.01 * (1 - k / total) for k in range(total)])
