"""The baseline of a run against n-grams in plain dictionaries."""

from collections.abc import Sequence
from math import log, sqrt
from pathlib import Path

import pytest

from tests.support.tiny_models import POEM, Run, make_run, small_model
from tests.unit.ngrams.brute_force import BruteForce, documents_of
from trainer.contracts.base import changed
from trainer.contracts.baselines import Baselines
from trainer.contracts.evaluations import EvalMetrics, EvalSplit
from trainer.contracts.intervals import t_quantile
from trainer.contracts.models import NgramConfig
from trainer.contracts.runs import EffectiveRequest
from trainer.data.corpus import Split
from trainer.ngrams.choose import choose_ngram
from trainer.ngrams.kneser_ney import KneserNey
from trainer.training import baseline
from trainer.training.baseline import measure_baselines
from trainer.training.evaluation import measure

VALIDATION_NATS = 2.5


def poems(folder: Path, **fields: object) -> Run:
    """A run whose held-out lines stand in its training split too, so that long n-grams are the best."""
    split: dict[str, object] = {"split_by": "position", "test_fraction": 0.3, "holdout_fraction": 0.3}
    return make_run(folder, POEM * 4, **({"tokenizer": {"method": "char"}} | split | fields))


def metrics_of(run: Run, split: EvalSplit) -> EvalMetrics:
    model = small_model(run.tokenizer.vocab_size)
    return measure(model, run.tokenizer, run.corpus, split, run.effective, run.compute, run_id="r").metrics


def baselines_of(
    run: Run, metrics: EvalMetrics, effective: EffectiveRequest | None = None
) -> tuple[Baselines, EvalMetrics]:
    request = effective or run.effective
    return measure_baselines(run.corpus, run.tokenizer.vocab_size, request, metrics, VALIDATION_NATS)


def documents(run: Run, split: Split) -> list[list[int]]:
    ids: list[int] = run.corpus.ids[split].tolist()
    return documents_of(ids, run.tokenizer.special_ids)


def chosen(run: Run, max_order: int, max_tokens: int | None = None) -> KneserNey:
    ids, special_ids = run.corpus.ids, run.tokenizer.special_ids
    found = choose_ngram(
        ids["train"],
        ids["validation"],
        vocab_size=run.tokenizer.vocab_size,
        special_ids=special_ids,
        max_order=max_order,
        max_tokens=max_tokens,
    )
    return found.model


def losses_by_hand(run: Run, split: Split, ngram: KneserNey) -> list[float]:
    """Return the losses of a split, with the order and the discounts of an n-gram."""
    special_ids = run.tokenizer.special_ids
    never = {special_ids.bos, special_ids.pad, special_ids.mask}
    never |= set() if special_ids.newline is None else {special_ids.eos}
    predicted = set(range(run.tokenizer.vocab_size)) - never
    counted = BruteForce(documents(run, "train"), ngram.order, predicted, ngram.discounts)
    return counted.losses_nats(documents(run, split))


def half_width_by_hand(differences: Sequence[float], weights: Sequence[int]) -> float:
    """Half the 95 % interval of a ratio of sums over lines: jackknife, with as many degrees as lines count for."""
    total, weight = sum(differences), sum(weights)
    left_out = [(total - one) / (weight - its) for one, its in zip(differences, weights, strict=True)]
    mean = sum(left_out) / len(left_out)
    variance = (len(left_out) - 1) / len(left_out) * sum((one - mean) ** 2 for one in left_out)
    return t_quantile(weight**2 / sum(its**2 for its in weights) - 1) * sqrt(variance)


@pytest.mark.parametrize("split", ["test", "validation"])
@pytest.mark.parametrize(
    "fields",
    [
        {"tokenizer": {"method": "char"}},
        {"tokenizer": {"method": "word"}},
        {"tokenizer": {"method": "char"}, "documents": "stream"},
    ],
    ids=["characters", "words", "stream"],
)
def test_baselines__are_brute_force_on_each_split(tmp_path: Path, fields: dict[str, object], split: EvalSplit) -> None:
    run = poems(tmp_path, **fields)
    metrics = metrics_of(run, split)
    baselines, evaluated = baselines_of(run, metrics)
    assert set(baselines) == {"validation", split} and evaluated.baseline == baselines[split]
    assert evaluated == changed(metrics, baseline=evaluated.baseline, lines=evaluated.lines)
    unigram, best = chosen(run, 1), chosen(run, 7)
    assert best.order > 1
    for name, one in baselines.items():
        sizes = run.corpus.sizes[name]
        own = metrics.loss if name == split else VALIDATION_NATS
        unigrams, ngrams = (losses_by_hand(run, name, ngram) for ngram in (unigram, best))
        losses = [sum(unigrams) / len(unigrams), sum(ngrams) / len(ngrams), own]
        assert (one.order, one.counted_tokens, one.train_tokens) == (best.order, *[len(run.corpus.ids["train"])] * 2)
        assert [one.unigram_loss, one.ngram_loss] == pytest.approx(losses[:2])
        bits = [loss * sizes.tokens / sizes.chars / log(2) for loss in losses]
        assert [one.unigram_bits_per_char, one.ngram_bits_per_char, one.bits_per_char] == pytest.approx(bits)


def test_interval__is_paired_over_the_lines(tmp_path: Path) -> None:
    run = poems(tmp_path, split_by="line")
    baselines, evaluated = baselines_of(run, metrics_of(run, "test"))
    left = iter(losses_by_hand(run, "test", chosen(run, 7)))
    by_line = [sum(next(left) for _ in line[1:]) for line in documents(run, "test")]
    lines = evaluated.lines
    assert lines.ngram_nats == pytest.approx(tuple(by_line)) and len(by_line) > 6
    differences = [(own - its) / log(2) for own, its in zip(lines.nats, by_line, strict=True)]
    assert baselines["test"].margin == pytest.approx(half_width_by_hand(differences, lines.chars))
    assert baselines["validation"].margin is None, "the model's losses of these lines are not known"


def test_long_text__is_counted_in_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = poems(tmp_path)
    monkeypatch.setattr(baseline, "MAX_COUNTED_TOKENS", 200)
    found = baselines_of(run, metrics_of(run, "test"))[0]["test"]
    assert (found.counted_tokens <= 200, found.is_of_sample) == (True, True)
    losses: list[float] = chosen(run, 7, 200).losses_nats(run.corpus.ids["test"]).tolist()
    assert found.ngram_loss == pytest.approx(sum(losses) / len(losses))


@pytest.mark.parametrize(("max_order", "splits"), [(3, {"test", "validation"}), (1, set[str]())])
def test_ngram_model__has_unigrams_as_its_baseline(tmp_path: Path, max_order: int, splits: set[str]) -> None:
    run = poems(tmp_path)
    effective = changed(run.effective, model=NgramConfig(max_order=max_order))
    baselines, _ = baselines_of(run, metrics_of(run, "test"), effective)
    assert set(baselines) == splits
    for one in baselines.values():
        assert (one.order, one.ngram_loss) == (1, one.unigram_loss)


def test_split__that_has_no_loss_has_no_baseline(tmp_path: Path) -> None:
    run = poems(tmp_path)
    baselines, _ = measure_baselines(run.corpus, run.tokenizer.vocab_size, run.effective, metrics_of(run, "test"), None)
    assert set(baselines) == {"test"}


def test_masked_model__has_no_baseline(tmp_path: Path) -> None:
    run = poems(tmp_path)
    metrics = metrics_of(run, "test")
    assert baselines_of(run, metrics, changed(run.effective, objective="masked_lm")) == ({}, metrics)
