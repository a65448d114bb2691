"""The baseline of a run against n-grams in plain dictionaries."""

from collections.abc import Sequence
from math import log, sqrt
from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny_models import NFC, POEM, Run, make_run, small_model, write
from tests.unit.ngrams.brute_force import BruteForce, documents_of
from trainer.contracts.base import changed
from trainer.contracts.baselines import Baselines
from trainer.contracts.evaluations import EvalMetrics, EvalSplit
from trainer.contracts.intervals import t_quantile
from trainer.contracts.models import NgramConfig
from trainer.contracts.runs import EffectiveRequest
from trainer.data.corpus import Split, SplitCorpus, SplitRule
from trainer.data.run_corpora import CorpusPaths, ReadText
from trainer.ngrams.choose import choose_ngram
from trainer.ngrams.kneser_ney import KneserNey
from trainer.tokenizers.base import Ids
from trainer.training import counted_splits
from trainer.training.baseline import counted_validation_loss, measure_baselines
from trainer.training.counted_splits import count_splits
from trainer.training.evaluation import measure

VALIDATION_NATS = 2.5
ALONE = ReadText()
SUBWORDS: dict[str, object] = {"tokenizer": {"method": "bpe", "vocab_size": 40}}
MANY = [f"{one} {other}" for number, one in enumerate(POEM) for other in POEM[number + 1 :]]
"""Different lines of the same words."""
LINES = ["the sea was bright", "his best was done", "she got the moon", "the sun was odd", "it was night at sea"]


def poems(folder: Path, **fields: object) -> Run:
    """A run whose held-out lines stand in its training split too, so that long n-grams are the best."""
    split: dict[str, object] = {"split_by": "position", "test_fraction": 0.3, "holdout_fraction": 0.3}
    return make_run(folder, POEM * 4, **({"tokenizer": {"method": "char"}} | split | fields))


def metrics_of(run: Run, split: EvalSplit) -> EvalMetrics:
    model = small_model(run.tokenizer.vocab_size)
    return measure(model, run.tokenizer, run.corpus, split, run.effective, run.compute, run_id="r").metrics


def baselines_of(
    run: Run, metrics: EvalMetrics, effective: EffectiveRequest | None = None, ancestors: ReadText = ALONE
) -> tuple[Baselines, EvalMetrics]:
    request, paths = effective or run.effective, CorpusPaths(run.folder / "corpus.txt")
    counts = count_splits(run.corpus, run.tokenizer, request, paths, run.folder, ancestors)
    loss = counted_validation_loss(counts, run.corpus, request)
    found = measure_baselines(counts, run.corpus, request, metrics, VALIDATION_NATS)
    if loss is not None:
        validation, sizes = found[0]["validation"], run.corpus.sizes["validation"]
        assert loss / log(2) * sizes.tokens / sizes.chars == pytest.approx(validation.counted_bits_per_char)
    return found


def parent(folder: Path, lines: Sequence[str]) -> ReadText:
    """The text of an ancestor: all of these lines but one."""
    folder.mkdir()
    rule = SplitRule(0.0, 1 / (len(lines) + 1), 1, "position")
    return ReadText((SplitCorpus(write(folder, [*lines, "held out"]), NFC, rule),), ("lstm-1",), ("lstm-0",))


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
    monkeypatch.setattr(counted_splits, "MAX_COUNTED_TOKENS", 200)
    found = baselines_of(run, metrics_of(run, "test"))[0]["test"]
    assert (found.counted_tokens <= 200, found.is_of_sample) == (True, True)
    losses: list[float] = chosen(run, 7, 200).losses_nats(run.corpus.ids["test"]).tolist()
    assert found.ngram_loss == pytest.approx(sum(losses) / len(losses))
    folder = tmp_path / "subwords"
    folder.mkdir()
    subwords = poems(folder, **SUBWORDS)
    of_subwords = baselines_of(subwords, metrics_of(subwords, "test"))[0]["test"]
    characters = of_subwords.characters
    assert characters is not None and characters.counted_characters <= 200 and of_subwords.is_of_sample
    assert characters.train_characters == pytest.approx(len(run.corpus.ids["train"]), rel=0.1)


@pytest.mark.parametrize("fields", [SUBWORDS, SUBWORDS | {"documents": "stream"}, {"tokenizer": {"method": "byte"}}])
def test_other_tokens__are_counted_as_characters_too(tmp_path: Path, fields: dict[str, object]) -> None:
    """The n-gram of characters is that of a run over characters, on the same lines and with their ends."""
    (tmp_path / "characters").mkdir()
    letters = poems(tmp_path / "characters", documents=fields.get("documents", "line"))
    run = poems(tmp_path, **fields)
    (of_letters, _), (found, evaluated) = (baselines_of(one, metrics_of(one, "test")) for one in (letters, run))
    for split, one in found.items():
        expected, counted = of_letters[split], one.characters
        assert expected.characters is None and counted is not None
        assert counted.bits_per_char == pytest.approx(expected.ngram_bits_per_char)
        assert (counted.order, counted.counted_characters) == (expected.order, expected.counted_tokens)
        assert one.counted_bits_per_char == min(counted.bits_per_char, one.ngram_bits_per_char)
        assert one.difference == one.bits_per_char - one.counted_bits_per_char
    nats = evaluated.lines.ngram_nats
    assert nats is not None, "those of the stronger one"
    assert sum(nats) / log(2) / evaluated.n_chars == pytest.approx(found["test"].counted_bits_per_char)


