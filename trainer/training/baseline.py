"""The baseline of a run: unigrams and the best n-gram of its training split, measured on its held-out splits."""

from math import fsum, log
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.base import changed
from trainer.contracts.baselines import MAX_COUNTED_TOKENS, Baseline, Baselines, Shortfall
from trainer.contracts.evaluations import EvalMetrics
from trainer.contracts.intervals import margin
from trainer.contracts.models import NgramConfig
from trainer.contracts.runs import EffectiveRequest, HeldOutSplit
from trainer.data.corpora import CorpusStore
from trainer.data.run_corpora import check_unchanged, corpus_paths
from trainer.models.ngram import CountedText, NgramModel
from trainer.ngrams.choose import MAX_ORDER, choose_ngram
from trainer.ngrams.kneser_ney import KneserNey
from trainer.tokenizers.base import Tokenizer, vocabulary_of
from trainer.training.counting import filled
from trainer.training.dataset import TokenizedCorpus, prepare


class Counted(NamedTuple):
    """Unigrams and the best n-gram of a training split."""

    unigram: KneserNey
    ngram: KneserNey
    counted_tokens: int


def measure_baselines(
    corpus: TokenizedCorpus,
    vocab_size: int,
    effective: EffectiveRequest,
    metrics: EvalMetrics,
    validation_loss_nats: float | None,
) -> tuple[Baselines, EvalMetrics]:
    """Return the baseline on each split with a loss of the model, and the evaluation of a split with its baseline.

    Equal splits give equal numbers. A masked model has no baseline, because its loss is over masked tokens, and
    unigrams have none. The baseline of longer n-grams is that of unigrams.
    """
    model = effective.model
    if effective.objective == "masked_lm" or (isinstance(model, NgramConfig) and model.max_order == 1):
        return {}, metrics
    counted = unigrams_and_ngram(corpus, vocab_size, 1 if isinstance(model, NgramConfig) else MAX_ORDER)
    losses: dict[HeldOutSplit, float | None] = {"validation": validation_loss_nats, metrics.split: metrics.loss}
    baselines: Baselines = {}
    for split, loss_nats in losses.items():
        if loss_nats is not None:
            baseline, ngram_nats = _measured(counted, corpus, split, loss_nats)
            baselines[split] = changed(baseline, shortfall=_shortfall(effective))
            if split == metrics.split:
                baselines[split], metrics = compared(baselines[split], metrics, ngram_nats)
    return baselines, metrics


def counted_validation_loss(corpus: TokenizedCorpus, vocab_size: int, effective: EffectiveRequest) -> float | None:
    """Return the validation loss of the best n-gram, in nats per token, which a training has to beat.

    None for a masked model, and for one that counts itself. Five megabytes take two seconds.
    """
    if effective.objective == "masked_lm" or isinstance(effective.model, NgramConfig):
        return None
    counted = unigrams_and_ngram(corpus, vocab_size)
    return fsum(counted.ngram.losses_nats(corpus.ids["validation"])) / corpus.sizes["validation"].tokens


def _shortfall(effective: EffectiveRequest) -> Shortfall:
    if any(limit is not None for limit in (effective.minutes, effective.max_steps, effective.max_seconds)):
        return "time"
    return "size" if effective.model_size == "tiny" else "settings"


def compared(
    baseline: Baseline, metrics: EvalMetrics, ngram_nats: tuple[float, ...] | None
) -> tuple[Baseline, EvalMetrics]:
    """Return the baseline of a split compared with an evaluation of it, and the evaluation with the baseline.

    `ngram_nats` are the losses of the n-gram over the groups of lines of the split; None gives no interval.
    """
    lines, half_nats = metrics.lines, None
    if ngram_nats is not None:
        lines = changed(lines, ngram_nats=ngram_nats)
        half_nats = margin((lines.nats, lines.chars), (ngram_nats, lines.chars), is_drawn=lines.is_drawn)
    bits = _bits_per_char(metrics.loss, metrics.n_tokens, metrics.n_chars)
    baseline = changed(baseline, bits_per_char=bits, margin=None if half_nats is None else half_nats / log(2))
    return baseline, changed(metrics, baseline=baseline, lines=lines)


