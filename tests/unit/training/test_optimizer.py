"""Weight decay reaches the chosen parameters of every family, and no others."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.families import FAMILIES
from tests.support.tiny_models import POEM, make_run
from trainer.training.device import seed_everything

RATE, DECAY = 0.01, 0.5
NAMES = {
    "bias": r"bias",
    "norm": r"(norm\w*|ln_\w)\.weight$",
    "embedding": r"(embeddings?|embed_tokens|wte|wpe)\.weight$",
}
"""Names of the weights of each kind, here and in the library."""


def after_one_step(folder: Path, family: str, decay: float, excluded: list[str]) -> tuple[dict[str, Tensor], ...]:
    """All weights of a model before and after a step of AdamW; none of them is zero before."""
    folder.mkdir()
    optimizer: dict[str, object] = {"weight_decay": decay, "weight_decay_exclude": excluded}
    fields: dict[str, object] = {
        **FAMILIES[family],
        "tokenizer": {"method": "char"},
        "optimizer": optimizer,
        "max_steps": 1,
    }
    run = make_run(folder, POEM, **fields, learning_rate=RATE)
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
