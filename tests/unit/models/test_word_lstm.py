"""The word-level LSTM as its requirements describe it: vocabulary, rows, layers, guards, first weights."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tests.support.families import vocabulary
from tests.support.tiny_models import make_run, write
from trainer.contracts.models import RnnArchitecture, RnnConfig
from trainer.contracts.tokenizers import Normalization
from trainer.data.corpus import read_lines
from trainer.models import build
from trainer.models.base import LanguageModel
from trainer.training.batches import NO_TARGET

ARCHITECTURES: list[RnnArchitecture] = ["lstm", "gru", "rnn"]
WORDS: dict[str, object] = {"model_family": "lstm", "tokenizer": {"method": "word"}, "max_seq_len": 8}
V, T, B = 100, 20, 8


def keyboard_model(architecture: RnnArchitecture = "lstm", *, layers: int = 2, dropout: float = 0.2) -> LanguageModel:
    torch.manual_seed(3)
    config = RnnConfig(
        architecture=architecture,
        embedding_size=256,
        hidden_size=512,
        num_layers=layers,
        dropout=dropout,
        initialization="keyboard",
    )
    return build(config, vocabulary(V))


def test_documents__of_three_lines_of_which_one_is_empty_have_exactly_two_ends(tmp_path: Path) -> None:
    run = make_run(tmp_path, [f"a b c {'d' * i}" for i in range(20)], **WORDS)
    lines = read_lines(write(tmp_path, ["a b", "", "c"], "three.txt"), Normalization())
    ids: list[int] = run.tokenizer.encode_documents("\n".join(lines)).tolist()
    assert ids.count(run.tokenizer.special_ids.eos) == 2
    assert run.tokenizer.tokens(ids) == ["a", "b", "<eos>", "c", "<eos>"]


def test_batches__hold_inputs_and_the_same_one_word_on(tmp_path: Path) -> None:
    run = make_run(tmp_path, [f"the word{i % 7} of line {i % 3}" for i in range(40)], **WORDS)
    rows = run.corpus.rows("train", 8)
    for start in range(0, len(rows), 4):
        batch = rows.batch(np.arange(start, min(start + 4, len(rows))))
        x, y = batch.inputs, batch.targets
        assert x.shape == y.shape == (len(x), 8)
        predicted = y != NO_TARGET  # all but what fills up the last row
        assert torch.equal(y[:, :-1][predicted[:, :-1]], x[:, 1:][predicted[:, :-1]])
        assert bool(predicted[:-1].all())


def test_model__is_embedding_lstm_linear_with_finite_logits_of_every_word() -> None:
    model = keyboard_model()
    ids = torch.randint(V, (B, T))
    logits = model.forward(ids)
    loss = nn.functional.cross_entropy(logits.reshape(B * T, V), ids.reshape(B * T))
    torch.autograd.backward([loss])
    kinds = [type(part).__name__ for part in model.children() if not isinstance(part, nn.Dropout)]
    assert kinds == ["Embedding", "LSTM", "Linear"]
    assert logits.shape == (B, T, V)
    assert bool(torch.isfinite(logits).all())
    assert math.isclose(float(loss.detach()), math.log(V), rel_tol=0.05)
    assert all(weight.grad is not None for weight in model.parameters())


def test_parameters__are_those_of_the_results_table() -> None:
    assert keyboard_model().parameter_count() == 3_678_208 + 769 * V


@pytest.mark.parametrize("field", ["embedding_size", "hidden_size", "num_layers"])
@pytest.mark.parametrize("value", [0, -1])
def test_constructor__refuses_sizes_that_are_none(field: str, value: int) -> None:
    sizes: dict[str, object] = {"embedding_size": 8, "hidden_size": 8, "num_layers": 1}
    wrong = sizes | {"architecture": "lstm", field: value}
    with pytest.raises(ValidationError, match=rf"{field}\n.*must be > 0") as caught:
        RnnConfig.model_validate(wrong)
    assert isinstance(caught.value, ValueError)


def test_constructor__refuses_a_dropout_below_zero_and_a_vocabulary_without_a_word() -> None:
    with pytest.raises(ValueError, match=r"dropout\n.*must be >= 0"):
        RnnConfig(architecture="lstm", embedding_size=8, hidden_size=8, num_layers=1, dropout=-0.1)
    config = RnnConfig(architecture="lstm", embedding_size=8, hidden_size=8, num_layers=1)
    for size in (0, -3):
        with pytest.raises(ValueError, match=f"vocab_size must be > 0, got {size}"):
            build(config, vocabulary(size))


def test_input__that_is_not_two_dimensional_or_no_integers_is_refused() -> None:
    model = keyboard_model()
    with pytest.raises(ValueError, match=r"Expected x with shape \(B, T\), got \(20,\)"):
        model.forward(torch.zeros(20, dtype=torch.long))
    with pytest.raises(TypeError, match=r"Expected x of dtype torch\.int64, got torch\.float32"):
        model.forward(torch.zeros(8, 20))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_first_weights__are_uniform_xavier_orthogonal_and_zero(architecture: RnnArchitecture) -> None:
    for name, tensor in keyboard_model(architecture).named_parameters():
        weight = tensor.detach().double()
        if "bias" in name:
            assert not weight.any(), name
        elif "weight_hh" in name:  # (gates x H, H): its columns are orthonormal
            assert torch.allclose(weight.T @ weight, torch.eye(512, dtype=torch.float64), atol=1e-4), name
        else:  # uniform between -limit and limit, so of variance limit^2 / 3
            limit = 0.1 if name == "embedding.weight" else math.sqrt(6 / sum(weight.shape))
            assert 0.99 * limit < float(weight.abs().max()) <= limit * (1 + 1e-6), name
            assert float(weight.var()) == pytest.approx(limit**2 / 3, rel=0.05), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("layers", [1, 2])
def test_dropout__is_before_the_output_and_in_training_only(architecture: RnnArchitecture, layers: int) -> None:
    model = keyboard_model(architecture, layers=layers, dropout=0.4).train()
    read: list[Tensor] = []

    def keep(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        read.append(given[0].detach())

    hook = dict(model.named_children())["projection"].register_forward_pre_hook(keep)
    model.forward(torch.randint(V, (B, T)))
    hook.remove()
    assert float((read[0] == 0).double().mean()) == pytest.approx(0.4, abs=0.02)
    ids = torch.randint(V, (2, 5))
    assert not torch.equal(model.forward(ids), model.forward(ids))
    model.eval()
    assert torch.equal(model.forward(ids), model.forward(ids))