def unigrams_and_ngram(corpus: TokenizedCorpus, vocab_size: int, max_order: int = MAX_ORDER) -> Counted:
    """Count the training split, or a sample of it, and choose the order on the validation split."""
    unigram, ngram = (
        choose_ngram(
            corpus.ids["train"],
            corpus.ids["validation"],
            vocab_size=vocab_size,
            special_ids=corpus.special_ids,
            max_order=order,
            max_tokens=MAX_COUNTED_TOKENS,
        )
        for order in (1, max_order)
    )
    return Counted(unigram.model, ngram.model, ngram.counted_tokens)


def count_corpus(effective: EffectiveRequest, corpora: CorpusStore, cache: Path, tokenizer: Tokenizer) -> CountedText:
    """Count the training text of a run; raises DATA_NOT_FOUND if it is deleted or has changed.

    `cache` is the folder of encoded corpora.
    """
    _, corpus = prepare(effective, corpus_paths(corpora, effective), cache, tokenizer)
    unigram, ngram, _ = unigrams_and_ngram(corpus, tokenizer.vocab_size)
    has_spaces = corpus.words["train"] > corpus.sizes["train"].lines
    return CountedText(tokenizer, _model(unigram, tokenizer), _model(ngram, tokenizer), ngram.order, has_spaces)


class KeptCounts:
    """Counts the training text of a run when that is first needed, and keeps the counts while the text is there.

    Five megabytes take two seconds.
    """

    def __init__(self, effective: EffectiveRequest, corpora: CorpusStore, cache: Path, tokenizer: Tokenizer) -> None:
        """Take what `count_corpus` takes."""
        self._effective, self._corpora, self._cache, self._tokenizer = effective, corpora, cache, tokenizer
        self._counted: CountedText | None = None

    def __call__(self) -> CountedText:
        """Return the counts; raises DATA_NOT_FOUND if the text is deleted or has changed."""
        kept, self._counted = self._counted, None
        if kept is None:
            kept = count_corpus(self._effective, self._corpora, self._cache, self._tokenizer)
        else:
            check_unchanged(self._effective, corpus_paths(self._corpora, self._effective))
        self._counted = kept
        return kept

    @property
    def memory_bytes(self) -> int:
        return 0 if self._counted is None else self._counted.unigram.memory_bytes() + self._counted.ngram.memory_bytes()


def _model(engine: KneserNey, tokenizer: Tokenizer) -> NgramModel:
    return filled(NgramModel(NgramConfig(max_order=engine.order), vocabulary_of(tokenizer), "causal_lm"), engine)


def _measured(
    counted: Counted, corpus: TokenizedCorpus, split: HeldOutSplit, loss_nats: float
) -> tuple[Baseline, tuple[float, ...]]:
    """Return the baseline on a split, and the losses of the n-gram over the groups of lines of an evaluation."""
    ids, sizes = corpus.ids[split], corpus.sizes[split]
    line_start = corpus.special_ids.line_start
    positions: NDArray[np.int64] = (
        np.arange(len(ids)) if line_start is None else np.flatnonzero(np.not_equal(ids, line_start))
    )
    groups = np.searchsorted(corpus.documents(split).group_ends(), positions)
    unigram_nats: list[float] = np.bincount(groups, counted.unigram.losses_nats(ids)).tolist()
    ngram_nats: list[float] = np.bincount(groups, counted.ngram.losses_nats(ids)).tolist()
    losses = fsum(unigram_nats) / sizes.tokens, fsum(ngram_nats) / sizes.tokens, loss_nats
    unigram_bits, ngram_bits, bits = (_bits_per_char(loss, sizes.tokens, sizes.chars) for loss in losses)
    baseline = Baseline(
        order=counted.ngram.order,
        counted_tokens=counted.counted_tokens,
        train_tokens=len(corpus.ids["train"]),
        unigram_loss=losses[0],
        unigram_bits_per_char=unigram_bits,
        ngram_loss=losses[1],
        ngram_bits_per_char=ngram_bits,
        bits_per_char=bits,
        has_leak=sizes.leak is not None and sizes.leak.is_large,
    )
    return baseline, tuple(ngram_nats)


def _bits_per_char(loss_nats: float, tokens: int, chars: int) -> float:
    return loss_nats / log(2) * tokens / chars
