"""The contract of every model family: shapes, causality or its opposite, learning, saving, resuming, padding."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.support.families import (
    CAUSAL,
    CHAR_IDS,
    FAMILIES,
    MASKED,
    OTHERS,
    POSITIONS,
    QUICK,
    TRANSFORMERS,
    VOCABULARY,
    config_of,
    effective_of,
    model_of,
    vocabulary,
    with_vocabulary,
)
from tests.support.markers import slow_except
from tests.support.tiny_models import char_tokenizer, make_run, tensor_of
from tests.support.trainings import TEXT, after, digest, figures, observed, timeless
from trainer.contracts.models import RnnConfig
from trainer.inference.model_files import load_model, save_model
from trainer.models import build
from trainer.models.base import LanguageModel, concatenate_states, select_rows
from trainer.tokenizers.base import Ids
from trainer.training.batches import Masking, Rows

IDS = tensor_of([[2, 5, 9, 8, 3, 2, 6, 7, 11, 12]])


@pytest.mark.parametrize("name", FAMILIES)
def test_forward__gives_finite_logits_of_every_token_at_every_place(name: str) -> None:
    ids = torch.randint(VOCABULARY.size, (3, 10))
    logits = model_of(name).forward(ids)
    assert logits.shape == (3, 10, VOCABULARY.size)
    assert bool(torch.isfinite(logits).all())


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient__reaches_every_weight(name: str) -> None:
    model = model_of(name).train()
    torch.autograd.backward([model.forward(IDS).log_softmax(-1)[0, :, 5].sum()])
    gradients = {weight: parameter.grad for weight, parameter in model.named_parameters()}
    assert [weight for weight, gradient in gradients.items() if gradient is None] == []
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients.values() if gradient is not None)


@pytest.mark.parametrize("name", CAUSAL)
def test_causality__a_token_changes_later_logits_and_none_before(name: str) -> None:
    model = model_of(name)
    changed = IDS.clone()
    changed[0, 4] = 10
    with torch.inference_mode():
        before, after_change = model.forward(IDS)[0], model.forward(changed)[0]
    assert torch.equal(before[:4], after_change[:4])
    for t in range(4, IDS.shape[1]):
        assert not torch.allclose(before[t], after_change[t])


@pytest.mark.parametrize("name", MASKED)
def test_both_sides__a_token_changes_the_logits_before_it_too(name: str) -> None:
    model = model_of(name)
    changed = IDS.clone()
    changed[0, 4] = 10
    with torch.inference_mode():
        before, after_change = model.forward(IDS)[0], model.forward(changed)[0]
    assert not any(torch.allclose(before[t], after_change[t]) for t in range(IDS.shape[1]))


@pytest.mark.parametrize("name", FAMILIES)
def test_padding_and_neighbours__change_nothing(name: str) -> None:
    model = model_of(name)
    lengths = tensor_of([[6, 10, 9]])[0]
    batch = IDS.repeat(3, 1)
    batch[0, 6:] = CHAR_IDS.filler
    batch[1] = 7
    batch[2, 9:] = 11
    with torch.inference_mode():
        alone = model.forward(IDS[:, :6])[0]
        together = model.forward(batch, lengths)[0, :6]
    assert torch.allclose(alone, together, atol=1e-5)


@pytest.mark.parametrize("name", CAUSAL)
def test_state__step_by_step_the_answer_is_that_of_the_whole_sequence(name: str) -> None:
    model = model_of(name)
    ids = torch.randint(VOCABULARY.size, (3, 12))
    with torch.inference_mode():
        whole = model.forward(ids)
        answer, state = model.forward_with_state(ids[:, :5], model.initial_state(3))
        answers = [answer]
        for t in range(5, 12):
            answer, state = model.forward_with_state(ids[:, t : t + 1], state)
            answers.append(answer)
    assert float((whole - torch.cat(answers, dim=1)).abs().max()) < 1e-5


@pytest.mark.parametrize("name", CAUSAL)
def test_states__of_sequences_of_different_lengths_go_on_together(name: str) -> None:
    model = model_of(name)
    ids = torch.randint(VOCABULARY.size, (2, 12))
    with torch.inference_mode():
        whole = model.forward(ids)
        states = [model.forward_with_state(ids[i : i + 1, :n], model.initial_state(1))[1] for i, n in ((0, 3), (1, 8))]
        state = select_rows(concatenate_states(states), [1, 0])
        for k in range(3):
            fed = torch.stack([ids[1, 8 + k], ids[0, 3 + k]]).unsqueeze(-1)
            answer, state = model.forward_with_state(fed, state)
            expected = torch.stack([whole[1, 8 + k], whole[0, 3 + k]])
            assert float((answer[:, 0] - expected).abs().max()) < 1e-5


@pytest.mark.parametrize("name", MASKED)
def test_state__of_a_model_that_reads_both_sides_there_is_none(name: str) -> None:
    model = model_of(name)
    with pytest.raises(ValueError, match="both sides"):
        model.initial_state(1)
    with pytest.raises(ValueError, match="both sides"):
        model.forward_with_state(IDS, ())


@pytest.mark.parametrize("name", FAMILIES)
def test_input__of_another_form_is_refused(name: str) -> None:
    model = model_of(name)
    with pytest.raises(ValueError, match=r"Expected x with shape \(B, T\), got \(10,\)"):
        model.forward(IDS[0])
    with pytest.raises(TypeError, match=r"Expected x of dtype torch\.int64, got torch\.int32"):
        model.forward(IDS.int())


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_input__longer_than_the_positions_is_refused(name: str) -> None:
    model = model_of(name)
    assert model.context_tokens == POSITIONS
    with pytest.raises(ValueError, match=f"{POSITIONS} tokens at most, got {POSITIONS + 1}"):
        model.forward(torch.ones(1, POSITIONS + 1, dtype=torch.long))


def test_vocabulary__without_a_token_is_refused() -> None:
    with pytest.raises(ValueError, match="vocab_size must be > 0"):
        build(*with_vocabulary("lstm", vocabulary(0)))


@pytest.mark.parametrize("name", FAMILIES)
def test_evaluation__draws_nothing_and_training_does(name: str) -> None:
    model = model_of(name)
    assert torch.equal(model.forward(IDS), model.forward(IDS))
    if name not in ("gpt2", "bert", *OTHERS):  # of which the small ones have no dropout
        model.train()
        assert not torch.equal(model.forward(IDS), model.forward(IDS))


@pytest.mark.parametrize("name", FAMILIES)
def test_fresh_model__is_within_five_percent_of_uniform(name: str) -> None:
    model = model_of(name, vocabulary(67, mask=4), lively=False)
    with torch.inference_mode():
        log_p = model.forward(torch.randint(67, (8, 20))).log_softmax(-1)
    assert math.isclose(-float(log_p.mean()), math.log(67), rel_tol=0.05)


@pytest.mark.parametrize("name", FAMILIES)
def test_seed__gives_the_same_first_weights(name: str) -> None:
    assert digest(model_of(name, lively=False)) == digest(model_of(name, lively=False))


@pytest.mark.parametrize("name", FAMILIES)
def test_load__gives_the_same_logits_bit_for_bit(tmp_path: Path, name: str) -> None:
    tokenizer = char_tokenizer(["abcdefgh"], mask_token=True)
    model = model_of(name)
    save_model(tmp_path, model, config_of(name)[0])
    tokenizer.save(tmp_path / "tokenizer")
    loaded, _ = load_model(tmp_path)
    with torch.inference_mode():
        assert torch.equal(model.forward(IDS), loaded.forward(IDS))
    assert (loaded.objective, loaded.vocabulary) == (model.objective, VOCABULARY)


def batches(name: str, ids: Ids, length: int) -> Rows:
    masking = Masking(VOCABULARY, 4, 0.15, 1) if name in MASKED else None
    return Rows(ids, length, CHAR_IDS, masking)


def learned(model: LanguageModel, rows: Rows, *, steps: int, at_once: int, rate: float, passes: bool) -> list[float]:
    """Train on the rows, one batch after another; each is seen once, or with `passes` the first one again and again."""
    optimizer = torch.optim.Adam(list(model.parameters()), lr=rate)
    losses: list[float] = []
    for step in range(steps):
        first = 0 if passes else step * at_once
        batch = rows.batch(np.arange(first, first + at_once))
        logits = model.forward(batch.inputs, batch.lengths)
        loss = functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        optimizer.zero_grad()
        torch.autograd.backward([loss])
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def noise(count: int) -> Ids:
    return np.random.Generator(np.random.PCG64(3)).integers(5, 13, size=count).astype(np.uint8)


@pytest.mark.parametrize("name", slow_except(FAMILIES, *QUICK))
def test_learning__one_batch_is_learned_by_heart(name: str) -> None:
    model = model_of(name, lively=False)
    losses = learned(model, batches(name, noise(4 * 12 + 1), 12), steps=150, at_once=4, rate=0.02, passes=True)
    assert losses[0] > 1.5
    assert min(losses[-10:]) < 0.5


@pytest.mark.parametrize("name", slow_except(FAMILIES, *QUICK))
def test_noise__is_learned_by_no_family(name: str) -> None:
    model = model_of(name, lively=False).train()
    losses = learned(model, batches(name, noise(16 * 60 * 16 + 1), 16), steps=60, at_once=16, rate=0.01, passes=False)
    assert sum(losses[-20:]) / 20 > math.log(8) - 0.05


@pytest.mark.parametrize("name", slow_except(["lstm both", "gru both"], "lstm both"))
def test_noise__would_be_learned_where_the_target_is_in_sight(name: str) -> None:
    model = model_of(name, lively=False)
    rows = Rows(noise(16 * 120 * 16 + 1), 16, CHAR_IDS)
    losses = learned(model, rows, steps=120, at_once=16, rate=0.02, passes=False)
    assert sum(losses[-10:]) / 10 < math.log(8) - 0.3


def run_values(name: str) -> dict[str, object]:
    return {"learning_rate": 0.01, "max_seq_len": 16, **FAMILIES[name], "tokenizer": {"method": "char"}}


@pytest.mark.parametrize("name", slow_except(FAMILIES, *QUICK))
def test_resume__goes_on_bit_for_bit(tmp_path: Path, name: str) -> None:
    values: dict[str, object] = {**run_values(name), "num_epochs": 2, "max_steps": 30, "checkpoint_every_steps": 4}
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = observed(make_run(tmp_path / "whole", TEXT[:30], **values))
    run = make_run(tmp_path / "parts", TEXT[:30], **values)
    first = observed(run, should_stop=after(9, "pause"))
    torch.manual_seed(99)
    then = observed(run, resume=True)
    assert first.result.stopped == "pause"
    kept = [row for row in first.rows if row.step <= first.result.state.curve.step]
    assert timeless(kept + then.rows) == timeless(whole.rows)
    assert digest(then.model) == digest(whole.model)
    assert figures(then.result) == figures(whole.result)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients__two_batches_of_four_are_one_of_eight(tmp_path: Path, name: str) -> None:
    values: dict[str, object] = {**run_values(name), "optimizer": {"name": "sgd"}, "learning_rate": 0.1}
    sizes: dict[str, object] = effective_of(name).model.model_dump(exclude={"max_position_embeddings", "architecture"})
    without_draws: dict[str, object] = {
        field: 0.0 if field.endswith("dropout") else size for field, size in sizes.items()
    }
    values |= {"model": without_draws, "max_steps": 4}
    weights: list[Tensor] = []
    for batch_size, accumulation in ((8, 1), (4, 2)):
        folder = tmp_path / str(batch_size)
        folder.mkdir()
        run = make_run(folder, TEXT[:30], **values, batch_size=batch_size, gradient_accumulation=accumulation)
        told = observed(run)
        weights.append(torch.cat([weight.detach().flatten() for weight in told.model.parameters()]))
    assert float((weights[0] - weights[1]).abs().max()) < 1e-5


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_gradient_checkpointing__changes_no_number(tmp_path: Path, name: str) -> None:
    values: dict[str, object] = {**run_values(name), "max_steps": 3}
    digests: list[str] = []
    for checkpointed in (False, True):
        folder = tmp_path / str(checkpointed)
        folder.mkdir()
        run = make_run(folder, TEXT[:30], **values, compute={"gradient_checkpointing": checkpointed})
        digests.append(digest(observed(run).model))
    assert digests[0] == digests[1]


def test_gradient_checkpointing__is_for_transformers() -> None:
    with pytest.raises(ValueError, match="for transformers"):
        model_of("lstm").checkpoint_gradients()


def test_two_directions__double_the_width_before_the_head() -> None:
    one, both = model_of("lstm"), model_of("lstm both")
    widths = [dict(model.named_parameters())["projection.weight"].shape[1] for model in (one, both)]
    assert widths == [16, 32]


def test_parameters__of_an_lstm_are_more_than_of_a_gru_and_of_a_plain_rnn() -> None:
    counts = [model_of(name).parameter_count() for name in ("lstm", "gru", "rnn")]
    assert counts == sorted(counts, reverse=True) and len(set(counts)) == 3


@pytest.mark.parametrize("architecture", ["lstm", "gru", "rnn"])
def test_two_directions__are_one_forward_and_one_over_the_reversed_text(architecture: str) -> None:
    """One layer in two directions is two layers of one, of which the second reads the text from its end."""
    name = f"{architecture} both"
    config = config_of(name)[0]
    assert isinstance(config, RnnConfig)
    torch.manual_seed(2)
    both = build(config.model_copy(update=_ONE_LAYER), VOCABULARY, "masked_lm").eval()
    one = build(config.model_copy(update=_ONE_LAYER | _ONE_WAY), VOCABULARY).eval()
    weights: dict[str, Tensor] = both.state_dict()
    half = config.hidden_size
    logits = torch.zeros(1, IDS.shape[1], VOCABULARY.size)

    for backwards in (False, True):
        of_direction = {k: v for k, v in weights.items() if not k.startswith("layers.")}
        of_direction |= {
            k.removesuffix("_reverse"): v
            for k, v in weights.items()
            if k.startswith("layers.") and k.endswith("_reverse") == backwards
        }
        of_direction["projection.weight"] = weights["projection.weight"][:, half * backwards :][:, :half]
        if backwards:
            of_direction["projection.bias"] = torch.zeros(VOCABULARY.size)
        one.load_state_dict(of_direction)
        with torch.inference_mode():
            logits = logits + (one.forward(IDS.flip(1)).flip(1) if backwards else one.forward(IDS))

    with torch.inference_mode():
        assert torch.allclose(both.forward(IDS), logits, atol=1e-5)


_ONE_LAYER: dict[str, object] = {"num_layers": 1, "dropout": 0.0}
_ONE_WAY: dict[str, object] = {"bidirectional": False}


def test_documentation__counts_the_parameters_of_every_preset() -> None:
    text = (Path(__file__).parents[3] / "docs" / "architectures.md").read_text(encoding="utf-8")
    for family in ("char_lstm", "lstm", "gru", "rnn", "gpt2", "bert", "llama", "qwen"):
        counts: list[str] = []
        for size in ("tiny", "small", "base", "paper"):
            values: dict[str, object] = {"model_size": size, "model": None, "max_seq_len": 256}
            effective = effective_of(family, **values)
            with torch.device("meta"):
                model = build(effective.model, vocabulary(100, mask=4), effective.objective)
            counts.append(f"{model.parameter_count():,}")
        assert f"| {family} | {' | '.join(counts)} |" in text
