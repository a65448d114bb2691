"""The contract of every model family: shapes, causality or its opposite, learning, saving, resuming, padding."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.support import ROOT
from tests.support.answers import WITH_MASK
from tests.support.families import (
    CAUSAL,
    CHAR_IDS,
    CONTINUING,
    EVERY,
    FAMILIES,
    MASKED,
    OTHERS,
    POSITIONS,
    TRANSFORMERS,
    VOCABULARY,
    config_of,
    effective_of,
    model_of,
    slow_unless_quick,
    vocabulary,
    with_vocabulary,
)
from tests.support.markers import slow_except
from tests.support.resumed import assert_continued
from tests.support.tiny_models import Run, make_run, tensor_of
from tests.support.torch_calls import TorchCalls
from tests.support.trainings import TEXT, after, digest, observed
from trainer.inference.model_files import load_model, save_model
from trainer.models import build
from trainer.models.steps import concatenate_states, select_rows
from trainer.tokenizers.base import Ids
from trainer.training.batches import Masking, Rows

IDS = tensor_of([[2, 5, 9, 8, 3, 2, 6, 7, 11, 12]])
every_family = pytest.mark.parametrize("name", slow_unless_quick(FAMILIES))
every_model = pytest.mark.parametrize("name", slow_unless_quick(EVERY))
every_continuing_model = pytest.mark.parametrize("name", slow_unless_quick(CONTINUING))


@every_family
def test_gradient__reaches_every_weight_from_finite_logits(name: str) -> None:
    model = model_of(name).train()
    logits = model.forward(IDS.repeat(3, 1))
    assert logits.shape == (3, 10, VOCABULARY.size)
    assert bool(torch.isfinite(logits).all())
    torch.autograd.backward([logits.log_softmax(-1)[0, :, 5].sum()])
    for weight, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), weight


@every_family
def test_causality__a_token_changes_later_logits_and_of_masked_models_all(name: str) -> None:
    model, changed = model_of(name), IDS.clone()
    changed[0, 4] = 10
    with torch.inference_mode():
        before, after_change = model.forward(IDS)[0], model.forward(changed)[0]
    first = 4 if name in CAUSAL else 0
    assert torch.equal(before[:first], after_change[:first])
    assert not any(torch.allclose(before[t], after_change[t]) for t in range(first, IDS.shape[1]))


@every_model
def test_padding_and_neighbours__change_nothing(name: str) -> None:
    model, batch = model_of(name), IDS.repeat(3, 1)
    batch[0, 6:] = CHAR_IDS.filler
    batch[1] = 7
    batch[2, 9:] = 11
    with torch.inference_mode():
        alone = model.forward(IDS[:, :6])[0]
        together = model.forward(batch, tensor_of([[6, 10, 9]])[0])[0, :6]
    assert torch.allclose(alone, together, atol=1e-5)


@every_continuing_model
def test_states__alone_or_together_answer_as_the_complete_sequence(name: str) -> None:
    model = model_of(name)
    ids = torch.randint(VOCABULARY.size, (3, 12))
    with torch.inference_mode():
        complete = model.forward(ids)
        state, answers = model.initial_state(3), list[Tensor]()
        for first, end in pairwise([0, 5, 8, 9, 10, 11, 12]):
            answer, state = model.forward_with_state(ids[:, first:end], state)
            answers.append(answer)
        assert float((complete - torch.cat(answers, dim=1)).abs().max()) < 1e-5
        states = [model.forward_with_state(ids[i : i + 1, :n], model.initial_state(1))[1] for i, n in ((0, 3), (1, 8))]
        state = select_rows(concatenate_states(states), [1, 0])
        for k in range(3):
            read = torch.stack([ids[1, 8 + k], ids[0, 3 + k]]).unsqueeze(-1)
            answer, state = model.forward_with_state(read, state)
            expected = torch.stack([complete[1, 8 + k], complete[0, 3 + k]])
            assert float((answer[:, 0] - expected).abs().max()) < 1e-5


@every_model
def test_input__of_another_form_is_refused(name: str) -> None:
    model = model_of(name)
    with pytest.raises(ValueError, match=r"Expected x with shape \(B, T\), got \(10,\)"):
        model.forward(IDS[0])
    for dtype in (torch.int32, torch.float32):
        with pytest.raises(TypeError, match=rf"Expected x of dtype torch\.int64, got {dtype}"):
            model.forward(IDS.to(dtype))
    if name in TRANSFORMERS:
        assert model.context_tokens == POSITIONS
        with pytest.raises(ValueError, match=f"{POSITIONS} tokens at most, got {POSITIONS + 1}"):
            model.forward(torch.ones(1, POSITIONS + 1, dtype=torch.long))
    if name in MASKED:  # it has no state
        with pytest.raises(ValueError, match="both sides"):
            model.initial_state(1)
        with pytest.raises(ValueError, match="both sides"):
            model.forward_with_state(IDS, ())


def test_model__of_no_vocabulary_or_nothing_to_checkpoint_is_refused() -> None:
    for size in (0, -3):
        with pytest.raises(ValueError, match=f"vocab_size must be > 0, got {size}"):
            build(*with_vocabulary("lstm", vocabulary(size)))
    with pytest.raises(ValueError, match="for transformers"):
        model_of("lstm").checkpoint_gradients()


@every_family
def test_fresh_model__is_nearly_uniform_and_draws_in_training_only(name: str) -> None:
    model, again = (model_of(name, vocabulary(67, mask=4), lively=False) for _ in range(2))
    with torch.inference_mode():
        log_p = model.forward(torch.randint(67, (8, 20))).log_softmax(-1)
    assert math.isclose(-float(log_p.mean()), math.log(67), rel_tol=0.05)
    assert digest(model) == digest(again), "its seed decides all of it"
    assert torch.equal(model.forward(IDS), model.forward(IDS))
    if name not in ("gpt2", "bert", *OTHERS):  # of which the small ones have no dropout
        model.train()
        assert not torch.equal(model.forward(IDS), model.forward(IDS))


@every_model
def test_load__gives_the_same_logits_bit_for_bit(tmp_path: Path, name: str) -> None:
    model = model_of(name)
    save_model(tmp_path, model, model.built_from)
    WITH_MASK.save(tmp_path / "tokenizer")
    loaded, tokenizer = load_model(tmp_path)
    with torch.inference_mode():
        assert torch.equal(model.forward(IDS), loaded.forward(IDS))
    assert (loaded.objective, loaded.vocabulary) == (model.objective, VOCABULARY)
    assert tokenizer.manifest == WITH_MASK.manifest
    assert not loaded.training
    weights: dict[str, Tensor] = loaded.state_dict()
    assert {weight.device.type for weight in weights.values()} == {"cpu"}


def noise(count: int) -> Ids:
    return np.random.Generator(np.random.PCG64(3)).integers(5, 13, size=count).astype(np.uint8)


def train(name: str, rows: Rows, steps: int, size: int, rate: float, *, repeats: bool = False) -> list[float]:
    """Train a fresh model on the rows, each seen once, or with `repeats` on the first batch again and again."""
    model = model_of(name, lively=False).train(not repeats)
    optimizer = torch.optim.Adam(list(model.parameters()), lr=rate)
    losses: list[float] = []
    for step in range(steps):
        first = 0 if repeats else step * size
        batch = rows.batch(np.arange(first, first + size))
        logits = model.forward(batch.inputs, batch.lengths)
        loss = functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        optimizer.zero_grad()
        torch.autograd.backward([loss])
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def masking_of(name: str) -> Masking | None:
    return Masking(VOCABULARY, 4, 0.15, 1) if name in MASKED else None


@pytest.mark.parametrize("name", slow_unless_quick(FAMILIES))
def test_learning__overfits_one_batch(name: str) -> None:
    losses = train(name, Rows(noise(49), 12, CHAR_IDS, masking_of(name)), 150, 4, 0.02, repeats=True)
    assert losses[0] > 1.5
    assert min(losses[-10:]) < 0.5


@pytest.mark.parametrize("name", slow_unless_quick(FAMILIES))
def test_noise__is_learned_by_no_family(name: str) -> None:
    rows = Rows(noise(16 * 60 * 16 + 1), 16, CHAR_IDS, masking_of(name))
    assert sum(train(name, rows, 60, 16, 0.01)[-20:]) / 20 > math.log(8) - 0.05


@pytest.mark.parametrize("name", slow_except(["lstm both", "gru both"], "lstm both"))
def test_noise__would_be_learned_where_the_target_is_in_sight(name: str) -> None:
    rows = Rows(noise(16 * 120 * 16 + 1), 16, CHAR_IDS)
    assert sum(train(name, rows, 120, 16, 0.02)[-10:]) / 10 < math.log(8) - 0.3


def run_in(folder: Path, name: str, **values: object) -> Run:
    folder.mkdir()
    fields: dict[str, object] = {"learning_rate": 0.01, "max_seq_len": 16, "tokenizer": {"method": "char"}}
    return make_run(folder, TEXT[:30], **{**fields, **FAMILIES[name], **values})


@pytest.mark.parametrize("name", slow_unless_quick(FAMILIES))
def test_resume__continues_bit_for_bit(tmp_path: Path, name: str) -> None:
    values: dict[str, object] = {"num_epochs": 2, "max_steps": 30, "checkpoint_every_steps": 4}
    complete = observed(run_in(tmp_path / "complete", name, **values))
    run = run_in(tmp_path / "parts", name, **values)
    first = observed(run, should_stop=after(9, "pause"))
    torch.manual_seed(99)
    then = observed(run, resume=True)
    assert first.result.stopped == "pause"
    kept = [row for row in first.rows if row.step <= first.result.state.curve.step]
    assert_continued(complete, kept, then)


@every_family
def test_gradients__two_batches_of_four_are_one_of_eight(tmp_path: Path, name: str) -> None:
    sizes: dict[str, object] = effective_of(name).model.model_dump(exclude={"max_position_embeddings", "architecture"})
    sizes |= dict.fromkeys([field for field in sizes if field.endswith("dropout")], 0.0)
    values: dict[str, object] = {"learning_rate": 0.1, "optimizer": {"name": "sgd"}, "max_steps": 4}
    weights: list[Tensor] = []
    for batch_size, accumulation in ((8, 1), (4, 2)):
        batches: dict[str, object] = {"batch_size": batch_size, "gradient_accumulation": accumulation}
        run = run_in(tmp_path / str(batch_size), name, **values, **batches, model=sizes)
        weights.append(torch.cat([weight.detach().flatten() for weight in observed(run).model.parameters()]))
    assert float((weights[0] - weights[1]).abs().max()) < 1e-5


@pytest.mark.parametrize("name", slow_unless_quick(TRANSFORMERS))
def test_gradient_checkpointing__changes_no_number(tmp_path: Path, name: str) -> None:
    digests = {
        digest(observed(run_in(tmp_path / str(on), name, max_steps=3, compute={"gradient_checkpointing": on})).model)
        for on in (False, True)
    }
    assert len(digests) == 1


def test_documentation__counts_the_parameters_of_every_preset() -> None:
    text = (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8")
    for family in ("char_lstm", "lstm", "gru", "rnn", "gpt2", "bert", "llama", "qwen"):
        counts: list[str] = []
        for size in ("tiny", "small", "base", "paper"):
            effective = effective_of(family, model_size=size, model=None, max_seq_len=256)
            with torch.device("meta"):
                model = build(effective.model, vocabulary(100, mask=4), effective.objective)
            counts.append(f"{model.parameter_count():,}")
        assert f"| {family} | {' | '.join(counts)} |" in text


FUNCTIONS = "acos asin atan cos erf erfc erfinv exp lgamma log log10 log2 sin sqrt tan tanh".split()
"""Those that torch takes from MKL for numbers in a row (ATen/cpu/vml.h)."""


@pytest.mark.parametrize("name", slow_unless_quick(FAMILIES))
def test_first_call__of_each_function_has_one_number(name: str) -> None:
    config, objective = config_of(name)
    sizes: dict[str, int] = {}
    """The number of numbers in the first call of each function."""

    def note(function: str, args: tuple[object, ...]) -> None:
        if function in FUNCTIONS:
            shape: tuple[int, ...] = getattr(args[0], "shape")  # noqa: B009  (of any tensor)
            sizes.setdefault(function, math.prod(shape))

    with TorchCalls(note):
        model = build(config, VOCABULARY, objective)
        logits = model.forward(torch.randint(5, VOCABULARY.size, (3, POSITIONS)))
        torch.autograd.backward([logits.log_softmax(-1).exp().sum()])
    assert sizes.keys() >= {"cos", "exp", "sin", "tanh"}
    assert set(sizes.values()) == {1}