def test_interval__is_that_of_the_difference_from_the_stronger_ngram(tmp_path: Path) -> None:
    (tmp_path / "characters").mkdir()
    letters = make_run(tmp_path / "characters", MANY, tokenizer={"method": "char"}, test_fraction=0.3)
    run = make_run(tmp_path, MANY, **SUBWORDS, test_fraction=0.3)
    left = iter(losses_by_hand(letters, "test", chosen(letters, 7)))
    by_line = [sum(next(left) for _ in line[1:]) for line in documents(letters, "test")]
    found, evaluated = baselines_of(run, metrics_of(run, "test"))
    assert found["test"].is_of_characters
    lines = evaluated.lines
    differences = [(own - its) / log(2) for own, its in zip(lines.nats, by_line, strict=True)]
    assert found["test"].margin == pytest.approx(half_width_by_hand(differences, lines.chars))


def test_ngrams_of_subwords__are_worse_than_those_of_characters(tmp_path: Path) -> None:
    run = poems(tmp_path, **SUBWORDS)
    effective = changed(run.effective, model=NgramConfig(max_order=3))
    found = baselines_of(run, metrics_of(run, "test"), effective)[0]["test"]
    assert (found.order, found.shortfall, found.is_of_characters) == (1, "tokens", True)


def test_ngrams_of_characters__are_told_of_orders_alone(tmp_path: Path) -> None:
    run = poems(tmp_path, tokenizer={"method": "char"})
    effective = changed(run.effective, model=NgramConfig(max_order=3))
    found = baselines_of(run, metrics_of(run, "test"), effective)[0]["test"]
    assert (found.order, found.shortfall) == (1, "order")
    for rounding in (1e-8, -1e-8):
        equal = changed(found, bits_per_char=found.ngram_bits_per_char + rounding, margin=0.0, has_leak=False)
        assert equal.against == "no_clear_difference"
        assert "train on more text, or give a smaller `model.max_order`" in "".join(equal.warnings())


def test_warm_start__is_compared_with_counts_of_its_ancestors_text(tmp_path: Path) -> None:
    split: dict[str, object] = {"split_by": "position", "holdout_fraction": 0.45, "test_fraction": 0}
    run = make_run(tmp_path, [*LINES, *MANY[-4:]], tokenizer={"method": "char"}, **split)
    assert run.lines("train") == LINES
    alone, _ = baselines_of(run, metrics_of(run, "validation"))
    ancestors = parent(tmp_path / "parent", [*POEM, *LINES[:2]])
    found, _ = baselines_of(run, metrics_of(run, "validation"), ancestors=ancestors)
    one = found["validation"]
    assert (one.ancestors, one.uncounted) == (("lstm-1",), ("lstm-0",))
    known = {*run.lines("train")}
    more = "\n".join(line for line in POEM if line not in known)
    ids: Ids = np.append(run.corpus.ids["train"], run.tokenizer.encode_documents(more))
    assert one.train_tokens == one.counted_tokens == len(ids), "lines of its own text are not counted twice"
    best = choose_ngram(
        ids, run.corpus.ids["validation"], vocab_size=run.tokenizer.vocab_size, special_ids=run.tokenizer.special_ids
    ).model
    losses: list[float] = best.losses_nats(run.corpus.ids["validation"]).tolist()
    assert one.ngram_loss == pytest.approx(sum(losses) / len(losses))
    assert one.ngram_loss < alone["validation"].ngram_loss


@pytest.mark.parametrize("lines", [["zzz qqq", "qqqq zz", "zqzqzq"], LINES], ids=["useless", "equal"])
def test_text_of_ancestors__that_does_not_help_is_left_out(tmp_path: Path, lines: list[str]) -> None:
    char: dict[str, object] = {"tokenizer": {"method": "char"}}
    run = make_run(tmp_path, LINES * 3, **char, split_by="position", holdout_fraction=0.3)
    alone, _ = baselines_of(run, metrics_of(run, "validation"))
    found, _ = baselines_of(run, metrics_of(run, "validation"), ancestors=parent(tmp_path / "parent", lines))
    assert found["validation"] == changed(alone["validation"], uncounted=("lstm-0",))


def test_unknown_words__have_no_counts_of_characters(tmp_path: Path) -> None:
    """Characters that nobody has to predict make the figures of words too low to compare with those of characters."""
    run = poems(tmp_path, tokenizer={"method": "word", "vocab_size": 12})
    metrics = metrics_of(run, "test")
    found = baselines_of(run, metrics)[0]["test"]
    assert found.characters is None and found.unknown_char_share == metrics.unknown_char_share
    ngram, special_ids = chosen(run, 7), run.tokenizer.special_ids
    targets = [token for line in documents(run, "test") for token in line[1:]]
    losses = losses_by_hand(run, "test", ngram)
    known = [loss for loss, token in zip(losses, targets, strict=True) if token != special_ids.unk]
    assert 0 < len(known) < len(losses)
    assert found.known_ngram_loss == pytest.approx(sum(known) / len(known))
    assert metrics.known is not None and found.known_loss == metrics.known.loss


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
    paths = CorpusPaths(run.folder / "corpus.txt")
    counts = count_splits(run.corpus, run.tokenizer, run.effective, paths, run.folder, ALONE)
    baselines, _ = measure_baselines(counts, run.corpus, run.effective, metrics_of(run, "test"), None)
    assert set(baselines) == {"test"}


def test_masked_model__has_no_baseline(tmp_path: Path) -> None:
    run = poems(tmp_path)
    metrics = metrics_of(run, "test")
    assert baselines_of(run, metrics, changed(run.effective, objective="masked_lm")) == ({}, metrics)
