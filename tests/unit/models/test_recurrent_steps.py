"""Steps of one token at a time give the logits of the plain forward pass, whichever sequences read, leave or wait."""

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
import torch

from tests.support.families import CAUSAL, POSITIONS, VOCABULARY, model_of
from tests.support.tiny_models import tensor_of
from trainer.models import linear
from trainer.models.base import ForwardSteps, LanguageModel, concatenate_states

pytestmark = pytest.mark.parametrize("is_intel", [True, False], ids=["intel", "amd"])


@pytest.fixture(autouse=True)
def _take_the_products_of_a_cpu(monkeypatch: pytest.MonkeyPatch, is_intel: bool) -> None:
    monkeypatch.setattr(linear, "IS_INTEL", is_intel)


def compare_steps(model: LanguageModel, lengths: Sequence[int]) -> None:
    """Let sequences with a prompt of each length read tokens, wait, and leave; compare the logits after each step."""
    random, states = Random(7), []
    with torch.inference_mode():
        for length in lengths:
            ids = tensor_of([[random.randrange(model.vocab_size) for _ in range(length)]])
            states.append(model.forward_with_state(ids, model.initial_state(1))[1])
        state = concatenate_states(states)
    fast, plain = model.steps(state), ForwardSteps(model, tuple(part.clone() for part in state))
    rows = list(range(len(lengths)))
    for step in range(POSITIONS - max(lengths)):
        reading = rows if step % 3 else sorted(random.sample(rows, random.randint(1, len(rows))))
        tokens = [random.randrange(model.vocab_size) for _ in reading]
        np.testing.assert_allclose(fast.read(tokens, reading), plain.read(tokens, reading), rtol=1e-5, atol=5e-5)
        if step == 4 and len(rows) > 1:
            kept = rows[1:]
            fast.keep(kept)
            plain.keep(kept)
            rows = rows[: len(kept)]


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
