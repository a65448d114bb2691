"""Loss, accuracy and statistics of a split, against sums made by hand."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.unit.data.support import POEM, Run, char_tokenizer, make_run, small_model
from tests.unit.models.families import CAUSAL, MASKED, effective_of, model_of
from tests.unit.models.reference import ReferenceModel, losses_by_hand, rows_by_hand
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import perplexity
from trainer.data.batches import Rows, masking
from trainer.data.corpus import SplitCorpus, SplitRule
from trainer.device import resolve as resolve_compute
from trainer.evaluation import (
    Evaluation,
    Measured,
    distinct,
    draw_samples,
    evaluate_rows,
    measure,
    repetition_rate,
)
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import vocabulary_of

COMPUTE = resolve_compute(effective_of("lstm"))


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


@pytest.mark.parametrize("family", [*CAUSAL, *MASKED])
def test_loss__of_every_family_is_the_brute_force_mean_at_every_batch_size(tmp_path: Path, family: str) -> None:
    objective = "masked_lm" if family in MASKED else "causal_lm"
    run = make_run(tmp_path, test_fraction=0.3, holdout_fraction=0.2, objective=objective)
    model = model_of(family, vocabulary_of(run.tokenizer))
    rows = run.corpus.rows("test", 16, masking(run.effective, model.vocabulary))
    losses: list[float] = []
    for number in range(len(rows)):  # a row at a time, without padding
        row = rows.batch(np.arange(number, number + 1))
        with torch.inference_mode():
            log_p: list[list[float]] = model.forward(row.inputs, row.lengths)[0].double().log_softmax(-1).tolist()
        targets: list[int] = row.targets[0].tolist()
        losses += [-p[target] for p, target in zip(log_p, targets, strict=True) if target >= 0]

    found = [evaluate_rows(model, rows, run.compute._replace(batch_size=size)) for size in (1, 2, 3, 64)]

    assert {evaluation.tokens for evaluation in found} == {len(losses)}
    assert [evaluation.loss_nats for evaluation in found] == pytest.approx([sum(losses) / len(losses)] * 4, abs=1e-5)


@pytest.mark.parametrize("method", ["char", "word", "bpe", "wordpiece", "sentencepiece"])
def test_every_family_with_every_tokenizer__predicts_each_token_and_the_end_of_each_line(
    tmp_path: Path, method: str
) -> None:
    block: dict[str, object] = {"method": method}
    if method not in ("char", "word"):
        block["vocab_size"] = 60
    run = make_run(tmp_path, test_fraction=0.3, holdout_fraction=0.2, tokenizer=block, model_family="lstm")
    for family in CAUSAL:
        found = evaluated(model_of(family, vocabulary_of(run.tokenizer)), run)

        assert found.tokens == sum(len(run.tokenizer.encode(line)) + 1 for line in texts_of(run))
        assert math.isfinite(found.loss_nats) and found.top1_hits <= found.top5_hits <= found.tokens


def test_words__targets_are_the_words_and_one_end_of_each_line(tmp_path: Path) -> None:
    words = make_run(
        tmp_path, test_fraction=0.3, holdout_fraction=0.2, tokenizer={"method": "word"}, model_family="lstm"
    )
    found = evaluated(model_of("lstm", vocabulary_of(words.tokenizer)), words, length=1000)

    assert found.tokens == sum(len(line.split()) + 1 for line in texts_of(words))


def test_accuracy__of_three_lines_is_counted_by_hand() -> None:
    tokenizer = char_tokenizer(["abcde"])  # ids: four special ones, then a to e
    assert tokenizer.encode("abcde") == [4, 5, 6, 7, 8]
    model = always([8, 7, 4, 3, 5, 6], tokenizer.vocab_size)  # e, d, a, the end, b; then c
    rows = Rows(tokenizer.encode_documents(["ede", "abc", "cc"]), 4, tokenizer.special_ids)

    found = evaluate_rows(model, rows, COMPUTE)

    assert found.tokens == 3 + 3 + 2 + 3
    assert found.top1_hits == 2  # both e of the first line
    assert found.top5_hits == 11 - 3  # all but the three c


def test_accuracy__of_five_tokens_is_full_among_the_first_five() -> None:
    tokenizer = char_tokenizer(["aa"])
    assert tokenizer.vocab_size == 5
    rows = Rows(tokenizer.encode_documents(["aaa", "a"]), 8, tokenizer.special_ids)

    found = evaluate_rows(small_model(5), rows, COMPUTE)

    assert found.top5_hits == found.tokens == 6


def always(best_first: list[int], tokens: int) -> LanguageModel:
    """A model that answers everything alike: these ids in this order, then all others."""
    model = small_model(tokens)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        weights: dict[str, Tensor] = model.state_dict()
        bias = weights["head_bias"]
        for place, token in enumerate(best_first):
            bias[token] = 10.0 - place
    return model


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
    unknown = sum(line.count(run.tokenizer.special_ids.unk) for line in lines)
    assert (metrics.unit, metrics.unknown_share) == ("nats", unknown / sum(lengths))
    assert len(samples) == 12


def test_measure__counts_bytes_and_unknown_characters(tmp_path: Path) -> None:
    lines = [f"{line} é" for line in POEM[:-1]] + ["öö €"]
    run = make_run(tmp_path, lines, test_fraction=0.3, split_by="position", tokenizer={"method": "char"})
    texts = lines[-3:]
    assert run.corpus.sizes["test"].lines == len(texts)

    metrics, _ = measure(
        small_model(run.tokenizer.vocab_size),
        run.tokenizer,
        run.corpus,
        "test",
        run.effective,
        run.compute,
        run_id="r",
        checkpoint="best",
    )

    characters, size = sum(map(len, texts)), sum(len(text.encode()) for text in texts)
    assert size == characters + 2 + 1 + 1 + 2  # é twice, ö twice; € takes three
    assert (metrics.n_chars, metrics.n_bytes) == (characters, size)
    assert metrics.unknown_share == 3 / characters
    assert metrics.bits_per_byte == pytest.approx(metrics.bits_per_char * characters / size)


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
