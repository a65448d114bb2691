"""Steps of one token at a time give the logits of the plain forward pass, whatever sequences read, leave or wait."""

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
import torch

from tests.support.families import CAUSAL, POSITIONS, VOCABULARY, model_of
from tests.support.tiny_models import tensor_of
from trainer.models import small_products
from trainer.models.base import ForwardSteps, LanguageModel, ModelState, concatenate_states
from trainer.models.small_products import product_into


def state_after(model: LanguageModel, lengths: Sequence[int], random: Random) -> ModelState:
    """Return the state after one prompt of each length."""
    with torch.inference_mode():
        states = []
        for length in lengths:
            ids = tensor_of([[random.randrange(model.vocab_size) for _ in range(length)]])
            states.append(model.forward_with_state(ids, model.initial_state(1))[1])
        return concatenate_states(states)


def compare_steps(model: LanguageModel, lengths: Sequence[int]) -> None:
    """Let sequences with a prompt of each length read tokens, stay, and leave; compare the logits after each step."""
    random = Random(7)
    state = state_after(model, lengths, random)
    fast, plain = model.steps(state), ForwardSteps(model, tuple(part.clone() for part in state))
    rows = list(range(len(lengths)))
    for step in range(POSITIONS - max(lengths)):
        reading = rows if step % 3 else sorted(random.sample(rows, random.randint(1, len(rows))))
        ids = [random.randrange(model.vocab_size) for _ in reading]
        np.testing.assert_allclose(fast.read(ids, reading), plain.read(ids, reading), rtol=1e-5, atol=5e-5)
        if step == 4 and len(rows) > 1:
            kept = rows[1:]
            fast.keep(kept)
            plain.keep(kept)
            rows = rows[: len(kept)]


pytestmark = pytest.mark.parametrize("is_intel", [True, False], ids=["intel", "amd"])


@pytest.fixture(autouse=True)
def _take_the_products_of_a_cpu(monkeypatch: pytest.MonkeyPatch, is_intel: bool) -> None:
    monkeypatch.setattr(small_products, "IS_INTEL", is_intel)


@pytest.mark.parametrize("rows", [1, 3, 2100])  # the last one is multiplied by torch
@pytest.mark.parametrize("is_contiguous", [True, False])
def test_product_into__gives_the_product(rows: int, is_contiguous: bool) -> None:
    draw = np.random.Generator(np.random.PCG64(1))
    inputs = draw.standard_normal((rows, 64), dtype=np.float32)
    weight = draw.standard_normal((64, 65) if is_contiguous else (65, 64), dtype=np.float32)
    weight = weight if is_contiguous else weight.T
    product = np.empty((rows, 65), dtype=np.float32)
    product_into(inputs, weight, product)()
    np.testing.assert_allclose(product, inputs.astype(np.float64) @ weight.astype(np.float64), atol=1e-4)


@pytest.mark.parametrize("lengths", [(1,), (3, 3), (2, 5, 1), (1, 4, 2, 2, 6, 3), (1, 2) * 9], ids=str)
@pytest.mark.parametrize("name", CAUSAL)
def test_steps__give_the_logits_of_the_forward_pass(name: str, lengths: tuple[int, ...]) -> None:
    compare_steps(model_of(name), lengths)


@pytest.mark.parametrize("name", ["lstm", "gru", "gpt2", "llama"])
def test_steps__give_the_logits_of_a_large_vocabulary(name: str) -> None:
    """The gates of all its tokens would take too much memory; torch multiplies by the matrix of the output layer."""
    compare_steps(model_of(name, VOCABULARY._replace(size=300_000)), (2, 5, 1))


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_steps__read_the_weights_of_the_last_training(name: str) -> None:
    model = model_of(name)
    size = model.memory_bytes()
    compare_steps(model, (2,))
    merged = model.memory_bytes() - size
    compare_steps(model, (3,))
    assert model.memory_bytes() == size + merged
    assert merged >= sum(weight.nbytes for name, weight in model.named_parameters() if "weight_hh" in name) > 0
    with torch.no_grad():
        model.train().input_embedding().weight.mul_(2)
    assert model.memory_bytes() == size
    compare_steps(model.eval(), (2,))


def test_steps_on_another_device__are_those_of_the_forward_pass() -> None:
    model = model_of("lstm").to("meta")
    assert isinstance(model.steps(model.initial_state(2)), ForwardSteps)
