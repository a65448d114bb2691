"""Loss, accuracy and statistics of a split, against sums made by hand."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.unit.data.support import POEM, Run, make_run, small_model
from tests.unit.models.reference import ReferenceModel, losses_by_hand, rows_by_hand
from trainer.contracts.errors import AppError, ErrorCode
from trainer.data.batches import Rows, masking
from trainer.data.corpus import SplitCorpus, SplitRule
from trainer.evaluation import (
    Evaluation,
    Measured,
    distinct,
    draw_samples,
    evaluate_rows,
    measure,
    perplexity,
    repetition_rate,
)
from trainer.models.base import LanguageModel


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> Run:
    return make_run(tmp_path, test_fraction=0.3, holdout_fraction=0.2)


def texts_of(run: Run) -> list[str]:
    rule = SplitRule(run.effective.holdout_fraction, run.effective.test_fraction, run.effective.seed)
    corpus = SplitCorpus(run.folder / "corpus.txt", run.tokenizer.normalization, rule)
    return list(corpus.lines("test"))


def lines_of(run: Run) -> list[list[int]]:
    return [run.tokenizer.encode(line) for line in texts_of(run)]


def evaluated(model: LanguageModel, run: Run, *, batch_size: int = 4, length: int = 16) -> Evaluation:
    return evaluate_rows(model, run.corpus.rows("test", length), run.compute._replace(batch_size=batch_size))


@pytest.mark.parametrize("architecture", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("length", [8, 16, 4096])
def test_loss__is_the_brute_force_mean_over_the_rows(run: Run, architecture: str, length: int) -> None:
    model = small_model(run.tokenizer.vocab_size, architecture)
    lines = lines_of(run)

    found = evaluated(model, run, length=length)

    expected = losses_by_hand(ReferenceModel(model, architecture), lines, length)
    assert found.tokens == len(expected) == sum(len(line) + 1 for line in lines)
    assert math.isclose(found.loss_nats, sum(expected) / len(expected), abs_tol=1e-5)
    assert math.isclose(perplexity(found.loss_nats), math.exp(sum(expected) / len(expected)), rel_tol=1e-4)


def test_accuracy__is_a_hand_count(run: Run) -> None:
    model = small_model(run.tokenizer.vocab_size)
    reference = ReferenceModel(model, "lstm")
    ranks: list[int] = []
    for row in rows_by_hand(lines_of(run), 16):
        answers = reference.log_probabilities([token for token, _ in row])
        ranks += [
            sum(v > p[target] for v in p) for p, (_, target) in zip(answers, row, strict=True) if target is not None
        ]

    found = evaluated(model, run)

    assert found.top1_hits == Counter(ranks)[0]
    assert found.top5_hits == sum(rank < 5 for rank in ranks)


def test_loss__does_not_depend_on_the_batch_size(run: Run) -> None:
    model = small_model(run.tokenizer.vocab_size)

    losses = [evaluated(model, run, batch_size=size).loss_nats for size in (1, 2, 3, 64)]

    assert max(losses) - min(losses) < 1e-5


def test_uniform_model__has_the_vocabulary_as_perplexity(run: Run) -> None:
    model = small_model(run.tokenizer.vocab_size)
    for weight in model.parameters():
        weight.detach().zero_()

    assert math.isclose(perplexity(evaluated(model, run).loss_nats), run.tokenizer.vocab_size, rel_tol=1e-5)


def test_evaluation__leaves_the_mode_of_the_model_alone(run: Run) -> None:
    model = small_model(run.tokenizer.vocab_size)

    evaluated(model.train(), run)

    assert model.training


def test_perplexity__of_an_absurd_loss_is_finite() -> None:
    assert math.isfinite(perplexity(1e6))


def test_measure__tells_what_the_lines_are(run: Run) -> None:
    model = small_model(run.tokenizer.vocab_size)
    lines, texts = lines_of(run), texts_of(run)

    metrics, samples = measure(
        model, run.tokenizer, run.corpus, "test", run.effective, run.compute, run_id="r", checkpoint="best"
    )

    lengths = sorted(len(line) for line in lines)
    assert metrics.loss == evaluated(model, run).loss_nats
    assert metrics.n_tokens == sum(lengths) + len(lines)
    assert metrics.n_chars == sum(len(text) for text in texts)
    assert math.isclose(metrics.bits_per_char, metrics.loss * metrics.n_tokens / metrics.n_chars / math.log(2))
    assert metrics.tokens_per_char == 1
    assert math.isclose(metrics.tokens_per_word, sum(lengths) / sum(len(text.split()) for text in texts))
    assert (metrics.seq_len.min, metrics.seq_len.p50, metrics.seq_len.max) == (lengths[0], lengths[1], lengths[2])
    assert math.isclose(metrics.seq_len.p95, lengths[1] + 0.9 * (lengths[2] - lengths[1]))
    assert metrics.dataset == "corpus.txt"
    assert len(samples) == 12


def test_measure__refuses_a_split_that_the_run_does_not_have(tmp_path: Path) -> None:
    run = make_run(tmp_path, POEM, test_fraction=0.0)
    model = small_model(run.tokenizer.vocab_size)

    with pytest.raises(AppError, match="no test split"):
        measure(model, run.tokenizer, run.corpus, "test", run.effective, run.compute, run_id="r", checkpoint="best")


def test_samples__are_the_same_for_the_same_seed(run: Run) -> None:
    model = small_model(run.tokenizer.vocab_size)

    first, again, other = (draw_samples(model, run.tokenizer, seed, "r") for seed in (1, 1, 2))

    assert first == again
    assert [sample.text for sample in first] != [sample.text for sample in other]


def test_distinct__is_the_share_of_different_grams() -> None:
    texts = ["a b a b".split(), ["a"]]

    assert distinct(texts, 1) == 2 / 5
    assert distinct(texts, 2) == 2 / 3
    assert distinct([["a"], []], 2) == 1


def test_repetition__is_the_share_of_pairs_seen_before_in_their_text() -> None:
    assert repetition_rate(["a b a b".split(), "a b".split()]) == 1 / 4
    assert repetition_rate([[], ["a"]]) == 0


def test_masked_model__is_measured_on_masked_tokens_the_same_each_time_and_writes_nothing(tmp_path: Path) -> None:
    masked = make_run(tmp_path, test_fraction=0.3, holdout_fraction=0.2, objective="masked_lm")
    model = masked.fresh_model().eval()

    def measured() -> Measured:
        return measure(
            model,
            masked.tokenizer,
            masked.corpus,
            "test",
            masked.effective,
            masked.compute,
            run_id="run",
            checkpoint="best",
        )

    first, second = measured(), measured()

    rows = masked.corpus.rows("test", 16, masking(masked.effective, model.vocabulary))
    batch = rows.batch(np.arange(len(rows)))
    with torch.inference_mode():
        log_p = model.forward(batch.inputs, batch.lengths).log_softmax(-1)
    targets = batch.targets[batch.targets >= 0]
    of_targets = log_p[batch.targets >= 0].gather(-1, targets.unsqueeze(-1))
    metrics = first.metrics
    assert metrics.loss == second.metrics.loss == pytest.approx(-float(of_targets.mean()), abs=1e-5)
    assert (metrics.n_tokens, metrics.objective) == (len(targets), "masked_lm")
    assert metrics.bits_per_char == pytest.approx(metrics.loss / math.log(2))  # one token a character
    assert first.samples == ()


def test_masked_rows__without_any_text_cannot_be_measured(tmp_path: Path) -> None:
    masked = make_run(tmp_path, objective="masked_lm")
    model = masked.fresh_model()
    nothing: NDArray[np.uint8] = np.full(20, 3, dtype=np.uint8)
    rows = Rows(nothing, 8, model.vocabulary.special_ids, masking(masked.effective, model.vocabulary))

    with pytest.raises(AppError, match="no token that can be masked") as caught:
        evaluate_rows(model, rows, masked.compute)
    assert caught.value.code is ErrorCode.CORPUS_EMPTY
